"""The dataset's card: README.md and croissant.json say what the dataset and its run's ledger say."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow.parquet as pq
import pytest
import yaml

import persona
from curation.packing.plan import telling_settings
from curation.settings import PipelineSettings
from shards.format.dataset import dataset_checksum
from shards.tools.verify import verify
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import files_of, settings, write_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people; one file is no photo, one photo's record cannot be read, one is a copy."""
    folder = tmp_path_factory.mktemp("card")
    photos = write_folder(folder / "photos", collection(8, people=6, outfits=1))
    (photos / "no-picture.jpg").write_bytes(b"no picture")
    write_unreadable(photos, "broken")
    shutil.copy(photos / "photo-00000.jpg", photos / "copy.jpg")
    (photos / "photo-00003.json").write_text(json.dumps({"licence": "CC0-1.0 | <b>"}))
    config = write_config(folder / "pipelines.yaml", settings(photos))
    curate(config, folder / "run")
    return folder / "run"


def write_unreadable(photos: Path, name: str) -> None:
    """A photo whose `.json` is broken: it fails."""
    shutil.copy(photos / "photo-00001.jpg", photos / f"{name}.jpg")
    (photos / f"{name}.json").write_text("{")


def curate(config: Path, out: Path, *words: str) -> None:
    command = ["curate", "drawn", "--config", str(config), "--out", str(out), "--engine", "inline", "--quiet"]
    assert persona.main([*command, *words]) == 0


def shards(*words: str | Path) -> int:
    return persona.main(["shards", *map(str, words)])


def header_of(dataset: Path) -> dict[str, Any]:
    _, header, _ = (dataset / "README.md").read_text().split("---\n", 2)
    return dict(yaml.safe_load(header))


def rows_of_table(dataset: Path, head: str) -> list[list[str]]:
    """The cells of the card's table that begins with this head."""
    _, _, rest = (dataset / "README.md").read_text().partition(f"| {head} |")
    lines = rest.split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").replace("\\|", "¦").split("|")] for line in lines]


def croissant(dataset: Path) -> mlcroissant.Dataset:
    return mlcroissant.Dataset(str(dataset / "croissant.json"))


def test_the_header_is_yaml_and_the_counts_are_those_of_the_ledger(run: Path) -> None:
    header = header_of(run / "shards")
    assert header["pretty_name"] == "drawn"
    told = {
        row[0]: row[1:]
        for row in rows_of_table(run / "shards", "stage | unit | in | kept | rejected | failed | reasons")
    }
    summary = json.loads((run / "summary.json").read_text())
    assert told == {
        entry["stage"]: [
            entry["unit"], *(str(entry[name]) for name in ("in", "kept", "rejected", "failed")),
            ", ".join(f"{name} {count}" for name, count in sorted(entry["reasons"].items())),
        ]
        for entry in summary["stages"]
    }  # fmt: skip
    assert told["copies"][-1] == "exact_copy 1"
    card = (run / "shards" / "README.md").read_text()
    assert "1 by read" in card  # under the known limits: nobody knows what it was
    assert "| `photos.screen.min_side_px` | `100` |" in card


def test_the_header_names_data_files_that_are_one_table_of_all_groups_also_after_a_forget(
    run: Path, tmp_path: Path
) -> None:
    """What Hugging Face `datasets` does with `configs`: it reads the files as rows of one schema."""
    data = tmp_path / "data"
    shutil.copytree(run / "shards", data)
    for _ in range(2):
        about = json.loads((data / "dataset.json").read_text())
        (config,) = header_of(data)["configs"]
        files = list(data.glob(config["data_files"]))
        assert [file.suffix for file in files] == [".parquet"]
        rows = pq.read_table(files[0]).to_pylist()
        assert len(rows) == about["groups"]
        assert sum(row["people"] for row in rows) == about["photos"]
        assert shards("forget", data, "--key", rows[0]["key"]) == 0


def test_text_of_the_collection_cannot_break_a_table(run: Path) -> None:
    licences = rows_of_table(run / "shards", "licence | photos")
    assert licences == [["CC0-1.0 ¦ &lt;b>", "1"], ["not stated", "17"]]


