"""Tests of curation/weights."""
