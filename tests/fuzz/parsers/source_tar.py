"""The listing of a collection's tars: rows for what can be read, one that says where it broke."""

import os
import tempfile
from pathlib import Path

from curation.settings.source import SourceSettings
from curation.sources.webdataset import webdataset_rows
from tests.fuzz.parsers import tar

MODULES = (
    "curation.sources.webdataset",
    "curation.sources.records",
    "curation.sources.rows",
    "shards.format.tar_reader",
)
_SOURCE = SourceSettings(kind="webdataset", path="collection")
_FILE = Path(tempfile.gettempdir()) / f"persona-fuzz-{os.getpid()}.tar"


def seeds() -> list[bytes]:
    """Those of the other tar reader, and two tars joined."""
    return [*tar.seeds(), tar.seeds()[0] + tar.seeds()[1]]


def parse(data: bytes) -> None:
    """No input is an error: a broken tar gives a row that tells of it."""
    _FILE.write_bytes(data)
    try:
        keys = [row.source_key for row in webdataset_rows(str(_FILE), "x.tar", _SOURCE)]
    finally:
        _FILE.unlink()
    assert len(keys) == len(set(keys))
