"""Reads the encoded bytes that a source row refers to."""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from curation.settings.source import SourceSettings
from curation.sources.parquet import resolve
from curation.storage import filesystem, read_bytes


class PhotoBytes:
    """Encoded bytes of photos by reference; keeps the last Parquet row group open."""

    def __init__(self, source: SourceSettings) -> None:
        self._source = source
        self._group: tuple[str, int, list[Any]] | None = None
        self._file: tuple[str, Any, list[int]] | None = None

    def read(self, reference: Mapping[str, Any]) -> bytes:
        """The bytes of a row with `uri`, `offset`, `length`, `row`.

        Raises OSError or EOFError (unreadable, cut short) and ValueError (there are none).
        """
        uri = reference["uri"]
        if reference["row"] is not None:
            return self._parquet(uri, reference["row"])
        if reference["offset"] is not None:
            return read_bytes(uri, reference["offset"], reference["length"])
        return self._whole(uri)

    def _whole(self, uri: str) -> bytes:
        if uri.startswith(("http://", "https://")) and not self._source.allow_urls:
            raise ValueError("photos from web addresses are off (source.allow_urls)")
        return read_bytes(uri)

    def _parquet(self, uri: str, row: int) -> bytes:
        if self._file is None or self._file[0] != uri:
            fs, path = filesystem(uri)
            file = pq.ParquetFile(fs.open(path, "rb"))
            starts = [0]
            for group in range(file.num_row_groups):
                starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
            self._file = (uri, file, starts)
            self._group = None
        _, file, starts = self._file
        group = bisect_right(starts, row) - 1
        if self._group is None or self._group[:2] != (uri, group):
            column = self._source.image_column
            values = file.read_row_group(group, columns=[column])[column]
            self._group = (uri, group, values)
        value: Any = self._group[2][row - starts[group]].as_py()
        link: str | None = None
        if isinstance(value, dict):
            value, link = value.get("bytes"), value.get("path")
        if isinstance(value, str) and value:
            value, link = None, value
        if value is None and link:
            return self._whole(resolve(uri, link))
        if value is None:
            raise ValueError("the row has no bytes")
        return bytes(value)
