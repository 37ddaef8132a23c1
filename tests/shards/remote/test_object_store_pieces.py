"""Pieces of objects: any range is right, few requests bring it, and what is waited for comes first."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.object_store_server import Faults, environment_set
from shards.format.index import Span
from shards.remote.disk_cache import DiskCache
from shards.remote.object_files import MemoryCache, ObjectFiles
from shards.remote.object_store import ObjectStore
from shards.remote.range_requests import RangeRequests
from tests.slow_store import SlowStore, client, slow_store

SIZES = (3_000_001, 65_536, 300_000)
CONTENTS = [os.urandom(size) for size in SIZES]
_numbers = count()


@pytest.fixture(scope="module")
def server() -> Iterator[SlowStore]:
    """A store with three objects, s3://bucket/0 to 2."""
    with slow_store() as (store, environment), environment_set(environment):
        s3 = client(environment)
        s3.create_bucket(Bucket="bucket")
        for number, content in enumerate(CONTENTS):
            s3.put_object(Bucket="bucket", Key=str(number), Body=content)
        yield store


@pytest.fixture
def store(server: SlowStore) -> Iterator[SlowStore]:
    """The store, well-behaved before and after a test."""
    server.asked.clear()
    yield server
    server.faults = Faults()


def _files(cache: Any, piece_bytes: int = 4096, run_bytes: int = 2**22) -> ObjectFiles:
    """The three objects; their content counts as new for each."""
    names = [f"{next(_numbers):08x}" for _ in SIZES]
    requests = RangeRequests(ObjectStore("s3://bucket"))
    keys = ["0", "1", "2"]
    return ObjectFiles(requests, keys, names, SIZES, cache, piece_bytes=piece_bytes, run_bytes=run_bytes)


@st.composite
def _span(draw: Any) -> Span:
    file = draw(st.integers(0, 2))
    offset = draw(st.integers(0, SIZES[file] - 1))
    length = draw(st.integers(0, min(30_000, SIZES[file] - offset)))
    return Span(file, offset, length)


@given(
    announced=st.lists(_span(), max_size=30),
    read=st.lists(_span(), min_size=1, max_size=30),
    piece=st.sampled_from([1000, 4096, 65_536, 10**6]),
    room=st.sampled_from([20_000, 200_000, 10**8]),
    kind=st.sampled_from(["disk", "memory"]),
)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_range_read_by_any_thread_is_that_of_the_object(
    store: SlowStore,
    tmp_path: Path,
    announced: list[Span],
    read: list[Span],
    piece: int,
    room: int,
    kind: str,
) -> None:
    disk = DiskCache(str(tmp_path), max_bytes=room)
    files = _files(disk if kind == "disk" else MemoryCache(max_bytes=room), piece)
    files.prefetch(announced)
    wanted = announced[::2] + read
    with ThreadPoolExecutor(4) as pool:
        for span, found in zip(wanted, pool.map(lambda span: files.read(*span), wanted), strict=True):
            assert found == CONTENTS[span.file][span.offset : span.offset + span.length]
    files.close()
    disk.close()


def test_neighbours_are_fetched_in_one_request(store: SlowStore, tmp_path: Path) -> None:
    files = _files(DiskCache(str(tmp_path), max_bytes=10**8))
    files.prefetch([Span(0, start, 4000) for start in range(100_000, 500_000, 4000)])
    for start in range(100_000, 500_000, 4000):
        files.read(0, start, 4000)
    assert sum(store.asked.values()) == 1
    files.close()


class _Late(MemoryCache):
    """Gets each entry between the look for it and the claim on it, as from another thread or process."""

    def claim(self, name: str) -> bool:
        self.write(name, CONTENTS[1][4096:8192])
        return True


def test_a_piece_that_comes_while_it_is_asked_for_is_not_fetched_twice(store: SlowStore) -> None:
    files = _files(_Late(max_bytes=10**8))
    assert files.read(1, 4100, 100) == CONTENTS[1][4100:4200]
    assert not store.asked
    files.close()


class _Closed(MemoryCache):
    """Has entries that may not be read."""

    def read(self, name: str, offset: int, length: int, of: int, *, check: bool) -> bytes | None:
        return None

    def holds(self, name: str) -> bool:
        return True


def test_an_entry_that_may_not_be_read_is_fetched(store: SlowStore) -> None:
    files = _files(_Closed(max_bytes=10**8))
    assert files.read(1, 4100, 100) == CONTENTS[1][4100:4200]
    assert sum(store.asked.values()) == 1
    files.close()


def test_what_is_waited_for_comes_before_what_is_only_announced(store: SlowStore, tmp_path: Path) -> None:
    store.faults = Faults(latency_s=0.1)
    files = _files(DiskCache(str(tmp_path), max_bytes=10**8), 1000)
    far_apart = [Span(0, start, 100) for start in range(0, 3_000_000, 70_000)]
    files.prefetch([*far_apart, Span(1, 30_000, 100)])
    files.read(1, 30_000, 100)
    assert len(store.asked) < len(far_apart)
    files.close()


@pytest.mark.parametrize("room", [10_000_000, 2_000_000])
def test_what_was_pushed_out_is_fetched_ahead_again(store: SlowStore, room: int) -> None:
    files = _files(MemoryCache(max_bytes=room), run_bytes=65_536)
    spans = [Span(file, start, 4096) for file in (2, 0) for start in range(0, SIZES[file] - 4096, 4096)]
    for _ in range(2):
        files.prefetch(spans)
        for span in spans:
            assert files.read(*span) == CONTENTS[span.file][span.offset : span.offset + 4096]
    # Without a word ahead each of the 805 pieces would be a request.
    assert sum(store.asked.values()) < 200
    files.close()


def test_more_than_memory_holds_may_be_announced(store: SlowStore) -> None:
    files = _files(MemoryCache(max_bytes=150_000), 1000)
    spans = [Span(file, start, 1000) for start in range(0, 60_000, 1000) for file in (0, 1, 2)]
    files.prefetch(spans)
    for span in spans:
        assert files.read(*span) == CONTENTS[span.file][span.offset : span.offset + 1000]
    files.close()


def test_a_range_behind_the_end_is_one_line(store: SlowStore, tmp_path: Path) -> None:
    files = _files(DiskCache(str(tmp_path), max_bytes=10**8))
    files.prefetch([Span(1, 65_000, 5000), Span(1, 900_000, 10)])
    with pytest.raises(OSError, match=r"^s3://bucket/1: ends at byte 65536, wanted 70000$"):
        files.read(1, 65_000, 5000)
    files.close()
