"""The phase `shards`: groups become WebDataset shards with an index and a card."""
