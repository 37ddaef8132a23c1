"""`persona plan`: what a pipeline will keep, take and cost, learned from a sample that is really run."""
