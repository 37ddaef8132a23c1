"""A corpus of files that break readers, drawn from a seed, and a run of the photo phases over it."""
