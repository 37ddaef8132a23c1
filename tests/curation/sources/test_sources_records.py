"""A photo's record is found wherever it stands; where it cannot be told, the photo is not let in."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from curation.settings.source import SourceSettings
from curation.sources.photo_bytes import PhotoBytes
from curation.sources.rows import SourceRow
from curation.sources.units import list_units, unit_rows
from tests.drawn_tars import (
    END,
    FOLDER,
    GNU,
    HARD_LINK,
    SYMBOLIC_LINK,
    V7,
    content,
    gnu_long_name,
    header,
    member,
    pax,
    tar_of,
)

APPLE = b"\0\x05\x16\x07" + bytes(60)  # what macOS lays beside a file, as ._NAME


def record(number: int | str) -> bytes:
    return json.dumps({"url": f"https://photos.invalid/{number}", "license": f"L{number}"}).encode()


def photo(number: int | str) -> bytes:
    return f"picture {number}".encode()


def listed(path: Path, kind: str = "webdataset") -> dict[str, SourceRow]:
    """Rows by source_key without the unit's label."""
    source = SourceSettings(kind=kind, path=str(path))  # type: ignore[arg-type]
    rows = [row for unit in list_units(source) for row in unit_rows(unit, source)]
    found = {row.source_key.partition("/")[2] or row.source_key: row for row in rows}
    assert len(found) == len(rows)
    return found


def write(folder: Path, data: bytes) -> Path:
    (folder / "a.tar").write_bytes(data)
    return folder / "a.tar"


def told(rows: dict[str, SourceRow]) -> dict[str, str | None]:
    """{photo: its licence}; of one that is not let in, the reason."""
    return {name: row.source_error or row.licence for name, row in rows.items()}


def read(row: SourceRow) -> bytes:
    return PhotoBytes(SourceSettings(kind="webdataset", path="x")).read(vars(row))


