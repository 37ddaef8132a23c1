"""Stage `rights`: what a photo says of itself is obeyed; decisions on what `read` stored."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, ClassVar

import pyarrow as pa

from curation.declared import Reason
from curation.ledger import REJECTED, Outcome, is_kept, kept, rule_rows
from curation.settings.photos import RightsSettings
from curation.sources.parquet import json_object, records_in
from curation.stage import Stage
from shards.format.stated_rights import MARKS, is_synthetic

_BEFORE = ", as it stated before its metadata was taken off"


class Rights(Stage):
    """Rejects photos that reserve mining, that no camera made, and whose Content Credentials are broken."""

    name: ClassVar[str] = "rights"
    unit: ClassVar[str] = "photo"
    settings_type: ClassVar[Any] = RightsSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason(
            "mining_reserved",
            "it, or its server, reserves mining or training, or what it says of it is `unreadable`",
            "photos.rights.mining",
        ),
        Reason(
            "synthetic",
            "it says that a model made it, or a part of it, or what it says of it is `unreadable`",
            "photos.rights.synthetic",
        ),
        Reason("broken_credentials", "its Content Credentials cannot be trusted", "photos.rights.broken"),
    )

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every photo still in."""
        rows = table.select(["source_type", "mining", "mining_reserved", "credentials_broken", "metadata"])
        outcomes = [
            self._rule(row) if still_in else None
            for row, still_in in zip(rows.to_pylist(), is_kept(table), strict=True)
        ]
        return rule_rows(table, self.stamp, outcomes)

    def _rule(self, row: dict[str, Any]) -> Outcome:
        wanted: RightsSettings = self.settings
        record = _record(row["metadata"])
        marks = marks_beside(record)
        if wanted.mining:
            if row["mining_reserved"]:
                return Outcome(REJECTED, "mining_reserved", detail=row["mining"])
            if (header := reserving_header(record)) is not None:
                return Outcome(REJECTED, "mining_reserved", detail=header)
            if marks.get("reserved"):
                return Outcome(REJECTED, "mining_reserved", detail=f"{marks.get('mining')}{_BEFORE}")
        if wanted.synthetic and is_synthetic(row["source_type"]):
            return Outcome(REJECTED, "synthetic", detail=row["source_type"])
        if wanted.synthetic and is_synthetic(marks.get("source_type")):
            return Outcome(REJECTED, "synthetic", detail=f"{marks['source_type']}{_BEFORE}")
        if wanted.broken and row["credentials_broken"] is not None:
            return Outcome(REJECTED, "broken_credentials", detail=row["credentials_broken"])
        if wanted.broken and marks.get("broken") is not None:
            return Outcome(REJECTED, "broken_credentials", detail=f"{marks['broken']}{_BEFORE}")
        return kept()


def _record(metadata: str | None) -> Any:
    """The record beside a photo, where it may hold headers or marks."""
    folded = (metadata or "").lower().replace("_", "-")
    told = "robots" in folded or "tdm-res" in folded or MARKS in (metadata or "")
    return json.loads(metadata or "") if told else None


def marks_in(metadata: str | None) -> str | None:
    """`marks_beside` of the record beside a photo, as JSON; None where there are none."""
    marks = marks_beside(json.loads(metadata)) if metadata is not None and MARKS in metadata else {}
    return json.dumps(marks, sort_keys=True) if marks else None


def marks_beside(record: Any) -> dict[str, Any]:
    """What a photo stated before its metadata was taken off, as its record keeps it (`marks_of`); else {}."""
    stated = (json_object(each.get(MARKS)) for each in records_in(record))
    return next((marks for marks in stated if isinstance(marks, dict) and marks), {})


def reserving_header(record: Any) -> str | None:
    """The directive by which the server of a photo reserved it, as a collection's record keeps its headers.

    noai and noimageai in X-Robots-Tag (as img2dataset obeys them while it downloads), and TDM-Reservation: 1.
    Headers may be columns of their own, or an object, pairs, or lines of text under `headers`,
    `http_headers` or `response_headers`.
    """
    for name, value in chain.from_iterable(map(_headers, records_in(record))):
        words = {word.strip().lower() for word in re.split(r"[,;:\s]+", value)}
        if name == "x-robots-tag" and (said := words & {"noai", "noimageai"}):
            return f"X-Robots-Tag {min(said)}"
        if name == "tdm-reservation" and "1" in words:
            return "TDM-Reservation 1"
    return None


def _headers(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in record.items():
        folded = str(name).lower().replace("_", "-")
        if folded in ("x-robots-tag", "tdm-reservation"):
            for each in value if isinstance(value, list) else [value]:
                yield folded, str(each)
        elif folded in ("headers", "http-headers", "response-headers"):
            yield from _inner_headers(value)


def _inner_headers(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = [line.split(":", 1) for line in value.splitlines() if ":" in line]
    if isinstance(value, dict):
        value = list(value.items())
    for pair in value if isinstance(value, list) else []:
        if isinstance(pair, dict):
            pair = [pair.get("name", pair.get("key", "")), pair.get("value", "")]
        if isinstance(pair, list | tuple) and len(pair) == 2:
            name = str(pair[0]).strip().lower().replace("_", "-")
            for each in pair[1] if isinstance(pair[1], list) else [pair[1]]:
                yield name, str(each)
