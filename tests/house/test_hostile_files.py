"""Files that break readers: each gets a decision, and none harms its neighbours."""

import io
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.people.face import align_face
from curation.settings.base import PluginBackend
from tests.drawn_models import NOBODY, DrawnEmbedder, DrawnFaceFinder
from tests.drawn_people import Drawn, collection, draw, jpeg_of, write_folder, write_tars
from tests.drawn_pipeline import (
    ROOT,
    counts_of,
    curate,
    files_of,
    persona,
    photos_with_people,
    rows_of,
    settings,
    write_config,
)

BOMB_SIDE = 40_000


@cache
def bomb_png(side: int) -> bytes:
    """A valid grey PNG of side × side px that is small as a file: its rows are all zero."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(1)
    rows = bytes(100 * (1 + side))
    pixels = b"".join(packer.compress(rows) for _ in range(side // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def animated_webp(picture: np.ndarray) -> bytes:
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    return saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=100)


def png_of_16_bits(picture: np.ndarray) -> bytes:
    grey = picture.mean(axis=2).astype(np.uint16) * 257
    return saved(Image.fromarray(grey), "PNG")


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def turned(picture: np.ndarray) -> bytes:
    """The picture lying on its side, with the EXIF tag that says so."""
    return saved(Image.fromarray(np.rot90(picture)), "JPEG", exif=exif_of(6), quality=92)


# name: (makes the file from a good picture and its JPEG, verdict, stage, reason)
Maker = Callable[[np.ndarray, bytes], bytes]
HOSTILE: dict[str, tuple[Maker, str, str, str]] = {
    "truncated.jpg": (lambda p, j: j[: len(j) // 2], "failed", "read", "unreadable"),
    "bomb.png": (lambda p, j: bomb_png(BOMB_SIDE), "rejected", "screen", "too_many_pixels"),
    "text.jpg": (lambda p, j: b"<html>404 not found</html>\n", "rejected", "screen", "format"),
    "empty.jpg": (lambda p, j: b"", "failed", "read", "unreadable"),
    "animated.webp": (lambda p, j: animated_webp(p), "rejected", "screen", "animated"),
    "cmyk.jpg": (
        lambda p, j: saved(Image.fromarray(p).convert("CMYK"), "JPEG", quality=92),
        "kept",
        "",
        "",
    ),
    "deep.png": (lambda p, j: png_of_16_bits(p), "kept", "", ""),
    "alpha.png": (lambda p, j: saved(Image.fromarray(p).convert("RGBA"), "PNG"), "kept", "", ""),
    "turned.jpg": (lambda p, j: turned(p), "kept", "", ""),
    "gif.jpg": (lambda p, j: saved(Image.fromarray(p), "GIF"), "rejected", "screen", "format"),
    "noise.png": (lambda p, j: b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "failed", "read", "unreadable"),
    "tiny.png": (lambda p, j: saved(Image.fromarray(p[:8, :8]), "PNG"), "rejected", "screen", "too_small"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Drawn]]:
    """A collection of good photos with every hostile file among them, curated."""
    folder = tmp_path_factory.mktemp("hostile")
    good = collection(3, people=6)
    photos = write_folder(folder / "photos", good)
    for number, (name, (make, *_)) in enumerate(HOSTILE.items()):
        picture = draw(99, number, 0, 1000 + number)
        (photos / name).write_bytes(make(picture, jpeg_of(picture)))
    config = write_config(folder / "pipelines.yaml", settings(photos))
    return folder / "run", curate(config, folder / "run"), good


@pytest.mark.parametrize("name", HOSTILE)
def test_each_hostile_file_gets_its_decision(
    name: str, run: tuple[Path, dict[str, Any], list[Drawn]]
) -> None:
    _, verdict, stage, reason = HOSTILE[name]
    row = next(row for row in rows_of(run[0] / "photos") if row["file_name"] == name)
    assert row["verdict"] == verdict
    if verdict != "kept":
        last = row["decisions"][-1]
        assert (last["stage"], last["reason"]) == (stage, reason)
    else:
        assert (row["width"], row["height"]) == (160, 240)


def test_hostile_files_harm_no_neighbour(
    run: tuple[Path, dict[str, Any], list[Drawn]], tmp_path: Path
) -> None:
    out, summary, good = run
    config = write_config(tmp_path / "pipelines.yaml", settings(write_folder(tmp_path / "photos", good)))
    alone = curate(config, tmp_path / "run")
    assert counts_of(summary)["read"][0] == len(good) + len(HOSTILE)
    # Photos that are kept in spite of being odd are people of their own: the groups are the same.
    assert files_of(out / "shards")["000000.tar"] == files_of(tmp_path / "run" / "shards")["000000.tar"]
    assert summary["groups"] == alone["groups"] > 0


def test_a_turned_photo_is_seen_upright(run: tuple[Path, dict[str, Any], list[Drawn]]) -> None:
    row = photos_with_people(run[0])["turned.jpg"]
    assert row["orientation"] == 6
    assert row["verdict"] == "kept"
    turned_vector = row["people"][0]["face"]["embedding"]
    upright = draw(99, list(HOSTILE).index("turned.jpg"), 0, 1000)
    face = DrawnFaceFinder(None, None).find(upright, NOBODY)[0]
    expected = DrawnEmbedder(PluginBackend(backend="a:B"), None).embed(
        align_face(upright, face.points)[None]
    )[0]
    assert float(np.frombuffer(turned_vector, "<f4") @ expected) > 0.98


def test_a_tar_cut_in_the_middle_keeps_what_lies_before_the_cut_and_says_where_it_broke(
    tmp_path: Path,
) -> None:
    good = collection(4, people=4)
    tars = write_tars(tmp_path / "tars", good, per_tar=12)
    data = (tars / "00000.tar").read_bytes()
    (tars / "00000.tar").write_bytes(data[: len(data) // 2])
    config = write_config(tmp_path / "pipelines.yaml", settings(tars, kind="webdataset"))
    curate(config, tmp_path / "run")
    rows = rows_of(tmp_path / "run" / "photos")
    broken = next(row for row in rows if row["source_key"] == "00000.tar#broken")
    assert broken["verdict"] == "failed"
    assert "tar is broken" in broken["decisions"][-1]["detail"]
    from_cut = [row for row in rows if row["source_key"].startswith("00000.tar/")]
    assert 4 <= sum(row["verdict"] == "kept" for row in from_cut) < 12
    from_whole = [row for row in rows if row["source_key"].startswith("00001.tar/")]
    assert [row["verdict"] for row in from_whole] == ["kept"] * 12


def test_a_parquet_row_without_bytes_fails_alone(tmp_path: Path) -> None:
    good = collection(4, people=2)
    images: list[bytes | None] = [photo.jpeg for photo in good]
    images[3] = None
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), tmp_path / "data" / "a.parquet")
    (tmp_path / "data" / "b.parquet").write_bytes(b"PAR1 this is no Parquet file PAR1")
    config = write_config(tmp_path / "pipelines.yaml", settings(tmp_path / "data", kind="parquet"))
    curate(config, tmp_path / "run")
    verdicts = {row["source_key"]: row["verdict"] for row in rows_of(tmp_path / "run" / "photos")}
    assert verdicts.pop("a.parquet#00000003") == "failed"
    assert verdicts.pop("b.parquet#broken") == "failed"
    assert set(verdicts.values()) == {"kept"}


# Prints what `read` says of a photo, and by how many MiB the process grew at its fullest (VmHWM).
READ_ALONE = """
import sys
from pathlib import Path
from curation.meters import CallCounter
from curation.photos.read import Read
from curation.settings.photos import ScreenSettings
from curation.settings.source import SourceSettings
from curation.sources.photo_bytes import PhotoBytes
from curation.sources.rows import SourceRow, tables

