"""The readers of other libraries, one script each, run in an environment of their own (.venv-peers)."""
