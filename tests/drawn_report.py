"""Reports as tests read them: the data files' values, and all bytes of a report."""

import json
from pathlib import Path
from typing import Any


def value_of(report: Path, name: str) -> Any:
    """What `data/NAME.js` hands to the page."""
    text = (report / "data" / f"{name}.js").read_text("ascii")
    head, tail = f'report.put("{name}",', ");\n"
    assert text.startswith(head)
    assert text.endswith(tail)
    return json.loads(text[len(head) : -len(tail)])


def overview_of(report: Path) -> dict[str, Any]:
    """The value that the page starts from."""
    return dict(value_of(report, "overview"))


def entries_of(report: Path, entry: dict[str, Any]) -> list[Any]:
    """All entries of a list that is cut into files."""
    pages = -(-entry["count"] // entry["size"])
    return [found for page in range(pages) for found in value_of(report, f"{entry['name']}-{page}")]


def bytes_of(report: Path) -> bytes:
    """Everything that a report holds."""
    return b"".join(file.read_bytes() for file in sorted(report.rglob("*")) if file.is_file())
