"""`index` takes tars of any origin, and names file and offset of what readers would trip over."""

import io
import json
import mmap
import subprocess
import tarfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from shards.format.dataset import DatasetError
from shards.format.index import Index, IndexWriter
from shards.reading.folder import DatasetFolder
from shards.tools.build_index import build_index
from shards.tools.dataset_rows import DatasetRows
from shards.tools.verify import verify
from tests.drawn_shards import bytes_of, drawn_groups, read_by_webdataset, shards_of, write_dataset

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}


def _picture(width: int, height: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def _tar(path: Path, members: list[tuple[str, bytes]], format_: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format_) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size, header.mtime, header.uname = len(data), 1.5, "somebody"
            tar.addfile(header, io.BytesIO(data))
    return path


def _read(folder: Path) -> dict[str, dict[str, bytes]]:
    dataset = DatasetFolder(str(folder))
    return {dataset.read(number).key: dataset.read(number).members for number in range(len(dataset))}


@pytest.mark.parametrize("kind", FORMATS)
def test_foreign_tars_are_read_as_webdataset_reads_them(tmp_path: Path, kind: str) -> None:
    long = f"{'folder' * 10}/{'name' * (20 if kind == 'ustar' else 60)}"
    members = [
        ("plain.png", _picture(4, 2)),
        ("plain.txt", b"one two three"),
        (f"{long}.png", _picture(3, 3)),
        ("dir/ünïcode.json", b"{}"),
        ("dir/ünïcode.left.png", _picture(1, 2)),
        ("__meta__/anything.json", b"{}"),
        ("no-extension", b"?"),
    ]
    _tar(tmp_path / "a.tar", members, FORMATS[kind])
    _tar(tmp_path / "b.tar", [("second.jpg", b"no picture"), ("second.cls", b"7")], FORMATS[kind])
    about = build_index(str(tmp_path))
    read = _read(tmp_path)
    assert read == read_by_webdataset(shards_of(tmp_path))
    assert list(read) == ["plain", long, "dir/ünïcode", "second"]
    assert (about["groups"], about["photos"], about["lineage"]) == (4, 4, {"operation": "index"})
    rows = DatasetRows(str(tmp_path)).table.to_pylist()
    assert rows[0]["aspect"] == [2.0]
    assert rows[0]["tokens"] == [3]
    assert rows[3]["aspect"] == [0.0]
    assert verify(str(tmp_path)).problems == []


def test_tars_of_gnu_tar_with_folders_in_them_are_read(tmp_path: Path) -> None:
    source = tmp_path / "source" / "sub"
    source.mkdir(parents=True)
    for number in range(4):
        (source / f"{number}.png").write_bytes(_picture(2, 2))
        (source / f"{number}.txt").write_text("a")
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run(
        ["tar", "--sort=name", "-cf", str(data / "x.tar"), "-C", str(source.parent), "."], check=True
    )
    build_index(str(data))
    assert _read(data) == read_by_webdataset([str(data / "x.tar")])
    assert list(_read(data)) == [f"./sub/{number}" for number in range(4)]
    assert verify(str(data)).problems == []


def test_several_processes_write_the_same_index(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in "abc":
            _tar(
                tmp_path / folder / f"{name}.tar", [(f"{name}{n}.png", _picture(2, n + 1)) for n in range(3)]
            )
    build_index(str(tmp_path / "one"))
    build_index(str(tmp_path / "two"), processes=2)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


@pytest.mark.parametrize("lost", [["index.arrow", "index.parquet"], ["index.parquet"], ["index.arrow"]])
def test_a_lost_index_of_ours_comes_back_to_the_same_bytes(tmp_path: Path, lost: list[str]) -> None:
    folder = write_dataset(tmp_path / "data", drawn_groups(20))
    before = bytes_of(folder)
    for name in lost:
        (folder / name).unlink()
    build_index(str(folder))
    assert bytes_of(folder) == before


def test_without_dataset_json_the_counts_come_back_too(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", drawn_groups(10, outfits=2))
    before = json.loads((folder / "dataset.json").read_text())
    for name in ("index.arrow", "index.parquet", "dataset.json"):
        (folder / name).unlink()
    after = build_index(str(folder))
    same = ["groups", "photos", "bytes", "shards", "index", "identities", "licences", "photos_per_group"]
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


def test_a_damaged_shard_of_ours_is_not_taken_for_right(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", drawn_groups(10))
    data = bytearray((folder / "000000.tar").read_bytes())
    data[512] ^= 1
    (folder / "000000.tar").write_bytes(bytes(data))
    (folder / "index.arrow").unlink()
    with pytest.raises(DatasetError, match=r"000000\.tar: checksum .*, but dataset\.json says"):
        build_index(str(folder))
    assert not (folder / "index.arrow").exists()


def _header(name: bytes = b"a.jpg", size: bytes = b"00000000005\0", kind: bytes = b"0") -> bytes:
    """A header block whose sum is right, whatever stands in it."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


_END = bytes(1024)
_BODY = b"hello".ljust(512, b"\0")
HOSTILE = {
    "a negative size": (
        _header(size=b"\xff" * 12) + _BODY + _END,
        "byte 0: the size in the header is negative",
    ),
    "an absurd size": (_header(size=b"77777777777\0") + _BODY + _END, "byte 0: 'a.jpg' has 8589934591 bytes"),
    "a size that is no number": (
        _header(size=b"5x\0".ljust(12)) + _BODY + _END,
        "byte 0: the size .* no octal",
    ),
    "a name that leads out": (_header(b"../../etc/x.jpg") + _BODY + _END, "byte 0: the name .* leads out"),
    "an absolute name": (_header(b"/etc/x.jpg") + _BODY + _END, "byte 0: the name .* leads out"),
    "no name": (_header(b"") + _BODY + _END, "byte 0: a member with the name ''"),
    "a name that is not UTF-8": (_header(b"\xff\xfe.jpg") + _BODY + _END, "byte 0: the name .* is not UTF-8"),
    "a PAX header that lies": (
        _header(b"p", b"00000000020\0", b"x") + b"999 path=x\n".ljust(512, b"\0") + _header() + _BODY + _END,
        "byte 0: PAX header: a record that does not end where it says",
    ),
    "a PAX header of a gigabyte": (
        _header(b"p", b"10000000000\0", b"x") + _END,
        "byte 0: an extended header of 1073741824 bytes",
    ),
    "a long name without member": (
        _header(b"././@LongLink", b"00000000005\0", b"L") + _BODY + _END,
        "byte 1024: a long name or PAX header has no member",
    ),
    "a sparse member": (_header(kind=b"S") + _BODY + _END, "byte 0: a sparse member"),
    "no tar": (
        b"not a tar at all, but long enough to be read as one".ljust(2048, b"!"),
        "byte 0: no tar header",
    ),
    "a gzip": (b"\x1f\x8b\x08".ljust(2048, b"!"), "byte 0: no tar but gzip"),
    "nothing": (b"", "byte 0: the tar is cut: a header needs 512 bytes, 0 are left"),
    "cut in a member": (_header() + b"hel", "byte 0: 'a.jpg' has 5 bytes from byte 512 on, but .* byte 515"),
    "cut behind a member": (_header() + _BODY, "byte 1024: the tar is cut"),
    "cut in the end": (_header() + _BODY + bytes(512), "byte 1536: the tar is cut"),
    "bytes behind the end": (_header() + _BODY + _END + b"secret", "byte 2048: bytes behind the end"),
    "a member twice": ((_header() + _BODY) * 2 + _END, "byte 1024: sample 'a' has its member 'jpg' twice"),
    "a split sample": (
        _header() + _BODY + _header(b"b.jpg") + _BODY + _header(b"a.txt") + _BODY + _END,
        "byte 2048: sample 'a' is split: it began at byte 0",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_one_line_names_file_and_offset_of(what: str, tmp_path: Path) -> None:
    data, says = HOSTILE[what]
    (tmp_path / "bad.tar").write_bytes(data)
    with pytest.raises(DatasetError, match=rf"bad\.tar: {says}") as caught:
        build_index(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]


def test_any_cut_of_a_tar_is_one_line(tmp_path: Path) -> None:
    whole = _tar(tmp_path / "whole.tar", [("a" * 120 + ".png", _picture(4, 4)), ("b.txt", b"x")]).read_bytes()
    (tmp_path / "whole.tar").unlink()
    for size in range(0, 4096, 97):
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(DatasetError, match=r"cut\.tar: byte \d+: "):
            build_index(str(tmp_path))


def test_a_key_that_two_shards_have_is_an_error_that_names_both(tmp_path: Path) -> None:
    _tar(tmp_path / "a.tar", [("one.jpg", b"1"), ("same.jpg", b"2")])
    _tar(tmp_path / "b.tar", [("two.jpg", b"3"), ("same.txt", b"4")])
    with pytest.raises(DatasetError, match=r"b\.tar: byte 1024: sample 'same' is in a\.tar too"):
        build_index(str(tmp_path))


def test_records_and_pictures_that_only_look_like_ours_are_borne(tmp_path: Path) -> None:
    members = [
        ("a.000.json", b"[1]"), ("a.000.jpg", b"x"), ("b.000.json", b"{"), ("c.000.json", b"{}"),
        ("d.txt", b"w " * 40_000), ("d.png", _picture(2, 2)),
        ("e.png", _picture(1, 1).replace(b"\0\0\0\1\0\0\0\1", b"\0\1\0\0\0\1\0\0")),
    ]  # fmt: skip
    _tar(tmp_path / "a.tar", members)
    assert build_index(str(tmp_path))["groups"] == 5
    assert verify(str(tmp_path)).problems == []


def test_a_folder_without_tars_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no \.tar"):
        build_index(str(tmp_path))
    with pytest.raises(DatasetError, match="no such folder"):
        build_index(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("mapped_mib", [None, 2.0])
def test_a_large_index_gives_its_pages_back_when_many_are_mapped_however_many_a_look_up_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped_mib: float | None
) -> None:
    write_dataset(tmp_path / "data", drawn_groups(8))
    now = [0.0]
    monkeypatch.setattr("shards.format.index._shared_bytes", lambda: int(now[0] * 2**20))
    index = Index(str(tmp_path / "data" / "index.arrow"), mapped_bytes=8 * 2**20)

    class Map:
        """Stands for the mapping of an index of 100 MiB, of which each look-up maps `mapped_mib`."""

        look_ups: ClassVar[list[int]] = []

        def __len__(self) -> int:
            return 100 * 2**20

        def madvise(self, advice: int) -> None:
            assert advice == mmap.MADV_DONTNEED
            now[0] = 0.0
            self.look_ups.append(number)

    monkeypatch.setattr(index, "_map", Map())
    for number in range(100):
        now[0] += mapped_mib or 0.0
        index.layout(number % len(index))
    # 64 KiB for each of the 8 places of a look-up, where the system tells nothing; else what it tells.
    every = 16 if mapped_mib is None else 5
    assert 100 // (every + 4) <= len(Map.look_ups) <= 100 // every + 1


def test_an_index_that_cannot_be_put_in_its_place_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "index.arrow").mkdir()
    with pytest.raises(OSError, match="directory"), IndexWriter(str(tmp_path)) as index:
        index.close()
    assert not [name for name in tmp_path.iterdir() if name.name.endswith(".tmp")]
