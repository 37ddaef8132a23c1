"""The cache on disk: never above its limit, never torn, shared by processes, and spared when it is full."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from shards.remote.disk_cache import DiskCache
from tests.cache_folder import bytes_of, entries_of
from tests.drawn_pipeline import ROOT

SPAWN = multiprocessing.get_context("spawn")


def _content(number: int, length: int = 10_000) -> bytes:
    return bytes([number % 251]) * length


def test_what_was_written_is_read_in_parts(tmp_path: Path) -> None:
    cache = DiskCache(str(tmp_path), max_bytes=10**6)
    content = os.urandom(5000)
    assert cache.read("ab", 0, 10, 5000, check=True) is None
    assert cache.write("ab", content)
    assert cache.holds("ab")
    assert cache.read("ab", 4000, 1000, 5000, check=True) == content[4000:]
    assert DiskCache(str(tmp_path), max_bytes=10**6).read("ab", 0, 9, 5000, check=True) == content[:9]


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "longer", "foreign"])
def test_a_damaged_entry_counts_as_missing_and_can_be_written_again(tmp_path: Path, damage: str) -> None:
    DiskCache(str(tmp_path), max_bytes=10**6).write("ab", _content(1))
    (file,) = entries_of(tmp_path)
    data = file.read_bytes()
    file.write_bytes(
        {
            "cut": data[:4000],
            "empty": b"",
            "flipped": data[:77] + bytes([data[77] ^ 1]) + data[78:],
            "longer": data + b"x",
            "foreign": os.urandom(len(data)),
        }[damage]
    )
    cache = DiskCache(str(tmp_path), max_bytes=10**6)
    assert cache.read("ab", 5000, 10, 10_000, check=True) is None
    assert not cache.holds("ab")
    assert cache.write("ab", _content(1))
    assert cache.read("ab", 5000, 10, 10_000, check=True) == _content(1)[:10]


def test_the_limit_holds_and_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = DiskCache(str(tmp_path), max_bytes=105_000)
    for number in range(10):
        cache.write(f"n{number}", _content(number))
        os.utime(tmp_path / f"n{number}" / f"n{number}", (number, number))
    assert bytes_of(tmp_path) <= 105_000
    cache.write("new", _content(10))
    assert bytes_of(tmp_path) <= 105_000
    assert cache.holds("new")
    assert cache.holds("n9")
    assert not cache.holds("n0")


def test_an_entry_that_is_read_again_and_again_stays(tmp_path: Path) -> None:
    cache = DiskCache(str(tmp_path), max_bytes=60_000)
    cache.write("kept", _content(1))
    os.utime(tmp_path / "ke" / "kept", (1, 1))
    for number in range(20):
        for _ in range(20):
            assert cache.read("kept", 0, 5, 10_000, check=False) is not None
        cache.write(f"n{number}", _content(number))


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = DiskCache(str(tmp_path), max_bytes=5000)
    assert not cache.write("large", _content(1))
    assert bytes_of(tmp_path) == 0


def test_a_smaller_limit_makes_room_in_a_cache_that_was_larger(tmp_path: Path) -> None:
    cache = DiskCache(str(tmp_path), max_bytes=10**6)
    for number in range(20):
        cache.write(f"n{number}", _content(number))
    DiskCache(str(tmp_path), max_bytes=50_000).write("new", _content(1))
    assert bytes_of(tmp_path) <= 50_000


def _fill(folder: str, first: int, watched: int) -> None:
    cache = DiskCache(folder, max_bytes=200_000)
    for number in range(first, first + 150):
        cache.write(f"{number:03d}", _content(number))
        data = cache.read(f"{number:03d}", 0, 10_000, 10_000, check=True)
        assert data in (None, _content(number))
        assert bytes_of(Path(folder)) <= watched


def test_processes_that_fill_one_cache_together_keep_to_its_limit(tmp_path: Path) -> None:
    workers = [SPAWN.Process(target=_fill, args=(str(tmp_path), first, 200_000)) for first in (0, 75)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert 0 < bytes_of(tmp_path) <= 200_000
    assert not [path for path in entries_of(tmp_path) if path.suffix == ".tmp"]


def test_an_entry_that_gets_its_name_while_room_is_made_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 50_000  # holds four entries
    cache = DiskCache(str(tmp_path), max_bytes=limit)
    for name in ("one", "two", "three"):
        cache.write(name, _content(1))
    listed = threading.Event()
    replace, scandir = os.replace, os.scandir

    def named_after_the_listing(*paths: Any) -> None:
        listed.wait(1)
        replace(*paths)

    monkeypatch.setattr(os, "replace", named_after_the_listing)
    fourth = threading.Thread(target=cache.write, args=("four", _content(4)))
    fourth.start()
    while not any(path.suffix == ".tmp" for path in entries_of(tmp_path)):
        time.sleep(0.001)

    def list_then_wait(folder: Any) -> Any:
        found = list(scandir(folder))
        listed.set()
        fourth.join(1)
        return found

    monkeypatch.setattr(os, "scandir", list_then_wait)
    DiskCache(str(tmp_path), max_bytes=limit).write("five", _content(5))
    fourth.join()
    monkeypatch.undo()
    assert 0 < bytes_of(tmp_path) <= limit


def test_a_claim_is_held_against_other_processes_and_ends_with_its_process(tmp_path: Path) -> None:
    cache = DiskCache(str(tmp_path), max_bytes=10**6)
    other = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "from shards.remote.disk_cache import DiskCache\n"
            f"print(DiskCache({str(tmp_path)!r}, max_bytes=9).claim('piece'), flush=True)\n"
            "sys.stdin.read()",
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline().strip() == "True"
    assert not cache.claim("piece")
    assert cache.claim("another")
    other.kill()
    other.wait()
    assert cache.claim("piece")


def test_a_full_disk_is_warned_of_once_and_what_is_there_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DiskCache(str(tmp_path), max_bytes=10**6)
    cache.write("there", _content(1))

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.warns(UserWarning, match="No space left on device: shards are read on"):
            assert not cache.write("new", _content(2))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not cache.write("newer", _content(2))
    assert not cache.writable
    assert cache.read("there", 0, 10, 10_000, check=True) == _content(1)[:10]
    assert len(entries_of(tmp_path)) == 1


def test_a_folder_that_cannot_be_a_cache_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file: cannot be a cache: File exists"):
        DiskCache(str(tmp_path / "file"), max_bytes=9)
    with pytest.raises(ValueError, match="holds nothing"):
        DiskCache(str(tmp_path), max_bytes=0)


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    cache = DiskCache(str(tmp_path), max_bytes=50_000)
    (tmp_path / "ha").mkdir()
    half = tmp_path / "ha" / ".half.123.tmp"
    half.write_bytes(bytes(20_000))
    os.utime(half, (1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(10):
            assert cache.write(f"n{number}", _content(number))
    assert not half.exists()
