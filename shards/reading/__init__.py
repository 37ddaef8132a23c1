"""Reading a dataset for a training: opened by its index, in a global order, decoded into batches."""
