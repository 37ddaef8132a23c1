"""The dataset on disk: WebDataset shards, their index and card. Knows neither Ray nor torch (but one file).

    format/    what a dataset is: samples, tars, index, dataset.json, tombstones, how a photo is stored
    remote/    files of a dataset in an object store: ranges, fetched ahead and cached
    reading/   datasets for a training: opened by index, in a global order, decoded into batches
    tools/     `persona shards`: index, verify, copy, split, merge, export, forget

Each room imports itself and those above it, never one below (tests/house/test_layers_of_shards.py).
"""
