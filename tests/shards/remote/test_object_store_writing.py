"""Files in an object store appear whole or not at all, and have the bytes that they have on disk."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shards.format.atomic_file import AtomicFile
from shards.format.dataset_writer import DatasetWriter
from tests.drawn_pipeline import ROOT
from tests.slow_store import SlowStore, empty_bucket, objects_below

PART = 52 * 2**20  # more than what is held back until a file is committed


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[SlowStore, Any]]:
    """An empty bucket of a store, and boto3's client."""
    with empty_bucket() as found:
        yield found


def _unfinished(s3: Any, folder: str) -> list[str]:
    uploads = s3.list_multipart_uploads(Bucket="bucket").get("Uploads", [])
    return [upload["Key"] for upload in uploads if upload["Key"].startswith(f"{folder}/")]


def _write(folder: str) -> None:
    with DatasetWriter(folder, max_samples=20) as writer:
        for number in range(50):
            content = bytes([number]) * (1000 + 700 * number)
            writer.add(f"k{number:03d}", {"bin": content, "txt": b"some words"})
        writer.close("numbers", {"pipeline": "none"})


def test_a_dataset_has_the_same_bytes_in_a_store_and_on_disk(
    server: tuple[SlowStore, Any], tmp_path: Path
) -> None:
    _write(str(tmp_path))
    _write("s3://bucket/same")
    assert objects_below(server[1], "same") == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not _unfinished(server[1], "same")


@pytest.mark.parametrize("size", [0, 10, PART])
def test_a_file_is_seen_when_it_is_committed_and_not_before(server: tuple[SlowStore, Any], size: int) -> None:
    folder = f"commit-{size}"
    with AtomicFile(f"s3://bucket/{folder}/file") as file:
        file.write(bytes(size))
        assert objects_below(server[1], folder) == {}
        file.commit()
    assert objects_below(server[1], folder) == {"file": bytes(size)}
    assert not _unfinished(server[1], folder)


@pytest.mark.parametrize("size", [10, PART])
def test_an_error_while_writing_leaves_neither_a_file_nor_parts_of_it(
    server: tuple[SlowStore, Any], size: int
) -> None:
    def write_half() -> None:
        with AtomicFile("s3://bucket/error/file") as file:
            file.write(bytes(size))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert objects_below(server[1], "error") == {}
    assert not _unfinished(server[1], "error")


def test_a_file_that_is_forgotten_neither_appears_nor_begins_an_upload(
    server: tuple[SlowStore, Any],
) -> None:
    file = AtomicFile("s3://bucket/forgotten/file")
    file.write(b"half of it")
    del file
    gc.collect()
    assert objects_below(server[1], "forgotten") == {}
    assert not _unfinished(server[1], "forgotten")


def test_a_killed_writer_leaves_nothing_to_be_seen_and_its_file_can_be_written_again(
    server: tuple[SlowStore, Any],
) -> None:
    killed = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time\n"
            "from shards.format.atomic_file import AtomicFile\n"
            "file = AtomicFile('s3://bucket/killed/file')\n"
            f"file.write(bytes({PART}))\n"
            "print('written', flush=True)\n"
            "time.sleep(600)",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == "written\n"
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert _unfinished(server[1], "killed")  # it was in the middle of it
    assert objects_below(server[1], "killed") == {}
    with AtomicFile("s3://bucket/killed/file") as file:
        file.write(b"again")
        file.commit()
    assert objects_below(server[1], "killed") == {"file": b"again"}


def test_a_process_that_ends_in_an_error_does_not_publish_what_it_was_writing(
    server: tuple[SlowStore, Any],
) -> None:
    script = (
        "from shards.format.atomic_file import AtomicFile\n"
        "file = AtomicFile('s3://bucket/ended/file')\n"
        "file.write(b'half of it')\n"
        "raise SystemExit(3)"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == 3
    assert objects_below(server[1], "ended") == {}


def test_a_refused_write_is_one_line_that_names_the_file(server: tuple[SlowStore, Any]) -> None:
    def write(url: str) -> None:
        with AtomicFile(url) as file:
            file.write(b"bytes")
            file.commit()

    with pytest.raises(FileNotFoundError, match=r"^s3://nowhere/file: cannot be written: [^\n]+$"):
        write("s3://nowhere/file")
    server[0].denied = {"bucket"}
    with pytest.raises(PermissionError, match=r"^s3://bucket/file: cannot be written: [^\n]+$"):
        write("s3://bucket/file")
    server[0].denied = set()
