"""Bad containers and names: tars that lie, Parquet files of wrong types, names in every script."""

import io
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.pictures import Named

# fmt: off
_NAMES = (
    "фото", "照片", "写真", "사진", "صورة", "תמונה", "ภาพ", "छवि", "ფოტო", "φωτο", "ñandú", "e\u0301",
    "🧍🏽‍♀️",
    "\u202egpj.exe", "\x1b[2J\x1b]0;owned\x07", "line\nbreak", "tab\tand\rreturn", "\x7f\x01\x02",
    "zero\u200bwidth",
    "-rf", "--help", "$(id)", "`id`", ";id;", "|id", "'\"", "%s%n", "{0}", "<script>alert(1)</script>",
    "a" * 200,
    "..", "...", " ", "~", "*", "?", "[x]", "C:\\x", "CON", "ſhort", "\ufeffbom", "\udcff",
)
# fmt: on


def odd_names() -> Iterator[str]:
    """Names for files, endlessly: those above, then again with a number."""
    number = 0
    while True:
        for name in _NAMES:
            yield f"{name.replace('/', '')}{number or ''}"
        number += 1


def write_tars(folder: Path, files: list[Named], good: list[bytes], seed: int) -> int:
    """Tars with the files and with members that are none, a good photo in each. Returns the members."""
    random_ = random.Random(seed)
    folder.mkdir(parents=True)
    members = 0
    for place in range(0, len(files), 50):
        with tarfile.open(folder / f"{place // 50:05d}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for number, (_, data) in enumerate(files[place : place + 50]):
                name = random_.choice(
                    ("../../etc/cron.d/{}.jpg", "/abs/{}.jpg", "a/../b/{}.jpg", "{}.jpg", "same.jpg")
                )
                _add(tar, name.format(number), data)
                members += 1
            for number, kind in enumerate(
                (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
            ):
                link = tarfile.TarInfo(f"link{number}.jpg")
                link.type, link.linkname = kind, "/etc/passwd"
                tar.addfile(link)
                members += 1
            if place // 50 < len(good):
                _add(tar, "neighbour.jpg", good[place // 50])
    return members


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def broken_tars(folder: Path, good: bytes) -> int:
    """Tars that break behind a good photo and its record, each in another way. Returns how many."""
    folder.mkdir(parents=True)
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        _add(tar, "neighbour.jpg", good)
        _add(tar, "neighbour.json", b"{}")
    whole = sink.getvalue()[: 512 + -(-len(good) // 512) * 512 + 1024]
    huge = tarfile.TarInfo("huge.jpg")
    huge.size = 2**62
    negative = bytearray(tarfile.TarInfo("negative.jpg").tobuf())
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b"%06o\0 " % (sum(negative[:148]) + 8 * 32 + sum(negative[156:]))
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 2**40
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = tarfile.XHDTYPE, 512
    tails = [
        huge.tobuf(tarfile.GNU_FORMAT), bytes(negative), long_name.tobuf(tarfile.GNU_FORMAT),
        pax.tobuf() + b"99999999999999999999 path=x\n".ljust(512, b"\0"),
        pax.tobuf() + b"0 path=\n".ljust(512, b"\0"),
        b"\xff" * 512, b"noise" * 300, b"", pax.tobuf() + b"21 size=-99999999999\n".ljust(512, b"\0"),
    ]  # fmt: skip
    for number, tail in enumerate(tails):
        (folder / f"{number:02d}.tar").write_bytes(whole + tail)
    return len(tails)


def broken_tables(folder: Path, good: bytes) -> int:
    """Parquet files of wrong types and huge strings, and one that is good. Returns how many are bad."""
    folder.mkdir(parents=True)
    names = {"key": ["n"], "caption": ["c" * 5_000_000], "url": ["https://h.invalid/" + "u" * 2_000_000]}
    columns = [
        pa.array([1]), pa.array([1.5]), pa.array([True]), pa.array([None]), pa.array([[good]]),
        pa.array(["text"]),
        pa.array([{"bytes": None, "path": "../../../etc/passwd"}]), pa.array([{"bytes": 3, "path": 4}]),
        pa.array([{"bytes": b"", "path": "\x00"}]), pa.array([good[:50]]), pa.array(["file:///etc/passwd"]),
        pa.array(["http://169.254.169.254/latest/meta-data"]), pa.array(["memory://x"]),
        pa.array(["\x1b]0;x\x07" * 99]),
    ]  # fmt: skip
    for number, image in enumerate(columns):
        pq.write_table(pa.table({"image": image, **names}), folder / f"{number:02d}.parquet")
    bad = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array([good])}), bad)
    data = bad.getvalue()
    for number, broken in enumerate(
        (data[:-8], data[: len(data) // 2], b"PAR1PAR1", b"", data[:-12] + b"\xff" * 4 + data[-8:])
    ):
        (folder / f"b{number}.parquet").write_bytes(broken)
    pq.write_table(pa.table({"image": pa.array([good]), "key": ["neighbour.jpg"]}), folder / "good.parquet")
    return len(columns) + 5
