"""A dataset with as many samples as one likes: its index names the members of a small one over and over."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shards.format.dataset import dataset_bytes
from shards.format.index import IndexWriter


def large_index(source: Path, folder: Path, samples: int) -> Path:
    """`folder` with `samples` rows over links to the shards of `source`; written once, then found."""
    if (folder / "dataset.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    about = json.loads((source / "dataset.json").read_text())
    for shard in about["shards"]:
        link = folder / shard["name"]
        if not link.exists():
            link.symlink_to((source / shard["name"]).resolve())
    rows = pq.read_table(source / "index.parquet")
    with IndexWriter(str(folder)) as writer:
        for start in range(0, samples, rows.num_rows):
            part = rows.slice(0, min(rows.num_rows, samples - start))
            keys = pa.array([f"{number:08d}" for number in range(start, start + part.num_rows)])
            writer.write(part.set_column(0, rows.schema.field("key"), keys))
        hashes = writer.close()
    (folder / "dataset.json").write_bytes(
        dataset_bytes(about["shards"], {"groups": samples, "index": hashes})
    )
    return folder
