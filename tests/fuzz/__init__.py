"""Our own parsers under inputs that coverage leads to: a result or a documented error, nothing else."""