PAIRS = [(f"k{n}.jpg", photo(n)) for n in range(3)], [(f"k{n}.json", record(n)) for n in range(3)]
ORDERS: dict[str, list[tuple[str, bytes]]] = {
    "side by side": [one for pair in zip(*PAIRS, strict=True) for one in pair],
    "all photos, then all records": [*PAIRS[0], *PAIRS[1]],
    "all records, then all photos": [*PAIRS[1], *PAIRS[0]],
    "records the other way round": [*PAIRS[0], *reversed(PAIRS[1])],
    "foreign members between": [
        one
        for pair in zip(*PAIRS, strict=True)
        for name, data in pair
        for one in ((f"._{name}", APPLE), (name, data), (f"PaxHeaders.7/{name[:2]}", b"20 mtime=1\n"))
        if not one[0].endswith(".jpg") or not one[0].startswith("._")
    ],
    "an album's own file": [*PAIRS[0], (".DS_Store", b"\0\0\0\1Bud1"), *PAIRS[1]],
    "capitals": [
        (name.replace(".j", ".J").replace("pg", "PG"), data) for pair in PAIRS for name, data in pair
    ],
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_record_is_found_wherever_it_stands_in_its_tar(order: str, tmp_path: Path) -> None:
    rows = listed(write(tmp_path, tar_of(ORDERS[order])))
    assert [row.licence for row in rows.values()] == ["L0", "L1", "L2"]
    assert [row.source_url for row in rows.values()] == [f"https://photos.invalid/{n}" for n in range(3)]
    assert [read(row) for row in rows.values()] == [photo(n) for n in range(3)]


BOTH = pytest.mark.parametrize("kind", ["webdataset", "folder"])


def collection(folder: Path, kind: str, members: list[tuple[str, bytes]]) -> Path:
    """The members as a tar, or as files."""
    if kind == "webdataset":
        return write(folder, tar_of(members))
    for name, data in members:
        (folder / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "c" / name).write_bytes(data)
    return folder / "c"


@BOTH
@pytest.mark.parametrize(
    ("name", "beside", "wanted"),
    [
        ("k.000.jpg", ["k.json", "k.000.json", "k.001.json"], "k.000.json"),
        ("k.left.jpg", ["k.left.json", "k.json"], "k.left.json"),
        ("k.left.jpg", ["k.json"], "k.json"),
        ("john.smith.0.jpg", ["john.smith.0.json", "john.smith.json", "john.json"], "john.smith.0.json"),
        ("john.smith.0.jpg", ["john.smith.json", "john.json"], "john.smith.json"),
        ("john.smith.0.jpg", ["john.json"], "john.json"),
        ("k.jpg", ["k.jpg.json", "k.json"], "k.jpg.json"),
        ("a.b/k.jpg", ["a.json", "a.b/k.json"], "a.b/k.json"),
        ("K.JPG", ["K.JSON"], "K.JSON"),
    ],
)
def test_a_photo_has_the_record_of_the_longest_beginning_of_its_name(
    kind: str, name: str, beside: list[str], wanted: str, tmp_path: Path
) -> None:
    members = [(other, record(other)) for other in beside]
    rows = listed(collection(tmp_path, kind, [*members, (name, photo(0))]), kind)
    assert told(rows) == {name: f"L{wanted}"}


def test_a_photo_whose_record_cannot_be_told_is_failed_by_name(tmp_path: Path) -> None:
    twice = [("k.jpg", photo(0)), ("k.json", record(0)), ("k.json", record(1))]
    assert told(listed(write(tmp_path, tar_of(twice)))) == {
        "k.jpg": "2 records claim it: 'k.json' is there 2 times"
    }
    elsewhere = [("images/0.jpg", photo(0)), ("records/0.json", record(0))]
    assert told(listed(write(tmp_path, tar_of(elsewhere)))) == {
        "images/0.jpg": "its record cannot be told: it has none, and '0.json' belongs to no photo"
    }
    mate = [("k.left.jpg", photo(0)), ("k.left.json", record(0)), ("k.right.jpg", photo(1))]
    assert told(listed(write(tmp_path, tar_of(mate)))) == {
        "k.left.jpg": "L0",
        "k.right.jpg": "its record cannot be told: "
        "its sample has 'k.left.json', which does not begin its name",
    }


def test_photos_without_records_are_let_in_where_nothing_speaks_of_one(tmp_path: Path) -> None:
    alone = [("a.jpg", photo(0)), ("b.jpg", photo(1)), ("readme.md", b"#")]
    assert told(listed(write(tmp_path, tar_of(alone)))) == {"a.jpg": None, "b.jpg": None}
    some = [("a.jpg", photo(0)), ("a.json", record(0)), ("b.jpg", photo(1)), ("a.extra.json", b"{}")]
    assert told(listed(write(tmp_path, tar_of(some)))) == {"a.jpg": "L0", "b.jpg": None}


def test_a_record_beside_no_photo_makes_suspect_what_lies_in_its_folder_or_is_called_as_it_is(
    tmp_path: Path,
) -> None:
    files = [("one/a.jpg", photo(0)), ("one/x.json", record(9)), ("two/b.jpg", photo(1)), ("two/k.jpg", b"k")]
    folder = collection(tmp_path, "folder", [*files, ("meta/K.json", record(8))])
    assert told(listed(folder, "folder")) == {
        "one/a.jpg": "its record cannot be told: it has none, and 'x.json' belongs to no photo",
        "two/b.jpg": None,
        "two/k.jpg": "its record cannot be told: it has none, and 'K.json' belongs to no photo",
    }


@BOTH
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"license": "CC0"', "its .json is broken: "),
        (b"[1]", "its .json is broken: it holds no object but list"),
        (b'"x"', "its .json is broken: it holds no object but str"),
        (
            b'{"url": "https://a.invalid", "url": "https://b.invalid"}',
            "its .json is broken: it has 'url' twice",
        ),
        (b'{"license": "CC0"}'.ljust(2**20 + 1), "its .json has 1048577 bytes, more than 1048576"),
    ],
)
def test_a_record_that_cannot_be_used_fails_its_photo(
    kind: str, data: bytes, says: str, tmp_path: Path
) -> None:
    rows = listed(collection(tmp_path, kind, [("a.jpg", photo(0)), ("a.json", data)]), kind)
    assert str(told(rows)["a.jpg"]).startswith(says)


@BOTH
def test_files_that_macos_lays_beside_others_are_no_records(kind: str, tmp_path: Path) -> None:
    names = ["a.jpg", "a.json", "b.jpg", "b.json"]
    own = [("a.jpg", photo(0)), ("a.json", record(0)), ("b.jpg", photo(1)), ("b.json", record(1))]
    rows = listed(collection(tmp_path, kind, [*own, *((f"._{name}", APPLE) for name in names)]), kind)
    assert told(rows) == {"a.jpg": "L0", "b.jpg": "L1", "._a.jpg": None, "._b.jpg": None}


