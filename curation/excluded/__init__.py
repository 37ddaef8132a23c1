"""Photos that must stay out: by their address, a tombstone or a list of opt-outs."""
