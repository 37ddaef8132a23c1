"""A folder of a local disk that holds pieces of remote shards, up to a number of bytes.

Processes share it. Each entry is a file of its own that appears by renaming and ends with its length and
checksum, so a torn or foreign file is found out and counts as missing. The bytes in the folder are counted
in one small file under a lock, before they are written: together the processes never exceed the limit.
The entries that were used longest ago are removed first. Names are made of checksums of content: what a
name once meant it means for ever, and a rewritten dataset has other names.

    .bytes                 8 bytes: how many the entries have, those being written included
    .claims                locked byte by byte: which pieces are on their way, and by which process
    ab/abcdef…-0-2097152   an entry
"""

import errno
import fcntl
import os
import struct
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash

_TRAILER = struct.Struct("<8sQ16s")  # magic, length, xxh3-128
_MAGIC = b"personaC"
_TOUCH_EVERY = 16  # hits for one new time of use: a system call is dearer than a read of it is worth
_ROOM = 0.9  # of the limit that is left filled when room is made, so that it is not made for each entry
# Linux gives a longer write pages of up to 2 MiB, and on ext4 those cost 2.1 to 4.7 ms of processor time for
# 2 MiB where this takes 0.6 to 0.9 (6.18, two virtual cores; the same with 64 KiB and 512 KiB).
_WRITTEN_AT_ONCE = 2**18
_LEFTOVER_S = 600.0  # after which a file that was being written is one of a process that died


