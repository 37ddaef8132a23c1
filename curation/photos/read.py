"""Stage `read`: bytes, hash, header and perceptual hash of each file; limits come before decoding."""

import hashlib
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curation.columns import put_column
from curation.declared import Reason
from curation.errors import one_line
from curation.excluded.address import COLUMNS
from curation.excluded.opt_out import OPTED_OUT, OptOuts, collected_as
from curation.excluded.tombstone_store import ObeyedTombstones
from curation.ledger import FAILED, REJECTED, Outcome, failed, kept, rule_rows
from curation.meters import CallCounter
from curation.photos.decode import (
    VERSION,
    DecodeError,
    Header,
    OpenPhoto,
    RightsWanted,
    UnknownFormatError,
    open_photo,
)
from curation.photos.perceptual_hash import perceptual_hash
from curation.settings.photos import ScreenSettings
from curation.settings.source import SourceSettings
from curation.sources.parquet import records_in
from curation.sources.photo_bytes import PhotoBytes, TooManyBytesError
from curation.stage import Stage, set_columns
from shards.format.orientation import told_orientation

FORGOTTEN = "forgotten"  # reason and value of `undecoded`
NOT_DOWNLOADED = "not_downloaded"  # reason, and column of what the downloader wrote
_UNREADABLE = ("source_error", NOT_DOWNLOADED)
# What a row may say of a photo that was forgotten: where in the collection it lies, and no more.
_TELLING = (
    NOT_DOWNLOADED,
    "subject_hint",
    "source_url",
    "page_url",
    "author",
    "caption",
    "metadata",
    "consent",
)
_HASH_FROM_PX = 256  # a JPEG may be decoded at this scale for its perceptual hash