def most():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

folder = Path(sys.argv[1])
source = SourceSettings(path=str(folder))
stage = Read(ScreenSettings(), source, PhotoBytes(source), CallCounter(None))
files = sorted(folder.iterdir())
before = most()
for row in stage(next(tables((SourceRow(f.name, f.name, str(f)) for f in files), 99))).to_pylist():
    print(row["file_name"], row["width"], row["height"], row["orientation"], row["undecoded"])
print(most() - before)
"""


def test_a_bomb_is_refused_by_its_header_without_its_pixels(tmp_path: Path) -> None:
    bomb = bomb_png(BOMB_SIDE)
    end = len(bomb) - 12
    turned = saved(Image.new("1", (2, 2)), "PNG", exif=exif_of(6))
    at = turned.index(b"eXIf") - 4
    chunk = turned[at : at + 12 + int.from_bytes(turned[at : at + 4], "big")]
    (tmp_path / "a.png").write_bytes(bomb)
    (tmp_path / "b.png").write_bytes(bomb[:end] + chunk + bomb[end:])
    (tmp_path / "c.webp").write_bytes(
        saved(Image.new("RGB", (16_000, 16_000)), "WEBP", lossless=True, method=0)
    )
    done = subprocess.run(
        [sys.executable, "-c", READ_ALONE, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT
    )
    *rows, grown = done.stdout.splitlines()
    assert rows == [
        f"a.png {BOMB_SIDE} {BOMB_SIDE} 1 too_many_pixels",
        f"b.png {BOMB_SIDE} {BOMB_SIDE} 6 too_many_pixels",
        "c.webp 16000 16000 1 too_many_pixels",
    ]
    assert float(grown) < 64


def chained_long_names(links: int) -> bytes:
    """A tar of nothing but GNU long-name headers, each announcing the next."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 4
    block = header.tobuf(tarfile.GNU_FORMAT) + b"abc\0".ljust(512, b"\0")
    return block * links


