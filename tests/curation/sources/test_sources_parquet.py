"""Parquet as others write it: row groups of any size, columns of any type, downloads that failed."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.excluded.tombstone_store import TombstoneStore
from curation.settings.source import SourceSettings
from curation.sources.photo_bytes import PhotoBytes
from curation.sources.rows import SourceRow
from curation.sources.units import list_units, unit_rows
from curation.storage import filesystem
from persona import main
from tests.drawn_people import collection
from tests.drawn_pipeline import counts_of, files_of, rows_of, settings, write_config
from tests.drawn_tars import tar_of

MIB = 2**20
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def listed(path: Path, **source: Any) -> tuple[SourceSettings, list[SourceRow]]:
    wanted = SourceSettings(kind="parquet", path=str(path), **source)
    return wanted, [row for unit in list_units(wanted) for row in unit_rows(unit, wanted)]


class Counted:
    """A file that counts what is read of it."""

    opened: list["Counted"]

    def __init__(self, file: Any) -> None:
        self._file = file
        self.read_bytes = 0
        self.opened.append(self)

    def read(self, *size: int) -> bytes:
        data = bytes(self._file.read(*size))
        self.read_bytes += len(data)
        return data

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *how: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    """The files that are opened from now on, at the edge of the file system."""
    Counted.opened = []
    fs = filesystem("/")[0]
    real = fs.open
    monkeypatch.setattr(fs, "open", lambda *names, **options: Counted(real(*names, **options)))
    return Counted.opened


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A row group of 100 photos of 1 MiB, as structs."""
    file = tmp_path_factory.mktemp("large") / "large.parquet"
    images = [{"bytes": bytes([n]) * MIB, "path": f"{n}.jpg"} for n in range(100)]
    table = pa.table({"image": pa.array(images, STRUCT), "licence": [f"L{n}" for n in range(100)]})
    pq.write_table(table, file, compression="none", use_dictionary=False, write_batch_size=8)
    return file


def test_a_large_row_group_is_read_once_and_never_held_as_a_whole(large: Path, opened: list[Counted]) -> None:
    source, rows = listed(large)
    assert [row.licence for row in rows] == [f"L{n}" for n in range(100)]
    assert sum(file.read_bytes for file in opened) < MIB
    pool = pa.default_memory_pool()
    held, before = 0, pool.bytes_allocated()
    photos = PhotoBytes(source)
    opened.clear()
    for number, row in enumerate(rows):
        assert photos.read(vars(row)) == bytes([number]) * MIB
        held = max(held, pool.bytes_allocated() - before)
    assert len(opened) == 1
    assert opened[0].read_bytes < large.stat().st_size + MIB
    assert held < 75 * MIB


def test_photos_in_any_order_cost_two_readings_of_their_row_group_and_hold_none_of_it(
    large: Path, opened: list[Counted]
) -> None:
    source, rows = listed(large)
    photos = PhotoBytes(source)
    pool = pa.default_memory_pool()
    held, before = 0, pool.bytes_allocated()
    opened.clear()
    for number in [80, 3, 2, 90, 99, 0, *range(98, 1, -7)]:
        assert photos.read(vars(rows[number])) == bytes([number]) * MIB
        held = max(held, pool.bytes_allocated() - before)
    assert opened[0].read_bytes < 2 * large.stat().st_size
    assert held < 75 * MIB


def test_a_row_group_that_cannot_be_read_is_not_read_again_for_each_of_its_rows(
    large: Path, tmp_path: Path, opened: list[Counted]
) -> None:
    data = bytearray(large.read_bytes())
    place = data.index(bytes([80]) * 1000)
    data[place - 300 : place] = b"\xff" * 300  # the header of a page
    (tmp_path / "a.parquet").write_bytes(data)
    source, rows = listed(tmp_path / "a.parquet")
    photos = PhotoBytes(source)
    opened.clear()
    ends = []
    for row in rows:
        try:
            ends.append("read" if photos.read(vars(row)) else "")
        except OSError as error:
            ends.append(str(error))
    assert ends[:40] == ["read"] * 40
    assert ends[80:] == [ends[80]] * 20
    assert ends[80].startswith("row group 0: ")
    assert opened[0].read_bytes < 2 * len(data)


