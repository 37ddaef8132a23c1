"""The phase `identities`: who is the same person; the only global phase on embeddings."""