@BOTH
def test_label_maps_of_our_own_are_no_photos_and_foreign_pictures_of_that_name_are(
    kind: str, tmp_path: Path
) -> None:
    files = [("k.000.jpg", photo(0)), ("k.000.regions.png", b"map"), ("my.regions.png", photo(1))]
    assert set(listed(collection(tmp_path, kind, files), kind)) == {"k.000.jpg", "my.regions.png"}


def test_one_photo_given_alone_has_its_record(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo(0))
    (tmp_path / "a.json").write_bytes(record(0))
    for path in (tmp_path / "a.jpg", tmp_path / "*.jpg"):
        assert told(listed(path, "folder")) == {"a.jpg": "L0"}
    before = list_units(SourceSettings(path=str(tmp_path / "a.jpg")))
    (tmp_path / "a.json").write_bytes(record(12))
    assert list_units(SourceSettings(path=str(tmp_path / "a.jpg"))) != before


def test_names_in_capitals_are_understood_as_large_collections_write_them(tmp_path: Path) -> None:
    said = json.dumps({"URL": "https://photos.invalid/a", "LICENSE": "CC0", "TEXT": "t"}).encode()
    row = listed(write(tmp_path, tar_of([("a.jpg", photo(0)), ("a.json", said)])))["a.jpg"]
    assert (row.source_url, row.licence) == ("https://photos.invalid/a", "CC0")


# --- dialects ------------------------------------------------------------------------------------