class Read(Stage):
    """Fills what is known of a file. A file that cannot be read or decoded is failed; a download that
    failed before is no photo, and rejected as `not_downloaded`.

    `undecoded` names what kept the photo from being read or decoded: too_many_bytes, too_many_pixels,
    format, or that it was forgotten or opted out by its name or address. It is no failure; the stage
    `screen` rejects by it. Of a photo that was forgotten nothing else is stored.
    """

    name: ClassVar[str] = "read"
    unit: ClassVar[str] = "photo"
    settings_type: ClassVar[Any] = ScreenSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason("unreadable", "the file or its row cannot be read; the detail says why", verdict=FAILED),
        Reason(NOT_DOWNLOADED, "the collection's downloader says that it got no photo"),
    )
    version: ClassVar[int] = VERSION + 3  # what photos say of themselves is read too; 3: wherever they say it
    fills: ClassVar[pa.Schema] = pa.schema(
        [
            ("photo_id", pa.string()),
            ("n_bytes", pa.int64()),
            ("format", pa.string()),
            ("width", pa.int64()),
            ("height", pa.int64()),
            ("orientation", pa.int8()),
            ("frames", pa.int64()),
            ("phash", pa.uint64()),
            ("credit", pa.string()),
            ("source_type", pa.string()),
            ("mining", pa.string()),
            ("mining_reserved", pa.bool_()),
            ("credentials", pa.string()),
            ("credentials_broken", pa.string()),
            ("undecoded", pa.string()),
            ("read_error", pa.string()),
        ]
    )

    def __init__(
        self,
        settings: ScreenSettings,
        source: SourceSettings,
        photos: PhotoBytes,
        calls: CallCounter,
        tombstones: ObeyedTombstones | None = None,
        opt_outs: OptOuts | None = None,
        open_photo: OpenPhoto = open_photo,
        credentials: bool = True,
    ) -> None:
        super().__init__(settings)
        # Which bytes a Parquet row stands for depends on these; where a collection lies does not.
        self._measured_with = {
            "image_column": source.image_column,
            "uri_column": source.uri_column,
            "allow_urls": source.allow_urls,
            "allow_private": source.allow_private,
            "allow_outside": source.allow_outside,
            "credentials": credentials,
        }
        self._rights: RightsWanted = "all" if credentials else "stated"
        self._photos = photos
        self._calls = calls
        self._tombstones = tombstones or ObeyedTombstones()
        self._opt_outs = opt_outs or OptOuts(ScreenSettings())
        self._open = open_photo

    def missing(self, table: pa.Table) -> list[bool]:
        """Rows never read, and rows that a limit stopped which lets them pass now."""
        names = [*self.fills.names, *_UNREADABLE, "source_key", "file_name", *COLUMNS]
        return [self._is_missing(row) for row in table.select(names).to_pylist()]

    def _is_missing(self, row: dict[str, Any]) -> bool:
        limit = row["undecoded"]
        if _is_unreadable(row):
            return limit is not None or self._tombstones.has_url(row, self.settings.address_query)
        # What was read before it was forgotten is stored no longer; whether it still is, reading tells.
        if limit == FORGOTTEN or self._is_forgotten(row):
            return True
        if limit == OPTED_OUT:
            return not self._opt_outs.naming(row)
        if row["read_error"] is not None:
            return False
        if limit == "too_many_bytes":
            return row["n_bytes"] <= self._max_bytes
        if limit == "too_many_pixels":
            return row["width"] * row["height"] <= self.settings.max_pixels
        return row["photo_id"] is None

    @property
    def _max_bytes(self) -> int:
        return int(self.settings.max_file_mib * 2**20)

    def _is_forgotten(self, row: dict[str, Any]) -> bool:
        tombstones, max_bits = self._tombstones, self.settings.forgotten_max_bits
        return (
            tombstones.has_url(row, self.settings.address_query)
            or tombstones.has_photo(row.get("photo_id"))
            or tombstones.has_photo(collected_as(row.get("metadata")))
            or tombstones.has_picture(row.get("phash"), max_bits)
        )

    def measure(self, table: pa.Table) -> pa.Table:
        """Reads, hashes and decodes each row."""
        rows = table.to_pylist()
        self._calls.asked(self.name, [row["source_key"] for row in rows])
        return set_columns(table, self.fills, [self._read(row) for row in rows])

    def _read(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._tombstones.has_url(row, self.settings.address_query):
            return {"undecoded": FORGOTTEN}
        if _is_unreadable(row):
            return {}
        if self._opt_outs.naming(row):
            return {"undecoded": OPTED_OUT}
        found = self._read_anything(row)
        return {"undecoded": FORGOTTEN} if self._is_forgotten({**row, **found}) else found

    def _read_anything(self, row: dict[str, Any]) -> dict[str, Any]:
        length = row["length"]
        if length is not None and length > self._max_bytes:
            return {"n_bytes": length, "undecoded": "too_many_bytes"}
        try:
            data = self._photos.read(row, self._max_bytes)
        except TooManyBytesError as error:
            return {"n_bytes": error.size, "undecoded": "too_many_bytes"}
        except Exception as error:  # any store, any fault: this row's failure, never its neighbours'
            return {"read_error": one_line(error)}
        found: dict[str, Any] = {
            "n_bytes": len(data),
            "photo_id": hashlib.sha256(data).hexdigest(),
        }
        if not data:
            return {**found, "read_error": "the file is empty"}
        if len(data) > self._max_bytes:
            return {**found, "undecoded": "too_many_bytes"}
        try:
            told = told_beside(row["metadata"])
            header, rgb = self._open(data, _HASH_FROM_PX, self.settings.max_pixels, told, self._rights)
        except UnknownFormatError as error:
            return {**found, "format": str(error), "undecoded": "format"}
        except DecodeError as error:
            return {**found, **_header_columns(error.header), "read_error": str(error)}
        found |= _header_columns(header)
        if rgb is None:
            return {**found, "undecoded": "too_many_pixels"}
        return {**found, "phash": perceptual_hash(rgb)}

    def decide(self, table: pa.Table) -> pa.Table:
        """Rejected where nothing was downloaded, failed where the source or the file could not be read;
        kept otherwise, as what was forgotten: `screen` rejects it."""
        outcomes: list[Outcome | None] = []
        for row in table.select([*_UNREADABLE, "read_error", "undecoded"]).to_pylist():
            problem = row["source_error"] or row["read_error"]
            if row["undecoded"] == FORGOTTEN:
                outcomes.append(kept())
            elif row["not_downloaded"]:
                outcomes.append(Outcome(REJECTED, NOT_DOWNLOADED, detail=row["not_downloaded"]))
            else:
                outcomes.append(failed("unreadable", problem) if problem else kept())
        return rule_rows(table, self.stamp, outcomes)


def _is_unreadable(row: dict[str, Any]) -> bool:
    """Whether the collection itself says that there is no photo to read."""
    return any(row[name] is not None for name in _UNREADABLE)


def told_beside(metadata: str | None) -> int:
    """The orientation that a photo's record tells of bytes without EXIF, 1 to 8; also one that lies in it."""
    if metadata is None or "Image Orientation" not in metadata:
        return 1
    return next((told for told in map(told_orientation, records_in(metadata)) if told != 1), 1)


def _header_columns(header: Header | None) -> dict[str, Any]:
    if header is None:
        return {}
    names = ("format", "width", "height", "orientation", "frames")
    columns = {name: getattr(header, name) for name in names}
    if header.rights is not None:
        columns |= {name: getattr(header.rights, name) for name in ("credit", "source_type", "mining")}
        columns |= {"mining_reserved": header.rights.reserved, "credentials": header.rights.credentials}
        columns["credentials_broken"] = header.rights.broken
    return columns


def without_telling(table: pa.Table) -> pa.Table:
    """The table with nothing about photos that were forgotten but their place in the collection."""
    is_forgotten = pc.fill_null(pc.equal(table["undecoded"], FORGOTTEN), False)
    if not pc.any(is_forgotten).as_py():
        return table
    for name in _TELLING:
        field = table.schema.field(name)
        table = put_column(table, field, pc.if_else(is_forgotten, pa.scalar(None, field.type), table[name]))
    return table
