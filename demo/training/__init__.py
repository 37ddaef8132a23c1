"""Training on the rendered world: people out of its truth, and the training that `make demo` shows."""
