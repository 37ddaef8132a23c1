"""Weights: fetched, proven, pinned."""
