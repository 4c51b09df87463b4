"""A subject's anatomy, the scanner that shows it, the sweep of the probe."""
