"""Results of earlier starts of a benchmark, as long as the code that they measured is the same."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class KeptResults:
    """Rows by name in FOLDER/results.json, each with a hash of the files that it measured.

    Without a folder nothing is kept beyond the process.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / "results.json"
        known = self._file is not None and self._file.exists()
        self._rows: dict[str, Any] = json.loads(self._file.read_text()) if self._file and known else {}

    def get(self, name: str, code: str) -> dict[str, Any] | None:
        """The row of that name, measured on that code."""
        entry = self._rows.get(name)
        return dict(entry["row"]) if entry is not None and entry["code"] == code else None

    def put(self, name: str, code: str, row: dict[str, Any]) -> None:
        """Keeps a row; the file is whole at any time."""
        self._rows[name] = {"code": code, "row": row}
        if self._file is not None:
            temporary = self._file.with_suffix(".tmp")
            temporary.write_text(json.dumps(self._rows, indent=1, sort_keys=True) + "\n")
            temporary.replace(self._file)

    def names(self, code: str) -> list[str]:
        """Names of all rows measured on that code."""
        return sorted(name for name, entry in self._rows.items() if entry["code"] == code)


def code_hash(root: Path, files: Iterable[str]) -> str:
    """16 hex digits over the bytes of these files."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file} {hashlib.sha256((root / file).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