class DiskCache:
    """Entries by name. Safe for several threads, and for several processes on one machine.

    folder      on a local disk: its locks and renames are relied on
    max_bytes   of all entries, whichever process wrote them

    A copy that is sent to another process shares the folder with this one.
    """

    def __init__(self, folder: str, *, max_bytes: int) -> None:
        if max_bytes < 1:
            raise ValueError(f"a cache of {max_bytes} bytes holds nothing")
        self._folder, self._max = Path(folder), max_bytes
        self._hits = 0
        self.writable = True
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            os.close(os.open(self._folder / ".bytes", flags, 0o644))
            self._claims = os.open(self._folder / ".claims", flags, 0o644)
        except OSError as error:
            raise OSError(f"{folder}: cannot be a cache: {error.strerror}") from None

    def __reduce__(self) -> Any:
        return _cache_of, (str(self._folder), self._max)

    def read(self, name: str, offset: int, length: int, of: int, *, check: bool) -> bytes | None:
        """`length` bytes of an entry that has `of`; None where it is missing or broken.

        check   whether the whole entry is compared with its checksum first; once a process is enough
        """
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            whole = os.fstat(descriptor).st_size == of + _TRAILER.size
            if not whole or (check and not _is_sound(descriptor, of)):
                self._remove(self._path(name))
                return None
            data = os.pread(descriptor, length, offset)
            self._hits += 1
            if self._hits % _TOUCH_EVERY == 0:
                with suppress(OSError):  # an entry of another user
                    os.utime(descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return data if len(data) == length else None

    def holds(self, name: str) -> bool:
        """Whether there is such an entry; it may be gone or broken when it is read."""
        return os.path.exists(self._path(name))

    def write(self, name: str, data: Any) -> bool:
        """Keeps an entry. False where it could not.

        A disk that is full or fails is warned of once; what it holds is still read, but no more written.
        """
        view = memoryview(data).cast("B")
        trailer = _TRAILER.pack(_MAGIC, len(view), xxhash.xxh3_128_digest(view))
        with self._writing(name, len(view) + _TRAILER.size) as temporary:
            if temporary is None:
                return False
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CLOEXEC)
            try:
                _write_all(descriptor, view)
                _write_all(descriptor, memoryview(trailer))
            finally:
                os.close(descriptor)
            self._keep(temporary, name)
            return True
        return False

    @contextmanager
    def file(self, name: str, length: int) -> Iterator[str | None]:
        """Room for a plain file that the caller writes; it is kept where no error leaves the block.

        Yields where to write it, or None where there is no room. `kept` gives its path later.
        """
        with self._writing(name, length) as temporary:
            yield temporary
            if temporary is not None:
                descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)  # it has no checksum of its own to be found out by
                finally:
                    os.close(descriptor)
                self._keep(temporary, name)

    def kept(self, name: str) -> str | None:
        """The path of a plain file; None where there is none. It counts as used."""
        try:
            os.utime(self._path(name))
        except OSError:
            return None
        return self._path(name)

    def has_room(self) -> bool:
        """A cache on disk is expected to hold more than is ever read ahead."""
        return True

    def claim(self, name: str) -> bool:
        """Takes it on this process to fetch an entry; False where another process has done so.

        A process that ends, however it does, has no claims any more.
        """
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(name))
        except OSError:
            return False
        return True

    def release(self, name: str) -> None:
        """Gives a claim back."""
        fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _place(name))

    def close(self) -> None:
        """Closes what is open; entries stay."""
        os.close(self._claims)

    def _keep(self, temporary: str, name: str) -> None:
        """Gives an entry its name. Whoever counts the folder meanwhile would miss it under both names."""
        with self._counted():
            os.replace(temporary, self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name[:2]}/{name}"

    @contextmanager
    def _writing(self, name: str, size: int) -> Iterator[str | None]:
        """A temporary file with room for `size` bytes, to be renamed; None where there is none."""
        temporary = None
        try:
            if self.writable:
                temporary = self._reserve(name, size)
            yield temporary
        except BaseException as error:
            if temporary is not None:
                self._remove(temporary)
            # One without a number is no error of this disk, but of what was to be written to it.
            if not isinstance(error, OSError) or error.errno is None:
                raise
            if error.errno != errno.ENOENT:  # somebody empties the folder by hand
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if self.writable:
            self.writable = False
            warnings.warn(
                f"{self._folder}: {error.strerror}: shards are read on without keeping more of them",
                stacklevel=2,
            )

    def _reserve(self, name: str, size: int) -> str | None:
        """A file of so many bytes, counted before it is filled; None where it is larger than the cache."""
        if size > self._max:
            return None
        folder = f"{self._folder}/{name[:2]}"
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}.tmp"
        with self._counted() as count:
            if count[0] + size > self._max:
                count[0] = self._make_room(max(int(self._max * _ROOM) - size, 0))
            if count[0] + size > self._max:
                return None
            os.makedirs(folder, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                os.ftruncate(descriptor, size)  # who counts the folder anew counts it whole
            finally:
                os.close(descriptor)
            count[0] += size
        return temporary

    @contextmanager
    def _counted(self) -> Iterator[list[int]]:
        """The bytes of all entries, to be changed in place while no other process does."""
        os.makedirs(self._folder, exist_ok=True)
        descriptor = os.open(self._folder / ".bytes", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            stored = os.pread(descriptor, 8, 0)
            count = [int.from_bytes(stored, "little") if len(stored) == 8 else self._make_room(self._max)]
            yield count
            os.pwrite(descriptor, count[0].to_bytes(8, "little"), 0)
        finally:
            os.close(descriptor)

    def _make_room(self, goal: int) -> int:
        """Removes what was used longest ago until at most `goal` bytes are left; returns how many are."""
        entries, total, now = [], 0, time.time()
        for folder in self._folder.iterdir():
            if not folder.is_dir():
                continue
            for entry in list(os.scandir(folder)):
                try:
                    about = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # somebody deletes by hand
                    continue
                total += about.st_size
                used = about.st_mtime
                if entry.name.endswith(".tmp"):
                    if now - used < _LEFTOVER_S:
                        continue
                    used = 0.0
                entries.append((used, about.st_size, entry.path))
        entries.sort()
        for _, size, path in entries:
            if total <= goal:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
        return total

    def _remove(self, path: str) -> None:
        with suppress(OSError), self._counted() as count:
            size = os.stat(path).st_size
            os.unlink(path)
            count[0] = max(count[0] - size, 0)


def _cache_of(folder: str, max_bytes: int) -> DiskCache:
    return DiskCache(folder, max_bytes=max_bytes)


def _place(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode()) >> 2  # offsets of a file are below 2**63


def _is_sound(descriptor: int, length: int) -> bool:
    data = os.pread(descriptor, length + _TRAILER.size, 0)
    if len(data) != length + _TRAILER.size:
        return False
    magic, stated, digest = _TRAILER.unpack_from(data, length)
    return bool(
        magic == _MAGIC and stated == length and xxhash.xxh3_128_digest(memoryview(data)[:length]) == digest
    )


def _write_all(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view[:_WRITTEN_AT_ONCE]) :]
