"""A saved model as a service over HTTP, with one page to try it."""