TYPES: dict[str, Any] = {
    "binary_view": lambda values: pa.array(values, pa.binary_view()),
    "large_binary": lambda values: pa.array(values, pa.large_binary()),
    "dictionary": lambda values: pa.array(values, pa.binary()).dictionary_encode(),
    "struct of views": lambda values: pa.array(
        [{"bytes": value, "path": None} for value in values],
        pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())]),
    ),
}


@pytest.mark.parametrize("kind", TYPES)
def test_photos_and_their_metadata_are_there_in_every_type_of_bytes(kind: str, tmp_path: Path) -> None:
    values = [b"\xff\xd8" * 60_000, b"two", b"two"]
    table = {
        "image": TYPES[kind](values),
        "thumb": pa.array(values, pa.binary_view()),
        "note": pa.array(["a", "b", "b"]).dictionary_encode(),
        "licence": pa.array(["CC0", None, "BY"], pa.string_view()),
        "vector": [[0.5] * 4] * 3,
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    source, rows = listed(tmp_path)
    photos = PhotoBytes(source)
    assert [photos.read(vars(row)) for row in rows] == values
    assert [row.licence for row in rows] == ["CC0", None, "BY"]
    assert [json.loads(row.metadata or "") for row in rows] == [
        {"note": note, "licence": licence} for note, licence in (("a", "CC0"), ("b", None), ("b", "BY"))
    ]


def test_a_row_that_says_very_much_keeps_what_is_short_and_names_what_is_not(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image": [b"x"], "licence": ["CC0"], "site": ["s"], "html": ["<p>" * 100_000]}),
        tmp_path / "a.parquet",
    )
    row = listed(tmp_path)[1][0]
    assert row.licence == "CC0"
    assert json.loads(row.metadata or "") == {"licence": "CC0", "site": "s", "left_out": ["html"]}


def test_a_record_in_a_struct_is_the_photos_record(tmp_path: Path) -> None:
    records = [{"url": f"https://photos.invalid/{n}", "license": "CC0", "rights": "mine"} for n in range(2)]
    pq.write_table(
        pa.table({"image": [b"x", b"y"], "json": records, "url": [None, "https://photos.invalid/own"]}),
        tmp_path / "a.parquet",
    )
    rows = listed(tmp_path)[1]
    assert [row.source_url for row in rows] == ["https://photos.invalid/0", "https://photos.invalid/own"]
    assert [row.licence for row in rows] == ["CC0", "CC0"]
    named = listed(tmp_path, columns={"licence": "rights"})[1]
    assert [row.licence for row in named] == ["mine", "mine"]


@pytest.mark.parametrize("shape", ["struct", "text", "second column"])
def test_the_address_of_a_photo_is_known_before_it_is_read(shape: str, tmp_path: Path) -> None:
    address = "https://photos.invalid/folder/7.jpg"
    images: dict[str, pa.Array] = {
        "struct": pa.array([{"bytes": None, "path": address}], STRUCT),
        "text": pa.array([address]),
        "second column": pa.array([b"x"]),
    }
    table = pa.table({"image": images[shape], "uri": [address if shape == "second column" else None]})
    pq.write_table(table, tmp_path / "a.parquet")
    row = listed(tmp_path)[1][0]
    assert row.source_url == address
    assert row.file_name == ("a.parquet" if shape == "second column" else "7.jpg")


def _img2dataset(folder: Path, photos: list[bytes], failed: list[str]) -> Path:
    """A table as img2dataset 1.47 writes it: a row for each address, also where nothing came of it."""
    folder.mkdir()
    status = [*("success" for _ in photos), *failed]
    errors = {"failed_to_download": "HTTP Error 404: Not Found", "failed_to_resize": "Image decoding error"}
    pq.write_table(
        pa.table(
            {
                "url": [f"https://photos.invalid/{n}.jpg" for n in range(len(status))],
                "license": ["CC0"] * len(status),
                "key": [f"{n:09d}" for n in range(len(status))],
                "status": status,
                "error_message": [errors.get(said) for said in status],
                "exif": ["{}" if said == "success" else None for said in status],
                "jpg": pa.array([*photos, *(None for _ in failed)], pa.binary()),
            }
        ),
        folder / "00000.parquet",
    )
    return folder


def test_downloads_that_failed_are_no_photos_and_no_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [photo.jpeg for photo in collection(5, people=1)]
    failed = ["failed_to_download"] * 9 + ["failed_to_resize"]
    folder = _img2dataset(tmp_path / "c", photos, failed)
    pipeline = settings(folder, kind="parquet")
    pipeline["source"]["image_column"] = "jpg"
    config = write_config(tmp_path / "p.yaml", pipeline)
    run, engine = tmp_path / "run", ["--engine", "inline", "--quiet", "--allow-empty"]
    assert main(["curate", "drawn", "--config", str(config), "--out", str(run), *engine]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert counts_of(summary)["read"] == (16, 6, 10, 0)
    assert next(s for s in summary["stages"] if s["stage"] == "read")["reasons"] == {"not_downloaded": 10}
    assert main(["retry", str(run), *engine, "--json"]) == 0
    assert main(["why", str(run), "000000015"]) == 0
    assert main(["status", str(run)]) == 0
    assert main(["report", str(run)]) == 0
    said = capsys.readouterr().out
    assert '"taken_up": 0' in said
    assert "read        rejected not_downloaded failed_to_resize: Image decoding error" in said
    assert "not_downloaded 10" in said
    assert any(b"not_downloaded" in data for data in files_of(run / "report").values())


def test_a_download_that_came_and_has_no_bytes_is_a_failure(tmp_path: Path) -> None:
    photos = [photo.jpeg for photo in collection(5, people=1)]
    folder = _img2dataset(tmp_path / "c", photos, ["success", "failed_to_download"])
    pipeline = settings(folder, kind="parquet")
    pipeline["source"]["image_column"] = "jpg"
    config = write_config(tmp_path / "p.yaml", pipeline)
    words = ["--out", str(tmp_path / "run"), "--engine", "inline", "--quiet", "--allow-empty"]
    assert main(["curate", "drawn", "--config", str(config), *words]) == 0
    verdicts = {row["file_name"]: row["verdict"] for row in rows_of(tmp_path / "run" / "photos")}
    assert (verdicts["000000006"], verdicts["000000007"]) == ("failed", "rejected")


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_a_record_of_a_download_that_failed_is_a_row_and_makes_no_photo_suspect(
    kind: str, tmp_path: Path
) -> None:
    said = {"status": "failed_to_download", "error_message": "timed out", "url": "https://photos.invalid/2"}
    files = [("1.jpg", b"photo"), ("2.json", json.dumps(said).encode())]
    (tmp_path / "c").mkdir()
    if kind == "webdataset":
        (tmp_path / "c" / "a.tar").write_bytes(tar_of(files))
    for name, data in files if kind == "folder" else []:
        (tmp_path / "c" / name).write_bytes(data)
    source = SourceSettings(kind=kind, path=str(tmp_path / "c"))  # type: ignore[arg-type]
    photo, download = [row for unit in list_units(source) for row in unit_rows(unit, source)]
    assert (photo.file_name, photo.source_error, photo.not_downloaded) == ("1.jpg", None, None)
    assert download.not_downloaded == "failed_to_download: timed out"
    assert (download.source_url, download.source_error) == ("https://photos.invalid/2", None)


def test_nothing_is_kept_of_a_download_that_failed_whose_address_was_forgotten(tmp_path: Path) -> None:
    folder = _img2dataset(
        tmp_path / "c", [photo.jpeg for photo in collection(5, people=1)], ["failed_to_download"]
    )
    store = TombstoneStore(str(tmp_path / "forgotten"))
    store.add([], [], ["https://photos.invalid/6.jpg"])
    pipeline = settings(folder, kind="parquet")
    pipeline["source"]["image_column"] = "jpg"
    config = write_config(tmp_path / "p.yaml", pipeline)
    words = ["--out", str(tmp_path / "run"), "--engine", "inline", "--quiet", "--allow-empty"]
    assert main(["curate", "drawn", "--config", str(config), *words]) == 0
    row = next(row for row in rows_of(tmp_path / "run" / "photos") if row["file_name"] == "000000006")
    assert row["decisions"][-1]["reason"] == "forgotten"
    assert row["source_url"] is row["metadata"] is row["not_downloaded"] is None
