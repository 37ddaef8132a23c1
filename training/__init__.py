"""Training on shards: models, recipes, the loop, checkpoints, export. Knows neither ray nor curation."""
