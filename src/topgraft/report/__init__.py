"""The report of a run: numbers, figures made from them, and one HTML page that needs nothing else."""
