"""The real program, injured at random moments: it must end as if nothing had happened."""
