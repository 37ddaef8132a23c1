"""The listing of a collection's tars: rows for what can be read, one that says where it broke."""

import os
import tempfile
from pathlib import Path

from curation.settings.source import SourceSettings
from curation.sources.webdataset import webdataset_rows
from tests.fuzz.parsers import tar

MODULES = ("curation.sources.webdataset", "curation.sources.rows", "tarfile")
_SOURCE = SourceSettings(kind="webdataset", path="collection")
_FILE = Path(tempfile.gettempdir()) / f"persona-fuzz-{os.getpid()}.tar"


def seeds() -> list[bytes]:
    """Those of the other tar reader."""
    return tar.seeds()


def parse(data: bytes) -> None:
    """No input is an error: a broken tar gives a row that tells of it."""
    _FILE.write_bytes(data)
    try:
        keys = [row.source_key for row in webdataset_rows(str(_FILE), "x.tar", _SOURCE)]
    finally:
        _FILE.unlink()
    assert len(keys) == len(set(keys))
