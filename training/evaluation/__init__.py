"""Evaluation: prompts × held-out people at fixed seeds, scored by local models and by a VLM's server."""
