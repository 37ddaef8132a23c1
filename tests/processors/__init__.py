"""One collection under several instruction sets and numbers of threads: what is the same, and what is not."""