def test_listings_that_break_are_rows_that_failed_and_the_rest_goes_on(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "tars", collection(4, people=2), per_tar=12)
    (tars / "00001.tar").write_bytes(chained_long_names(3000))
    (tars / "00002.tar").symlink_to(tmp_path / "nowhere")
    (tars / "00003.tar").write_bytes(b"no tar at all" * 100)
    config = write_config(tmp_path / "p.yaml", settings(tars, kind="webdataset"))
    summary = curate(config, tmp_path / "run")
    assert counts_of(summary)["read"] == (15, 12, 0, 3)
    done = persona("why", tmp_path / "run", "--failed")
    for name in ("00001.tar#broken", "00002.tar#broken", "00003.tar#broken"):
        assert name in done.stdout


def test_odd_names_and_broken_neighbours_fail_alone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", collection(4, people=2))
    (folder / "photo-00002.json").write_text('{"caption": "\\ud800 lone"}')
    (folder / "photo-00003.json").write_text("[" * 100_000)
    os.mkfifo(folder / "pipe.jpg")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(b"x")
    huge = bytearray(bomb_png(BOMB_SIDE)[:64])
    huge[16:20] = b"\xff\xff\xff\xff"
    (folder / "wide.png").write_bytes(bytes(huge))
    config = write_config(tmp_path / "p.yaml", settings(folder))
    summary = curate(config, tmp_path / "run", "--set", "engine.max_failed_share=1")
    rows = {row["file_name"]: row for row in rows_of(tmp_path / "run" / "photos")}
    assert len(rows) == 12 + 3
    assert rows["photo-00002.jpg"]["verdict"] == "kept"
    assert rows["photo-00003.jpg"]["decisions"][-1]["detail"].startswith("its .json is broken")
    assert rows["pipe.jpg"]["decisions"][-1]["detail"].endswith("not a regular file")
    assert rows["caf\\udce9.jpg"]["verdict"] == "failed"
    assert rows["wide.png"]["verdict"] != "kept"
    assert counts_of(summary)["read"][1] + counts_of(summary)["read"][3] == 15


def test_text_of_a_parquet_file_that_is_no_text_fails_that_file_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    images = pa.array([photo.jpeg for photo in collection(4, people=1)], pa.binary())
    no_text = pa.array([b"\xff\xfe"] * len(images), pa.binary()).view(pa.string())
    pq.write_table(pa.table({"image": images, "caption": no_text}), tmp_path / "data" / "a.parquet")
    pq.write_table(pa.table({"image": images}), tmp_path / "data" / "b.parquet")
    config = write_config(tmp_path / "p.yaml", settings(tmp_path / "data", kind="parquet"))
    curate(config, tmp_path / "run")
    verdicts = {row["source_key"]: row["verdict"] for row in rows_of(tmp_path / "run" / "photos")}
    assert verdicts.pop("a.parquet#broken") == "failed"
    assert set(verdicts.values()) == {"kept"}
