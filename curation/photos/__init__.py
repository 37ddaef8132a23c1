"""The phase `photos`: which files are photos that may be used, each of them once."""
