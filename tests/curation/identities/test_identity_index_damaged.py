"""A damaged identity index: every command names the file in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import ConfigError
from curation.identities.faces import Collector
from curation.identities.index import IdentityIndex
from persona import main
from tests.curation.identities.test_identity_index import curate_faces, new_index

READERS = {
    "list": [],
    "propose": ["--merge-cosine", "0.4"],
    "accept": ["--all"],
    "forget": ["--person", "0" * 64 + "-0"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of four faces of two people, with a proposal between them."""
    angles = np.radians([0, 4, 76, 80])
    index = new_index(tmp_path / "index")
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("<f4")
    first, *_, last = curate_faces(tmp_path, "a", vectors, [0, 1, 2, 3], index).values()
    merges = index.merges
    merges.propose(first, last, 0.4)
    merges.save()
    return tmp_path / "index"


def said_by(folder: Path, action: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that must fail."""
    assert main(["identities", action, str(folder), *READERS[action]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def faces_file(folder: Path) -> Path:
    (path,) = folder.glob("faces-*.parquet")
    return path


def changed(table: pa.Table, column: str, values: list[Any]) -> pa.Table:
    place = table.schema.get_field_index(column)
    return table.set_column(place, column, pa.array(values))


@pytest.mark.parametrize("action", READERS)
@pytest.mark.parametrize("junk", [b"junk", b"PAR1" + bytes(64) + b"PAR1", b""])
def test_a_file_of_faces_that_is_junk_is_named(
    folder: Path, action: str, junk: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = faces_file(folder)
    path.write_bytes(junk)
    assert path.name in said_by(folder, action, capsys)


@pytest.mark.parametrize("action", READERS)
def test_a_file_of_faces_with_other_columns_is_named(
    folder: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = faces_file(folder)
    whole = pq.read_table(path)
    for table in (
        pa.table({"a": [1]}),
        whole.drop_columns(["identity"]),
        changed(whole, "identity", [1, 2, 3, 4]),
        changed(whole, "identity", ["a", None, "c", "d"]),
    ):
        pq.write_table(table.replace_schema_metadata(whole.schema.metadata), path)
        assert path.name in said_by(folder, action, capsys)


@pytest.mark.parametrize("embeddings", [[b"abc"] * 4, [b""] * 4, [b"abcd", b"abcdabcd", b"abcd", b"abcd"]])
def test_embeddings_that_are_no_vectors_of_one_length_are_named(
    folder: Path, embeddings: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    path = faces_file(folder)
    pq.write_table(changed(pq.read_table(path), "embedding", embeddings), path)
    assert path.name in said_by(folder, "propose", capsys)


def test_files_whose_embeddings_differ_in_length_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = faces_file(folder)
    other = changed(pq.read_table(path), "embedding", [bytes(4)] * 4)
    pq.write_table(changed(other, "person_id", list("abcd")), folder / "faces-zz.parquet")
    assert "faces-zz.parquet" in said_by(folder, "propose", capsys)


@pytest.mark.parametrize("metadata", [{}, {"persona.day": "yesterday"}])
def test_a_file_of_faces_without_its_day_is_named(
    folder: Path, metadata: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = faces_file(folder)
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    assert path.name in said_by(folder, "list", capsys)


@pytest.mark.parametrize(
    "counts", ["x", "7", "[[1]]", '[["a", 1]]', "[[2000, 1]]", "[[5, -1]]", "[[1e400, 1]]"]
)
def test_cosines_of_strangers_that_are_no_counts_are_named(folder: Path, counts: str) -> None:
    path = faces_file(folder)
    metadata = {"persona.day": "2026-11-21", "persona.strangers": counts}
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    with pytest.raises(ConfigError, match=f"{path.name}: is damaged: its cosines of strangers"):
        IdentityIndex(str(folder)).load(Collector())


@pytest.mark.parametrize("action", READERS)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cosine", "x"), ("cosine", None), ("cosine", True), ("into", 3), ("other", ""), ("state", "maybe"),
        ("by", None), ("log", "x"), ("log", [["now"]]), ("log", [[1, "proposed"]]), ("more", 1),
    ],
)  # fmt: skip
def test_a_wrong_value_in_merges_json_is_named(
    folder: Path, action: str, key: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "merges.json"
    (entry,) = json.loads(path.read_text())
    path.write_text(json.dumps([{**entry, key: value}]))
    line = said_by(folder, action, capsys)
    assert str(path) in line
    assert key in line


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[{}]", '[{"cosine": NaN}]', "\xff"])
def test_a_merges_json_that_is_something_else_is_named(
    folder: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "merges.json").write_bytes(text.encode("latin-1"))
    assert str(folder / "merges.json") in said_by(folder, "list", capsys)
