"""The conventions of scikit-learn's estimators over the stages of a fit."""
