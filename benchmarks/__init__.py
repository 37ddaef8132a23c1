"""Each claim of speed as one command, beside what it is compared with, in one run."""