LONG = b"folder/" * 20 + b"k"
TIMES = {345: b"14473552512\0", 357: b"14473552512\0"}  # GNU's old headers: access and change
DIALECTS: dict[str, tuple[bytes, Callable[[bytes, bytes], bytes]]] = {
    "v7": (b"k", lambda name, data: member(name, data, magic=V7)),
    "ustar with a prefix": (
        b"p" * 99 + b"/k",
        lambda name, data: member(name[100:], data, fields={345: name[:99]}),
    ),
    "old GNU with times": (b"k", lambda name, data: member(name, data, magic=GNU, fields=TIMES)),
    "GNU with long names": (
        LONG,
        lambda name, data: gnu_long_name(name) + member(name[:99], data, magic=GNU),
    ),
    "GNU with a size in base 256": (
        b"k",
        lambda name, data: member(
            name, data, magic=GNU, fields={124: b"\x80" + len(data).to_bytes(11, "big")}
        ),
    ),
    "pax": (LONG, lambda name, data: pax(path=name.decode()) + member(name[:99], data)),
    "pax with a global header": (
        LONG,
        lambda name, data: pax(b"g", comment="1") + pax(path=name.decode()) + member(name[:99], data),
    ),
    "star, with times behind a shorter prefix": (
        b"p" * 90 + b"/k",
        lambda name, data: member(
            name[91:],
            data,
            fields={345: name[:90], 476: b"14473552512 ", 488: b"14473552512 ", 508: b"tar\0"},
        ),
    ),
    "Go before 1.8": (
        b"2024/" + b"p" * 90 + b"/k",
        lambda name, data: member(name[96:], data, magic=GNU, fields={345: name[:95]}),
    ),
    "a sum of signed bytes": ("ключ".encode(), lambda name, data: member(name, data, magic=V7, signed=True)),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_record_is_found_in_every_dialect_of_tar(dialect: str, tmp_path: Path) -> None:
    name, make = DIALECTS[dialect]
    data = make(name + b".jpg", photo(0)) + make(name + b".json", record(0)) + END
    rows = listed(write(tmp_path, data))
    assert told(rows) == {name.decode() + ".jpg": "L0"}
    assert read(rows[name.decode() + ".jpg"]) == photo(0)


def test_what_is_no_plain_file_is_failed_as_what_it_is_and_the_walk_goes_on(tmp_path: Path) -> None:
    sparse = header(b"s.jpg", 512, b"S", GNU, {482: b"\1"})
    data = (
        member("a.jpg", photo(0))
        + header(b"hard.jpg", 999, HARD_LINK, fields={157: b"a.jpg"})  # states the size of what it names
        + header(b"copy.jpg", 5, HARD_LINK, fields={157: b"a.jpg"})
        + content(b"bytes")  # pax with copies
        + header(b"soft.jpg", 0, SYMBOLIC_LINK, fields={157: b"../a.jpg"})
        + header(b"folder.jpg/", 0, FOLDER)
        + sparse
        + bytes(512)  # the rest of its map
        + bytes(512)
        + pax(b"x", **{"GNU.sparse.major": "1", "GNU.sparse.name": "p.jpg"})
        + member("GNUSparseFile.1/p.jpg", b"x")
        + member("b.jpg", photo(1))
        + header(b"b.json", 0, SYMBOLIC_LINK, fields={157: b"a.json"})
        + member("c.jpg", photo(2))
        + END
    )
    rows = listed(write(tmp_path, data))
    assert told(rows) == {
        "a.jpg": None,
        "hard.jpg": "the tar member is a hard link to 'a.jpg'",
        "copy.jpg": "the tar member is a hard link to 'a.jpg'",
        "soft.jpg": "the tar member is a symbolic link to '../a.jpg'",
        "s.jpg": "the tar member is a sparse file",
        "p.jpg": "the tar member is a sparse file",
        "b.jpg": "its .json is a symbolic link to 'a.json'",
        "c.jpg": None,
    }
    assert read(rows["c.jpg"]) == photo(2)


def test_an_odd_name_harms_nobody(tmp_path: Path) -> None:
    odd = ["../../etc/x", "/abs/x", "x/../y", "caf\udce9"]
    data = b"".join(
        member(f"{name}{end}".encode("utf-8", "surrogateescape"), body)
        for name in odd
        for end, body in ((".jpg", photo(0)), (".json", record(0)))
    )
    rows = listed(write(tmp_path, data + END))
    assert list(rows) == ["../../etc/x.jpg", "/abs/x.jpg", "x/../y.jpg", "caf\\udce9.jpg"]
    assert {row.licence for row in rows.values()} == {"L0"}


# --- tars that were joined, appended to, or broken -----------------------------------------------


def test_tars_joined_by_cat_give_all_their_photos_each_with_its_own_record(tmp_path: Path) -> None:
    one = tar_of([("k.jpg", photo(0)), ("k.json", record(0))]) + bytes(8192)  # GNU pads to 10 KiB
    two = tar_of([("k.json", record(1)), ("k.jpg", photo(1)), ("only.jpg", photo(2))])
    rows = listed(write(tmp_path, one + two))
    assert told(rows) == {"k.jpg": "L0", "k.jpg~2": "L1", "only.jpg": None}
    assert [read(row) for row in rows.values()] == [photo(0), photo(1), photo(2)]


def test_what_follows_the_end_of_a_tar_and_is_none_is_a_failed_row_with_the_byte(tmp_path: Path) -> None:
    one = tar_of([("k.jpg", photo(0)), ("k.json", record(0))])
    rows = listed(write(tmp_path, one + b"signature".ljust(512, b"!")))
    assert rows["k.jpg"].licence == "L0"
    assert f"byte {len(one)}: no tar header" in str(rows["a.tar#broken"].source_error)


def test_a_photo_that_was_appended_once_more_has_the_record_that_was_appended_with_it(
    tmp_path: Path,
) -> None:
    both = [("k.jpg", photo(0)), ("k.json", record(0))]
    again = [("k.json", record(1)), ("k.jpg", photo(1))]
    assert told(listed(write(tmp_path, tar_of([*both, *again])))) == {"k.jpg": "L0", "k.jpg~2": "L1"}
    assert told(listed(write(tmp_path, tar_of([*both, again[1]])))) == {"k.jpg": "L0", "k.jpg~2": "L0"}


def test_a_photo_whose_record_may_lie_behind_the_break_of_its_tar_is_not_let_in(tmp_path: Path) -> None:
    whole = tar_of([("a.jpg", photo(0)), ("a.json", record(0)), ("b.jpg", photo(1)), ("b.json", record(1))])
    rows = listed(write(tmp_path, whole[: 6 * 512 + 100]))
    assert rows["a.jpg"].licence == "L0"
    assert rows["b.jpg"].source_error == "its record may lie behind the break of the tar"
    assert str(rows["a.tar#broken"].source_error).startswith("tar is broken: byte 3072: the tar is cut")


def test_records_of_a_large_tar_are_read_without_holding_them_all(tmp_path: Path) -> None:
    many = 100
    with (tmp_path / "a.tar").open("wb") as file:
        for number in range(many):
            file.write(member(f"{number}.jpg", photo(number)))
        for number in range(many):
            file.write(member(f"{number}.json", record(number).ljust(2**20)))
        file.write(END)
    source = SourceSettings(kind="webdataset", path=str(tmp_path / "a.tar"))
    tracemalloc.start()
    found = [row.licence for row in unit_rows(list_units(source)[0], source)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [f"L{number}" for number in range(many)]
    assert peak < 80 * 2**20
