"""A collection before anything is chosen: what it holds and what its photos say of their rights."""
