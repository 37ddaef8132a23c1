"""Requests to an object store: split, sent again, hedged, and refused in one line."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.object_store_server import Faults, environment_set
from shards.remote.object_store import ObjectStore
from shards.remote.range_requests import Hedging, RangeRequests
from tests.slow_store import SlowStore, client, slow_store

CONTENT = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def server() -> Iterator[SlowStore]:
    """A store with one object, s3://bucket/folder/thing."""
    with slow_store() as (store, environment), environment_set(environment):
        s3 = client(environment)
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="folder/thing", Body=CONTENT)
        yield store


@pytest.fixture
def store(server: SlowStore) -> Iterator[SlowStore]:
    """The store, well-behaved at the start and at the end of a test."""
    yield server
    server.faults, server.denied = Faults(), set()
    server.asked.clear()


@pytest.fixture
def opened(store: SlowStore) -> Iterator[Any]:
    """Makes RangeRequests that are closed behind the test."""
    made = []

    def make(url: str = "s3://bucket/folder", **settings: Any) -> RangeRequests:
        requests = RangeRequests(ObjectStore(url), **settings)
        made.append(requests)
        return requests

    yield make
    for requests in made:
        requests.close()


def _get(requests: RangeRequests, start: int, stop: int, key: str = "thing") -> bytes:
    return bytes(requests.submit(requests.get(key, start, stop)).result())


def test_a_large_range_comes_in_parts_side_by_side(store: SlowStore, opened: Any) -> None:
    store.faults = Faults(latency_s=0.1)
    requests = opened(part_bytes=100_000)
    assert _get(requests, 7, 2_900_007) == CONTENT[7:2_900_007]
    assert requests.counts.first == 29
    assert store.most_together > 1


def test_failed_requests_are_sent_again_until_the_bytes_are_right(store: SlowStore, opened: Any) -> None:
    store.faults = Faults(failing=0.4, seed=1)
    requests = opened(backoff_s=0.001, attempts=30)
    asked = [
        (start, requests.submit(requests.get("thing", start, start + 50_000)))
        for start in range(0, 2_000_000, 20_000)
    ]
    for start, found in asked:
        assert bytes(found.result()) == CONTENT[start : start + 50_000]
    assert requests.counts.repeated > 20


def test_a_store_that_fails_for_good_is_an_error_that_says_how_often_it_was_asked(
    store: SlowStore, opened: Any
) -> None:
    store.faults = Faults(failing=1.0, seed=2)
    with pytest.raises(OSError, match=r"^s3://bucket/folder/thing: .*, 4 times$"):
        _get(opened(attempts=4, backoff_s=0.001), 0, 10)


def test_what_will_not_change_is_one_line_after_one_request(store: SlowStore, opened: Any) -> None:
    requests = opened()
    with pytest.raises(
        FileNotFoundError, match=r"^s3://bucket/folder/other: no such object \(404 NoSuchKey\)$"
    ):
        _get(requests, 0, 10, "other")
    with pytest.raises(OSError, match=r"^s3://nowhere/x/thing: no such bucket \(404 NoSuchBucket\)$"):
        _get(opened("s3://nowhere/x"), 0, 10)
    with pytest.raises(OSError, match=r"^s3://bucket/folder/thing: ends at byte 3000000, wanted 3000010$"):
        _get(requests, 2_999_990, 3_000_010)
    with pytest.raises(OSError, match=r"it ends before the bytes that are wanted"):
        _get(requests, 4_000_000, 4_000_010)
    assert requests.counts.repeated == 0
    assert max(store.asked.values()) == 1


def test_a_denied_bucket_is_one_line_without_what_the_store_said(store: SlowStore, opened: Any) -> None:
    store.denied = {"bucket"}
    with pytest.raises(PermissionError) as error:
        _get(opened(), 0, 10)
    assert str(error.value) == "s3://bucket/folder/thing: access denied (403 AccessDenied)"


def test_a_store_that_nobody_serves_is_one_line(store: SlowStore, opened: Any) -> None:
    with environment_set({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}):
        requests = opened(attempts=2, backoff_s=0.001)
    with pytest.raises(
        OSError, match=r"^s3://bucket/folder/thing: no answer \(ConnectionRefused\), 2 times$"
    ):
        _get(requests, 0, 10)


def test_a_slow_request_is_overtaken_by_a_second_one(store: SlowStore, opened: Any) -> None:
    store.faults = Faults(slow=0.05, slow_s=20.0, seed=3)
    requests = opened(hedging=Hedging(share=0.5))
    starts = range(0, 120_000, 1000)
    for start in starts:
        assert _get(requests, start, start + 1000) == CONTENT[start : start + 1000]
    slow = [
        start
        for start in starts
        if store.faults.of(f"/bucket/folder/thing bytes={start}-{start + 999}", 0) == "slow"
    ]
    assert len(slow) > 2
    assert all(store.asked[f"/bucket/folder/thing bytes={start}-{start + 999}"] == 2 for start in slow)


def test_second_requests_keep_to_their_share() -> None:
    hedging = Hedging(share=0.05)
    sent = 0
    for number in range(1000):
        hedging.took(1000, 0.02 if number % 10 else 1.0)
        sent += hedging.allowed()
    assert 40 <= sent <= 60
    assert not any(Hedging(share=0.0).allowed() for _ in range(100))


def test_patience_is_that_of_requests_of_like_size() -> None:
    hedging = Hedging()
    assert hedging.patience_s(1000) is None
    for _ in range(64):
        hedging.took(1000, 0.02)
        hedging.took(8_000_000, 0.9)
    small, large = hedging.patience_s(1000), hedging.patience_s(8_000_000)
    assert small is not None
    assert large is not None
    assert 0.02 < small < 0.1 < 0.9 < large


def test_a_closed_reader_says_so(opened: Any) -> None:
    requests = opened()
    requests.close()
    with pytest.raises(OSError, match="the reader is closed"):
        _get(requests, 0, 10)


def test_a_forked_process_is_told_that_it_cannot_read(opened: Any) -> None:
    requests = opened()
    assert _get(requests, 0, 3) == CONTENT[:3]
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        for again in (requests, RangeRequests(ObjectStore("s3://bucket/folder"))):
            try:
                _get(again, 0, 3)
            except OSError as error:
                os.write(write, f"{error}\n".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read().splitlines()
    os.waitpid(child, 0)
    assert len(said) == 2
    assert all("cannot be read in a forked process; start workers with 'spawn'" in line for line in said)
