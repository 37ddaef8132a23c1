"""`persona shards`: what each command prints, writes and returns."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

import persona
from shards.tools.dataset_rows import DatasetRows
from tests.drawn_pipeline import ROOT
from tests.drawn_shards import (
    Samples,
    bytes_of,
    drawn_groups,
    read_by_webdataset,
    shards_of,
    write_dataset,
)


@pytest.fixture
def samples() -> Samples:
    """12 identities with two outfits, three photos each."""
    return drawn_groups(12, outfits=2, photos=3)


@pytest.fixture
def folder(tmp_path: Path, samples: Samples) -> Path:
    """Three shards of 8 groups."""
    return write_dataset(tmp_path / "data", samples)


def _run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = persona.main(["shards", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_verify_says_yes_or_names_what_is_broken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "verify", folder)
    assert code == 0
    assert out.startswith("3 shards, 240 members, ")
    (folder / "000001.tar").unlink()
    code, out, _ = _run(capsys, "verify", folder, "--fast")
    assert (code, out.splitlines()[0]) == (1, "000001.tar: is missing")
    code, out, _ = _run(capsys, "verify", folder, "--json")
    report = json.loads(out)
    assert (code, report["ok"], report["problems"][0]["file"]) == (1, False, "000001.tar")


def test_stats_counts_what_the_index_tells(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "stats", folder, "--json")
    found = json.loads(out)
    assert code == 0
    assert {name: found[name] for name in ("groups", "photos", "identities", "shards", "revision")} == {
        "groups": 24, "photos": 72, "identities": 12, "shards": 3, "revision": 0,
    }  # fmt: skip
    assert found["photos_per_group"] == {"3": 24}
    assert found["regions"] == {"full_body": 0, "head": 72, "torso": 0, "legs": 72, "shoes": 0}
    assert found["aspect"] == {"to 0.667": 24, "to 0.8": 48}
    assert found["caption_words"] == {"captions": 72, "mean": 3.0, "p5": 3, "p50": 3, "p95": 3, "most": 3}
    assert found["licences"] == {"CC0-1.0": 24, "not stated": 48}
    assert found["members"] == {"NNN.jpg": 72, "NNN.json": 72, "NNN.regions.png": 72, "json": 24}
    contents = sum(found["bytes"]["contents"].values())
    assert contents == sum(
        member["length"] for row in DatasetRows(str(folder)).rows(0, 24) for member in row["members"]
    )
    assert "groups            24" in _run(capsys, "stats", folder)[1]


def test_cat_prints_a_record_and_writes_members(
    folder: Path, samples: Samples, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    key = list(samples)[10]
    assert persona.main(["shards", "cat", str(folder), key, "--json"]) == 0
    record = json.loads(capsysbinary.readouterr().out)
    assert record["group"]["identity"] == key[:-2]
    assert record["photos"]["001"]["licence"] == "CC0-1.0"
    assert record["members"]["000.jpg"] == len(samples[key]["000.jpg"])
    assert persona.main(["shards", "cat", str(folder), key, "000.jpg"]) == 0
    assert capsysbinary.readouterr().out == samples[key]["000.jpg"]
    assert persona.main(["shards", "cat", str(folder), key, "001.jpg", "--out", str(tmp_path / "p.jpg")]) == 0
    assert (tmp_path / "p.jpg").read_bytes() == samples[key]["001.jpg"]
    assert persona.main(["shards", "cat", str(folder), key, "--out", str(tmp_path / "all")]) == 0
    assert bytes_of(tmp_path / "all") == {f"{key}.{suffix}": data for suffix, data in samples[key].items()}


def test_diff_tells_keys_and_members(
    folder: Path, samples: Samples, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = list(samples)
    other = {key: members for key, members in samples.items() if key != keys[3]}
    changed = {**samples[keys[5]], "000.jpg": samples[keys[6]]["000.jpg"]}
    del changed["001.regions.png"]
    other = {**other, keys[5]: changed, "ffff-z": samples[keys[0]]}
    write_dataset(tmp_path / "other", other, max_samples=5)
    assert _run(capsys, "diff", folder, tmp_path / "other") == (
        1,
        f"- {keys[3]}\n+ ffff-z\n~ {keys[5]}.000.jpg: other bytes\n~ {keys[5]}.001.regions.png: only in A\n",
        "",
    )
    assert _run(capsys, "diff", folder, folder)[:2] == (0, "")
    found = json.loads(_run(capsys, "diff", folder, tmp_path / "other", "--json")[1])
    assert (found["same"], found["only_a"]) == (False, [keys[3]])


def test_export_to_folders_has_every_member_as_a_file(folder: Path, samples: Samples, tmp_path: Path) -> None:
    out = tmp_path / "f"
    assert persona.main(["shards", "export", str(folder), "--to", "folders", "--out", str(out)]) == 0
    assert bytes_of(out) == {
        f"{key}.{suffix}": data for key, members in samples.items() for suffix, data in members.items()
    }


def test_export_to_parquet_has_a_row_a_photo_with_its_bytes(
    folder: Path, samples: Samples, tmp_path: Path
) -> None:
    out = tmp_path / "p"
    assert persona.main(["shards", "export", str(folder), "--to", "parquet", "--out", str(out)]) == 0
    table = pq.read_table(out / "data")
    rows = table.to_pylist()
    key = list(samples)[4]
    assert [row["image"]["bytes"] for row in rows if row["key"] == key] == [
        samples[key][f"00{number}.jpg"] for number in range(3)
    ]
    row = next(row for row in rows if row["key"] == key)
    assert Image.open(io.BytesIO(row["image"]["bytes"])).size == (row["width"], row["height"])
    assert json.loads(row["record"]) == json.loads(samples[key]["000.json"])
    assert row["regions_map"] == samples[key]["000.regions.png"]
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert list(features) == table.column_names


def test_export_to_images_is_a_dataset_of_single_photos(
    folder: Path, samples: Samples, tmp_path: Path
) -> None:
    out = tmp_path / "images"
    assert persona.main(["shards", "export", str(folder), "--to", "images", "--out", str(out)]) == 0
    read = read_by_webdataset(shards_of(out))
    key = list(samples)[7]
    assert len(read) == 72
    assert read[f"{key}-002"]["jpg"] == samples[key]["002.jpg"]
    assert read[f"{key}-002"]["txt"] == f"one of {key}".encode()
    assert json.loads(read[f"{key}-002"]["json"])["group"] == key
    assert persona.main(["shards", "verify", str(out)]) == 0


def test_an_export_does_not_overwrite(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = _run(capsys, "export", folder, "--to", "folders", "--out", folder)
    assert (code, err) == (1, f"persona: {folder}: is there already; name a folder that is new\n")


def test_merge_split_reshard_and_index_write_what_verify_approves(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = write_dataset(tmp_path / "more", drawn_groups(5, seed=9))
    everything, train, rest, large = (tmp_path / name for name in ("all", "train", "rest", "large"))
    assert _run(capsys, "merge", folder, more, "--out", everything)[0] == 0
    assert _run(capsys, "split", everything, "--out", train, rest, "--by", "0.7,0.3")[0] == 0
    code, out, _ = _run(capsys, "reshard", train, "--out", large, "--max-samples", 4, "--json")
    assert (code, json.loads(out)["shards"]) == (0, len(shards_of(large)))
    (large / "index.parquet").unlink()
    assert _run(capsys, "index", large)[0] == 0
    for out_ in (everything, train, rest, large):
        assert _run(capsys, "verify", out_)[0] == 0


def test_forget_takes_ids_from_words_and_from_a_list(
    folder: Path, samples: Samples, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = list(samples)
    photo = hashlib.sha256(samples[keys[8]]["000.jpg"]).hexdigest()
    listed = tmp_path / "people.txt"
    listed.write_text(f"# asked by mail\nkey:{keys[20]}\n\nsha256:{photo.upper()}  # one photo\n")
    words = ("forget", folder, "--identity", keys[0][:-2], "--from", listed)
    told = json.loads(_run(capsys, *words, "--dry-run", "--json")[1])
    assert told == {
        "revision": 1, "groups_dropped": 3, "groups_edited": 1, "photos": 10, "shards_rewritten": 3,
        "missing": 0, "stale_side_files": [],
    }  # fmt: skip
    code, out, _ = _run(capsys, *words, "--json")
    assert (code, json.loads(out)) == (0, told)
    assert _run(capsys, *words)[0] == 0  # once more: nothing is left to do
    assert _run(capsys, "verify", folder)[0] == 0
    code, _, err = _run(capsys, "forget", folder, "--key", "nobody")
    assert (code, err.count("\n")) == (1, 1)
    listed.write_text("phash:0123456789abcdef\n")
    code, _, err = _run(capsys, "forget", folder, "--from", listed)
    assert (code, err.splitlines()[0][: len(f"persona: {listed}:1: ")]) == (1, f"persona: {listed}:1: ")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["stats", "nowhere"], 2, "nowhere: no such folder"),
        (["verify", "nope://a/b"], 1, "nope://a/b: cannot be opened: Protocol not known: nope"),
        (["index", "s3://bucket/data"], 2, "must be a path on a disk"),
        (["reshard", "{data}", "--out", "s3://bucket/data"], 2, "must be a path on a disk"),
        (["stats", "ftp://bucket/data"], 1, "ftp://bucket/data: "),
        (["forget", "ftp://bucket/data", "--key", "a"], 1, "ftp://bucket/data: "),
        (["stats", "{tmp}"], 1, "no dataset.json"),
        (["cat", "{data}", "nobody"], 1, "no sample 'nobody'"),
        (["cat", "{data}", "{key}", "900.jpg"], 1, "no member '900.jpg'; it has json, 000.jpg"),
        (["split", "{data}", "--out", "{tmp}/a", "{tmp}/b", "--by", "0.9,x"], 2, "split --by 0.9,x"),
        (["split", "{data}", "--out", "{tmp}/a", "{tmp}/b", "--by", "0.9,0.2"], 2, "add up to 1"),
        (["split", "{data}", "--out", "{tmp}/a", "{tmp}/b", "--keys", "{tmp}/none"], 2, "No such file"),
        (["reshard", "{data}", "--out", "{tmp}/a", "--max-samples", "0"], 2, "must be positive"),
        (["reshard", "{data}", "--out", "{data}"], 1, "already holds a dataset"),
        (["verify", "{data}", "--processes", "0"], 2, "--processes 0: at least 1"),
        (["forget", "{data}", "--tombstones", "{data}/README.md"], 1, "README.md:1: "),
        (["index", "{tmp}"], 1, "holds no .tar"),
    ],
)
def test_bad_input_is_one_line_and_a_code(
    words: list[str],
    code: int,
    says: str,
    folder: Path,
    samples: Samples,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [word.format(tmp=tmp_path, data=folder, key=next(iter(samples))) for word in words]
    before = bytes_of(folder)
    got, out, err = _run(capsys, *filled)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert err.startswith("persona: ")
    assert says in err
    assert bytes_of(folder) == before


@pytest.mark.parametrize("value", [None, 5, "x", [1], {"a": 1}])
@pytest.mark.parametrize(
    "key", ["schema", "shards", "groups", "photos", "index", "bytes", "history", "replaced", "revision"]
)
def test_a_dataset_json_of_nonsense_is_never_a_traceback(
    key: str,
    value: object,
    folder: Path,
    samples: Samples,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**about, key: value}))
    code, out, _ = _run(capsys, "verify", folder, "--fast")
    assert code == 1
    assert "dataset.json: " in out
    out_ = tmp_path / "out"
    for words in (
        ["index", folder],
        ["stats", folder],
        ["cat", folder, next(iter(samples)), "json"],
        ["reshard", folder, "--out", out_],
        ["forget", folder, "--key", next(iter(samples))],
    ):
        code, _, err = _run(capsys, *words)
        assert code in (0, 1)
        assert err.count("\n") == code


def test_forget_deletes_nothing_outside_its_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**about, "replaced": ["../mine.txt"]}))
    assert _run(capsys, "forget", folder, "--key", "nobody")[0] == 1
    assert (tmp_path / "mine.txt").exists()


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    names = "index verify stats cat diff merge split reshard export forget"
    for name in names.split():
        with pytest.raises(SystemExit) as left:
            persona.main(["shards", name, "--help"])
        assert left.value.code == 0
        assert f"example:\n  persona shards {name} " in capsys.readouterr().out


def test_tools_need_neither_opencv_nor_a_client_of_object_stores() -> None:
    imported = (
        "import sys, shards.tools.stats, shards.tools.verify, shards.tools.export, shards.tools.forget; "
    )
    told = subprocess.run(
        [sys.executable, "-c", f"{imported}print(*{{'cv2', 'obstore', 's3fs', 'torch'}} & set(sys.modules))"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    assert told.strip() == ""
