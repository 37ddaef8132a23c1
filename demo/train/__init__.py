"""Trains the demo's small models on the rendered world: one script each, and what they share."""