def test_croissant_passes_its_own_validator_and_its_groups_are_the_index(run: Path) -> None:
    described = croissant(run / "shards")
    assert not described.metadata.ctx.issues.errors
    index = pq.read_table(run / "shards" / "index.parquet").to_pylist()
    read = list(described.records("groups"))
    assert [row["groups/key"].decode() for row in read] == [row["key"] for row in index]
    for name in ("people", "shard", "offset", "length"):
        assert [row[f"groups/{name}"] for row in read] == [row[name] for row in index]


def test_no_place_of_this_machine_is_in_the_card(run: Path) -> None:
    for name in ("README.md", "croissant.json", "dataset.json"):
        text = (run / "shards" / name).read_text()
        assert str(run.parent) not in text, name
        assert "/tmp/" not in text, name


def test_a_place_that_a_setting_holds_without_saying_so_is_not_told(run: Path) -> None:
    pipeline = PipelineSettings.model_validate(settings(run.parent / "photos"))
    by = pipeline.people.segment.by
    for place in ("/data/words.txt", "~/words.txt", "s3://words/of-us.txt", "C:\\words.txt"):
        held = pipeline.people.segment.model_copy(update={"by": by.model_copy(update={"model": place})})
        people = pipeline.people.model_copy(update={"segment": held})
        told = telling_settings(pipeline.model_copy(update={"people": people}))
        assert place not in told.values()
    named = pipeline.people.segment.model_copy(update={"by": by.model_copy(update={"model": "owner/name"})})
    people = pipeline.people.model_copy(update={"segment": named})
    assert "owner/name" in telling_settings(pipeline.model_copy(update={"people": people})).values()


def test_a_photo_that_leaves_no_group_is_still_counted_when_it_comes_later(run: Path, tmp_path: Path) -> None:
    """The card of a run that went on is that of a fresh one, though no shard changed."""
    photos = tmp_path / "photos"
    shutil.copytree(run.parent / "photos", photos)
    config = write_config(tmp_path / "pipelines.yaml", settings(photos))
    curate(config, tmp_path / "run")
    tars = {name: data for name, data in files_of(tmp_path / "run/shards").items() if name.endswith(".tar")}
    write_unreadable(photos, "zz-broken")
    curate(config, tmp_path / "run")
    curate(config, tmp_path / "fresh")
    assert files_of(tmp_path / "run/shards") == files_of(tmp_path / "fresh/shards")
    assert tars.items() <= files_of(tmp_path / "run/shards").items()
    assert "2 by read" in (tmp_path / "run/shards/README.md").read_text()


def test_forget_and_the_copying_tools_keep_the_card_true(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(run / "shards", data)
    identity = pq.read_table(data / "index.parquet")["key"][0].as_py().partition("-")[0]
    assert shards("forget", data, "--identity", identity) == 0
    assert shards("reshard", data, "--out", tmp_path / "other", "--max-samples", "2") == 0
    for dataset in (data, tmp_path / "other"):
        about = json.loads((dataset / "dataset.json").read_text())
        told = dict(rows_of_table(dataset, " | "))
        assert {name: told[name] for name in ("groups", "photos", "identities", "shards", "revision")} == {
            "groups": "5", "photos": "15", "identities": "5", "revision": "1",
            "shards": str(len(about["shards"])),
        }  # fmt: skip
        assert not verify(str(dataset)).problems
        described = croissant(dataset)
        assert not described.metadata.ctx.issues.errors
        assert len(list(described.records("groups"))) == 5
        assert rows_of_table(dataset, "stage | unit | in | kept | rejected | failed | reasons")


def test_verify_names_a_card_that_is_missing_and_takes_a_dataset_of_before_that_has_one_file(
    run: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(run / "shards", data)
    (data / "croissant.json").unlink()
    assert [(found.file, found.says) for found in verify(str(data)).problems] == [
        ("croissant.json", "is missing")
    ]
    about = json.loads((data / "dataset.json").read_text())
    about.pop("card")
    about["checksum"] = dataset_checksum(about)
    (data / "dataset.json").write_text(json.dumps(about))
    assert not verify(str(data)).problems
