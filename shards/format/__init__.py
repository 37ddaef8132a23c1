"""What a dataset is on disk: samples, tars, index, card, tombstones; how a photo's file is read."""
