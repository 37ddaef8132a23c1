"""Requests to be forgotten: photos and people are taken out of every run, dataset and index, and kept out."""
