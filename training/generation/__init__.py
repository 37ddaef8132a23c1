"""Pictures out of a trained model: from photos or shards, by the command or in Python."""
