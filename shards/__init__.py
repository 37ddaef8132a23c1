"""The dataset on disk: WebDataset shards, their index and card. Knows neither Ray nor torch."""
