"""Short hashes of settings and rows: they name what a result depends on."""

import hashlib
import json
from collections.abc import Iterable


def fingerprint(value: object) -> str:
    """16 hex digits of the sha256 of `value` as canonical JSON (sorted keys, no blanks)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def fingerprint_rows(rows: Iterable[tuple[object, ...]]) -> str:
    """16 hex digits over rows of plain values, in their order; streams, so any number of rows."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    return digest.hexdigest()[:16]
