"""An address that somebody names is found in a record however it stands there."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.excluded.address import normal
from curation.excluded.opt_out import OptOuts
from curation.excluded.tombstone_store import ObeyedTombstones, TombstoneStore
from curation.forgetting.request import read_requests
from curation.settings.photos import ScreenSettings
from curation.settings.source import SourceSettings
from curation.sources.units import list_units, unit_rows

WISHED = "https://photos.example/café/a.jpg"

SPELLED = {
    "escaped and in the letters of a Mac": "https://photos.example/cafe%CC%81/a.jpg",
    "a host that is escaped": "https://photos%2Eexample/caf%C3%A9/a.jpg",
    "capitals": "HTTPS://PHOTOS.EXAMPLE/caf%c3%a9/a.jpg",
    "without www": "https://www.photos.example/café/a.jpg/",
    "blanks and a line's end": " http://photos.example/café/a.jpg\r\n",
}


@pytest.mark.parametrize("way", SPELLED)
def test_one_address_has_one_normal_form(way: str) -> None:
    assert normal(SPELLED[way], with_query=False) == normal(WISHED, with_query=False)


def test_hosts_of_all_languages_have_one_normal_form_under_both_rules_for_them() -> None:
    for host in ("straße.example", "STRASSE.example", "xn--strae-oqa.example"):
        assert normal(f"http://{host}/1", with_query=False) == "https://strasse.example/1"
    long = "a" * 70
    assert normal(f"http://{long.upper()}.example:80/1", with_query=False) == f"https://{long}.example/1"


RECORDS: dict[str, dict[str, Any]] = {
    "another column": {"url": "https://cdn.invalid/1", "original_url": WISHED},
    "a list": {"url": ["https://cdn.invalid/1", WISHED]},
    "a list of one": {"url": [WISHED]},
    "several in one text": {"url": f"https://cdn.invalid/1, {WISHED}"},
    "several with bars": {"url": f"{WISHED}|https://cdn.invalid/1"},
    "an object": {"media": {"sizes": [{"href": WISHED}]}},
    "a text around it": {"credit": f"seen at <{WISHED}>."},
    "capitals": {"URL": WISHED.replace("https", "HTTPS")},
    "no scheme": {"url": WISHED.removeprefix("https:")},
    "no scheme and no slashes": {"page_url": WISHED.removeprefix("https://")},
    "an archive's copy": {"url": f"https://web.archive.invalid/web/2020/{WISHED}"},
    "a proxy's size": {
        "src": "https://x.invalid/image?url=https%3A%2F%2Fphotos.example%2Fcaf%C3%A9%2Fa.jpg&w=64"
    },
}


def rows_of(folder: Path, kind: str, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a collection of one photo with this record."""
    folder.mkdir()
    if kind == "folder":
        (folder / "1.jpg").write_bytes(b"photo")
        (folder / "1.json").write_text(json.dumps(record))
    else:
        pq.write_table(pa.Table.from_pylist([{"image": b"photo", **record}]), folder / "a.parquet")
    source = SourceSettings(kind=kind, path=str(folder))  # type: ignore[arg-type]
    return [vars(row) for unit in list_units(source) for row in unit_rows(unit, source)]


def test_a_page_is_one_with_and_without_its_last_slash() -> None:
    pages = [
        "https://www.photos.example/people/ann/1",
        "http://photos.example/people/ann/1/",
        "http://photos.example",
    ]
    assert [normal(page, with_query=False) for page in pages] == [
        "https://photos.example/people/ann/1",
        "https://photos.example/people/ann/1",
        "https://photos.example/",
    ]
    assert normal("https://www.com/a", with_query=False) == "https://www.com/a"


@pytest.mark.parametrize("kind", ["folder", "parquet"])
@pytest.mark.parametrize("way", RECORDS)
def test_an_address_opts_out_and_stays_forgotten_wherever_it_stands_in_a_record(
    way: str, kind: str, tmp_path: Path
) -> None:
    (tmp_path / "opt-out.txt").write_text(f"url:{WISHED}\n")
    listed = OptOuts(ScreenSettings(opt_out=str(tmp_path / "opt-out.txt")))
    store = TombstoneStore(str(tmp_path / "forgotten"))
    store.add([], [], [], named=[WISHED])
    stones = ObeyedTombstones([store.read()])
    [row] = rows_of(tmp_path / "c", kind, RECORDS[way])
    assert listed.naming(row) == {1}
    assert stones.has_url(row, with_query=False)
    [other] = rows_of(
        tmp_path / "d", kind, {"url": "https://photos.example/caf%C3%A9/b.jpg", "note": "http://"}
    )
    assert not listed.naming(other)
    assert not stones.has_url(other, with_query=False)


def test_the_address_of_bytes_in_a_table_counts_in_capitals_too(tmp_path: Path) -> None:
    [row] = rows_of(
        tmp_path / "c", "parquet", {"image": {"bytes": b"photo", "path": "HTTPS://photos.example/1"}}
    )
    assert row["source_url"] == "HTTPS://photos.example/1"


def test_a_list_in_a_record_is_stated_as_its_texts(tmp_path: Path) -> None:
    record = {"url": ["https://a.invalid", "https://b.invalid"], "license": ["CC0"], "author": []}
    [row] = rows_of(tmp_path / "c", "folder", record)
    assert (row["source_url"], row["licence"], row["author"]) == (
        "https://a.invalid, https://b.invalid",
        "CC0",
        None,
    )


def test_a_list_of_wishes_is_read_as_other_systems_write_it(tmp_path: Path) -> None:
    path = tmp_path / "wishes.txt"
    lines = f"\ufeffURL : {WISHED}\r\nurl:https://b.invalid/1\t# why\r\n"
    path.write_bytes((lines + "id:cafe\u0301.jpg\t# a name\r\n").encode())
    listed = OptOuts(ScreenSettings(opt_out=str(path)))
    assert listed.naming({"source_url": WISHED}) == {1}
    assert listed.naming({"source_url": "https://b.invalid/1"}) == {2}
    assert listed.naming({"file_name": "caf\u00e9.jpg"}) == {3}
    path.write_bytes((lines + f"SHA256: {'A' * 64}\r\n").encode())
    request = read_requests(str(path))
    assert {normal(url, False) for url in request.urls} == {normal(WISHED, False), "https://b.invalid/1"}
    assert request.sent == {"a" * 64}


def test_a_name_opts_out_every_photo_that_the_collection_calls_so(tmp_path: Path) -> None:
    path = tmp_path / "wishes.txt"
    path.write_text("id:a.tar/K.jpg\nid:B.JPG\n")
    listed = OptOuts(ScreenSettings(opt_out=str(path)))
    for key in ("a.tar/k.jpg", "a.tar/k.jpg~2", "a.tar~3/k.jpg", "A.tar/k.JPG"):
        assert listed.naming({"source_key": key, "file_name": "k.jpg"}) == {1}
    assert listed.naming({"source_key": "x/b.jpg", "file_name": "b.jpg"}) == {2}
    assert not listed.naming({"source_key": "b.tar/k.jpg", "file_name": "k.jpg"})
