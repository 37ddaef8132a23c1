"""The reader of dataset.json: what a folder says of itself before anything is taken from it."""

import atexit
import shutil
import tempfile
from pathlib import Path

from shards.format.dataset import DatasetError
from shards.reading.folder import read_dataset_json
from tests.drawn_shards import drawn_groups, write_dataset

MODULES = ("shards.reading.folder", "shards.format.dataset", "json.decoder")
_FOLDER = Path(tempfile.mkdtemp(prefix="persona-fuzz-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)


def seeds() -> list[bytes]:
    """That of a small dataset, and an empty one."""
    write_dataset(_FOLDER, drawn_groups(2, outfits=2), max_samples=2)
    return [
        (_FOLDER / "dataset.json").read_bytes(),
        b'{"schema": "1.0", "groups": 0, "shards": []}',
        b"[" * 3000,
    ]


def parse(data: bytes) -> None:
    """What it says, or DatasetError."""
    (_FOLDER / "dataset.json").write_bytes(data)
    try:
        read_dataset_json(_FOLDER)
    except DatasetError as error:
        assert "\n" not in str(error)  # noqa: PT017
