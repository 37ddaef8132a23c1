"""The hash of large weights is read once, and again when anything about the file has changed."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from curation.models import known_sha256, sha256_of

LARGE = 2**26


def written(file: Path, begins: bytes) -> None:
    """A large file, mostly a hole, that was last changed a while ago as far as its times can be set."""
    with file.open("wb") as stream:
        stream.write(begins)
        stream.truncate(LARGE)


def test_a_large_file_is_read_once_and_a_changed_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "model"
    folder.mkdir()
    file = folder / "model.safetensors"
    written(file, b"one")
    assert known_sha256(file) == sha256_of(file)
    assert not (tmp_path / "home").exists()  # changed a moment ago: not remembered
    time.sleep(2.1)
    first = known_sha256(folder)
    assert first == sha256_of(folder)
    (memory,) = (tmp_path / "home").rglob("hashes/*")
    told, real = memory.read_text(), hashlib.sha256(file.read_bytes()).hexdigest()
    memory.write_text(told.replace(real, "0" * 64))
    assert known_sha256(file) == "0" * 64  # it is what is remembered that is told
    about = file.stat()
    written(file, b"two")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))  # as of equal age, and equally long
    assert known_sha256(file) == sha256_of(file) != real
    memory.write_text("no JSON")
    assert known_sha256(file) == sha256_of(file)


def test_a_hash_is_remembered_of_the_file_that_was_read_and_not_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    one, other, link = (tmp_path / name for name in ("one", "other", "model.safetensors"))
    written(one, b"one")
    written(other, b"two")
    link.symlink_to(one)
    time.sleep(2.1)
    opened = Path.open

    def relinked(path: Path, *words: Any, **named: Any) -> Any:
        if path == link:
            link.unlink()
            link.symlink_to(other)
        return opened(path, *words, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", relinked)
        assert known_sha256(link) == sha256_of(other)
    link.unlink()
    link.symlink_to(one)
    assert known_sha256(link) == sha256_of(one)
