"""The record of what was forgotten: who did it, when, why, and what changed; never what was removed.

FOLDER/record.jsonl, a line a request. Each line holds the hash of the line before it and an HMAC by the key
of the store, so whoever has the key can tell whether a line was changed, left out or added without it. The
record does not prove to others that nothing else was kept, and covers no disk blocks, backups or copies.
"""

import hashlib
import json
from typing import Any

from curation.errors import ConfigError
from curation.excluded.tombstone_store import TombstoneKey
from curation.storage import exists, join, read_bytes, write_bytes

FILE = "record.jsonl"


def add_entry(folder: str, key: TombstoneKey, entry: dict[str, Any]) -> dict[str, Any]:
    """Appends an entry; one with the same `id` is there already where a killed call wrote it. Returns it."""
    entries = read_entries(folder)
    for known in entries:
        if known["id"] == entry["id"]:
            return known
    previous = _hash(entries[-1]) if entries else ""
    signed = {**entry, "previous": previous}
    signed["mac"] = key.digest("record", _canonical(signed))
    lines = "".join(json.dumps(known, sort_keys=True) + "\n" for known in [*entries, signed])
    write_bytes(join(folder, FILE), lines.encode())
    return signed


def read_entries(folder: str) -> list[dict[str, Any]]:
    """All entries, oldest first. Raises ConfigError for a line that is none."""
    path = join(folder, FILE)
    if not exists(path):
        return []
    entries = []
    for number, line in enumerate(read_bytes(path).decode("utf-8", "replace").splitlines(), 1):
        try:
            entry = json.loads(line)
            entries.append({**entry, "id": entry["id"]})
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{path}:{number}: is no entry of a record") from None
    return entries


def first_broken(entries: list[dict[str, Any]], key: TombstoneKey) -> int | None:
    """The number (from 1) of the first entry that the key did not sign as it stands; None: all are whole."""
    previous = ""
    for number, entry in enumerate(entries, 1):
        unsigned = {name: value for name, value in entry.items() if name != "mac"}
        if entry.get("previous") != previous or entry.get("mac") != key.digest(
            "record", _canonical(unsigned)
        ):
            return number
        previous = _hash(entry)
    return None


def _canonical(entry: dict[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"))


def _hash(entry: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(entry).encode()).hexdigest()
