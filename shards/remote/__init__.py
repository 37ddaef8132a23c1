"""Datasets in object stores: ranges of objects, fetched ahead and kept in caches."""
