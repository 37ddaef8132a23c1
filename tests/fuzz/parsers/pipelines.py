"""The reader of pipelines.yaml: settings, or lines that a user can act on."""

import os
import tempfile
from pathlib import Path

import yaml

from curation.errors import ConfigError
from curation.pipeline_file import load_pipeline
from tests.drawn_pipeline import ROOT, settings

MODULES = ("curation.pipeline_file", "edges.settings_reader", "yaml")
_FILE = Path(tempfile.gettempdir()) / f"persona-fuzz-{os.getpid()}.yaml"


def seeds() -> list[bytes]:
    """Our own file with its pipelines, and a small one."""
    own = (ROOT / "pipelines.yaml").read_bytes()
    small = yaml.safe_dump({"pipelines": {"demo": settings("photos")}}).encode()
    bomb = b"a: &a [x, x]\nb: &b [*a, *a]\npipelines: {demo: {seed: [*b, *b]}}\n"
    return [own, small, bomb, b"pipelines: {demo: {source: {kind: folder, path: x}}}\n"]


def parse(data: bytes) -> None:
    """Settings or ConfigError."""
    _FILE.write_bytes(data)
    try:
        load_pipeline(str(_FILE), "demo", [])
    except ConfigError as error:
        assert str(error)  # noqa: PT017
    finally:
        _FILE.unlink()
