"""`persona report`: what a run did, as one folder that a browser opens from disk."""
