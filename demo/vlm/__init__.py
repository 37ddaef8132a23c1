"""The demo's VLM: a small Qwen2-VL that judges outfits and writes captions, and its training from nothing."""
