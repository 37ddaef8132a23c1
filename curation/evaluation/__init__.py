"""`persona eval`: what a run decided, beside a truth that is known."""
