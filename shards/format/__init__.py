"""What a dataset is on disk: samples, tars, index, card, tombstones; what a photo's file says of itself."""
