"""The tools of `persona shards`: index, verify, copy, split, merge, export, forget and what they share."""
