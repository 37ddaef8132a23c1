"""Files by path or URL (local, s3://, gs://, memory:// ...): whole reads, ranges, atomic writes.

A write becomes visible at once or not at all: locally a temporary name is renamed, on an object
store the object is put in one request. Temporary names begin with a dot, which Parquet readers skip.
"""

import io
import os
import posixpath
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from curation.errors import ConfigError, one_line
from shards.format.atomic_file import is_temporary

# fsspec and pyarrow are imported where they are used: who reads JSON of this machine needs neither.
if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# Given to every read by Arrow: it decodes in the thread that asks. A thread of Arrow's pool may let go of a
# Python buffer while the interpreter ends, and the process aborts (github.com/apache/arrow/issues/34314).
ALONE: dict[str, Any] = {"use_threads": False}


def is_local(url: str) -> bool:
    """Whether `url` is a path of this machine (no protocol, or file://)."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> str:
    """The plain path of a local URL."""
    return url.removeprefix("file://")


@lru_cache(maxsize=64)
def _filesystem(protocol: str) -> Any:
    import fsspec

    return fsspec.filesystem(protocol)


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of `url` and the path inside it. Credentials: the platform's chain.

    Raises ConfigError for a protocol that nobody here can read.
    """
    if is_local(url):
        return _filesystem("file"), local_path(url)
    protocol, path = url.split("://", 1)
    try:
        return _filesystem(protocol), path
    except (ValueError, ImportError, TypeError) as error:  # unknown, not installed, in need of more settings
        raise ConfigError(f"{url}: cannot be opened: {one_line(error)}") from error


def join(folder: str, *names: str) -> str:
    """`folder` extended by names; works for paths and URLs."""
    return posixpath.join(folder, *names)


def read_bytes(url: str, offset: int | None = None, length: int | None = None) -> bytes:
    """The file's bytes, or `length` of them from `offset`. Raises OSError; EOFError if cut short."""
    if is_local(url):
        with open(local_path(url), "rb") as file:
            if offset is None:
                return file.read()
            assert length is not None
            data = os.pread(file.fileno(), length, offset)
    else:
        fs, path = filesystem(url)
        if offset is None:
            return bytes(fs.cat_file(path))
        assert length is not None
        data = bytes(fs.cat_file(path, start=offset, end=offset + length))
    if len(data) != length:
        raise EOFError(f"cut short: {len(data)} of {length} bytes")
    return data


def open_binary(url: str, block_bytes: int = 1 << 24) -> IO[bytes]:
    """A file that is read from here and there; of one in a store, so many bytes are fetched at a time."""
    if is_local(url):
        return open(local_path(url), "rb")
    fs, path = filesystem(url)
    return fs.open(path, "rb", block_size=block_bytes)


def write_bytes(url: str, data: bytes) -> None:
    """Writes a whole file so that it appears complete or not at all."""
    if not is_local(url):
        fs, path = filesystem(url)
        fs.pipe_file(path, data)
        fs.invalidate_cache(posixpath.dirname(path))
        return
    target = Path(local_path(url))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def open_parquet(url: str) -> "Iterator[pq.ParquetFile]":
    """A Parquet file to read of, closed at the end. Whoever reads of it passes `ALONE`."""
    import pyarrow.parquet as pq

    # pre_buffer reads in a thread too, and a store's file has a buffer of its own.
    with open_binary(url) as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
        yield file


def read_table(url: str, columns: list[str] | None = None) -> "pa.Table":
    """A Parquet file as a table, or these columns of it, in order. Raises KeyError where one is missing."""
    import pyarrow.parquet as pq

    # Of a store the whole file, in one request.
    stream = open_binary(url) if is_local(url) else io.BytesIO(read_bytes(url))
    with stream, pq.ParquetFile(stream, pre_buffer=False) as file:
        table = file.read(columns, **ALONE)
    return table if columns is None else table.select(columns)


def write_table(url: str, table: "pa.Table", row_group_rows: int | None = None) -> None:
    """Writes a Parquet file atomically; small row groups let a reader of few rows skip the others."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group_rows)
    write_bytes(url, sink.getvalue())


def parquet_footer(url: str) -> Any:
    """The `pyarrow.parquet.FileMetaData` of a file; reads the footer alone."""
    with open_parquet(url) as file:
        return file.metadata


def remove_unfinished(folder: str) -> None:
    """Removes what killed writes left in a folder; nobody may be writing there."""
    for name in list_names(folder):
        if is_temporary(name):
            remove(join(folder, name))


def list_names(folder: str) -> list[str]:
    """Sorted names of the entries of a folder; empty when there is no such folder."""
    if is_local(folder):
        try:
            return sorted(os.listdir(local_path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []
    fs, path = filesystem(folder)
    fs.invalidate_cache(path)
    try:
        return sorted({posixpath.basename(entry.rstrip("/")) for entry in fs.ls(path, detail=False)})
    except FileNotFoundError:
        return []


def list_files(url: str) -> Iterator[tuple[str, int]]:
    """Path or URL, and bytes, of a file or of all files below a folder; links are not followed."""
    if not is_local(url):
        fs, path = filesystem(url)
        fs.invalidate_cache()
        protocol = url.partition("://")[0]
        found = fs.find(path, detail=True) or ({path: fs.info(path)} if fs.exists(path) else {})
        yield from ((f"{protocol}://{name}", int(about["size"])) for name, about in sorted(found.items()))
        return
    top = Path(local_path(url))
    if top.is_file():
        yield str(top), top.stat().st_size
        return
    for parent, _, names in os.walk(top):
        for name in names:
            file = Path(parent, name)
            if file.is_file() and not file.is_symlink():
                yield str(file), file.stat().st_size


def is_folder(url: str) -> bool:
    """Whether it is a folder, or a prefix of a store below which something lies."""
    if is_local(url):
        return os.path.isdir(local_path(url))
    fs, path = filesystem(url)
    return bool(fs.isdir(path))


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    if is_local(url):
        return os.path.exists(local_path(url))
    fs, path = filesystem(url)
    fs.invalidate_cache(posixpath.dirname(path))
    return bool(fs.exists(path))


def remove(url: str, recursive: bool = False) -> None:
    """Removes a file, or a folder with `recursive`; an absent one is no error."""
    if is_local(url):
        _remove_here(local_path(url), recursive)
        return
    fs, path = filesystem(url)
    try:
        names = list(fs.find(path)) if recursive else [path]
        if not any(letter in name for name in names for letter in "*?["):
            fs.rm(path, recursive=recursive)
            return
        for name in names:  # fsspec takes names with brackets for patterns, and removes what they match
            fs.rm_file(name)
        fs.invalidate_cache()
    except FileNotFoundError:
        return


def _remove_here(path: str, recursive: bool) -> None:
    try:
        if recursive and os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.remove(path)
    except FileNotFoundError:
        return
