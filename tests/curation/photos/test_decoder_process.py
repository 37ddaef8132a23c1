"""Photos are decoded in a process of their own: what a file does to it is that file's failure alone."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from curation.photos import decoder_process
from curation.photos.decode import DecodeError, Opened, UnknownFormatError, open_photo
from curation.photos.decoder_process import DecoderProcess
from persona import main
from tests.crashing_decoder import CRASH, KILL_ONCE, SPIN, SWELL
from tests.drawn_people import collection, draw, jpeg_of, write_folder
from tests.drawn_pipeline import rows_of, settings, write_config

FAULTY = "tests.crashing_decoder"


@pytest.fixture
def decoder() -> Iterator[DecoderProcess]:
    """One with faults, and little time and memory."""
    made = DecoderProcess(0.5, 2**30, FAULTY)
    yield made
    made.close()


def same_pixels(one: Opened, other: Opened) -> bool:
    """Whether two that were opened look alike to the bit."""
    assert one[1] is not None
    assert other[1] is not None
    return np.array_equal(one[1], other[1])


@pytest.fixture
def photo() -> bytes:
    """A drawn JPEG."""
    return jpeg_of(draw(1, 0, 0, 0))


def test_a_photo_is_the_same_there_as_here(decoder: DecoderProcess, photo: bytes) -> None:
    for about_px in (None, 64):
        opened = decoder(photo, about_px)
        assert opened[0] == open_photo(photo)[0]
        assert same_pixels(opened, open_photo(photo, about_px))
    header, _ = opened
    assert decoder(photo, max_pixels=header.width * header.height - 1) == (header, None)


@pytest.mark.parametrize("data", [b"", b"GIF89a....", b"\xff\xd8\xff\xe0 broken", b"RIFF....WEBP"])
def test_what_is_wrong_with_a_file_is_said_as_here(decoder: DecoderProcess, data: bytes) -> None:
    with pytest.raises((DecodeError, UnknownFormatError)) as here:
        open_photo(data)
    with pytest.raises(here.type) as there:
        decoder(data)
    assert str(there.value) == str(here.value)


def test_a_cut_photo_keeps_what_its_header_said(decoder: DecoderProcess, photo: bytes) -> None:
    with pytest.raises(DecodeError) as error:
        decoder(photo[: len(photo) // 2])
    assert error.value.header == open_photo(photo)[0]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        (CRASH, r"^the decoder died of it twice \(SIGSEGV\)$"),
        (SPIN, r"^decoding takes more than 0.5 s$"),
        (SWELL, r"^MemoryError$"),
    ],
)
def test_a_photo_that_crashes_hangs_or_swells_the_decoder_fails_and_the_next_one_does_not(
    word: bytes, says: str, decoder: DecoderProcess, photo: bytes
) -> None:
    with pytest.raises(DecodeError, match=says):
        decoder(photo + word)
    assert same_pixels(decoder(photo), open_photo(photo))


def test_a_decoder_that_is_killed_from_outside_costs_no_photo(
    decoder: DecoderProcess, photo: bytes, tmp_path: Path
) -> None:
    mark = tmp_path / "killed"
    assert same_pixels(decoder(photo + KILL_ONCE + os.fsencode(mark)), open_photo(photo))
    assert mark.exists()


def test_the_decoder_sees_no_credentials_and_no_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    decoder = DecoderProcess(60, 2**32)
    process, _ = decoder._running()
    assert b"secret" not in Path(f"/proc/{process.pid}/environ").read_bytes()
    assert os.getsid(process.pid) != os.getsid(0)
    decoder.close()
    assert process.poll() == 0


def test_a_run_over_photos_that_crash_the_decoder_fails_them_and_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_folder(tmp_path / "photos", collection(6, people=2))
    good = sorted(file.name for file in photos.rglob("*.jpg"))
    data = next(photos.rglob("*.jpg")).read_bytes()
    for name, word in (("crashes.jpg", CRASH), ("hangs.jpg", SPIN)):
        (photos / name).write_bytes(data + word)
    wanted = settings(photos)
    wanted["photos"]["decoder"] = {"max_cpu_s": 0.5}
    config = write_config(tmp_path / "p.yaml", wanted)
    monkeypatch.setattr(decoder_process, "WORKER", FAULTY)
    words = [
        "curate",
        "drawn",
        "--config",
        config,
        "--out",
        tmp_path / "run",
        "--quiet",
        "--engine",
        "inline",
    ]
    assert main([str(word) for word in words]) == 0
    rows = {Path(row["source_key"]).name: row for row in rows_of(tmp_path / "run" / "photos")}
    assert {name for name, row in rows.items() if row["verdict"] == "failed"} == {"crashes.jpg", "hangs.jpg"}
    assert rows["crashes.jpg"]["read_error"] == "the decoder died of it twice (SIGSEGV)"
    assert rows["hangs.jpg"]["read_error"] == "decoding takes more than 0.5 s"
    assert {name for name, row in rows.items() if row["verdict"] != "failed"} == set(good)
