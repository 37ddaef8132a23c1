"""A rendered world with known truth, small models trained on it, and the run that shows the product."""
