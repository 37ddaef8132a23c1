"""What people and publishers wish is heeded as a collection comes in: opt-outs, consent, licences, age."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import ConfigError
from curation.models import Model
from curation.people.transformers_backends import TransformersClassifier
from curation.settings.people import TransformersClassifierSettings
from persona import main
from shards.format.dataset_tombstones import tombstone
from tests.drawn_people import HEAD, collection, draw, jpeg_of
from tests.drawn_pipeline import asked, photos_with_people, rows_of, settings, write_config
from tests.drawn_tars import END, GNU, member, tar_of

MINOR, NSFW = 4, 8  # numbers of the photos that the drawn classifiers point at
_MAGENTA, _GREEN = (255, 0, 255), (0, 255, 0)


class MarkedClassifier:
    """Certain where a picture shows the colour of `options.colour`."""

    def __init__(self, settings: Any, models: Any) -> None:
        self._colour = np.array(settings.options["colour"])

    def score(self, pictures: list[np.ndarray]) -> np.ndarray:
        near = [np.abs(picture.astype(int) - self._colour).max(axis=2) < 30 for picture in pictures]
        return np.array([0.9 if marked.mean() > 0.02 else 0.05 for marked in near], np.float32)


def curate(folder: Path, pipeline: dict[str, Any], name: str = "run", *, may_be_empty: bool = True) -> Path:
    """Runs the pipeline in this process; returns its run folder."""
    config = write_config(folder / f"{name}.yaml", pipeline)
    run = folder / name
    words = ["curate", "drawn", "--config", str(config), "--out", str(run), "--engine", "inline", "--quiet"]
    assert main([*words, "--allow-empty"] if may_be_empty else words) == (0 if may_be_empty else 1)
    return run


def endings(run: Path, barrier: str, key: str = "file_name") -> dict[str, str]:
    """{name: the reason of its last decision, empty where it was kept}."""
    rows = rows_of(run / barrier, [key, "verdict", "decisions"])
    return {row[key]: "" if row["verdict"] == "kept" else row["decisions"][-1]["reason"] for row in rows}


def write_table(folder: Path, **columns: list[Any]) -> Path:
    folder.mkdir()
    images = pa.array([photo.jpeg for photo in collection(5, people=1)][: len(columns["key"])], pa.binary())
    pq.write_table(pa.table({"image": images, **columns}), folder / "photos.parquet")
    return folder


def test_licence_and_consent_are_read_from_the_columns_that_the_collection_has(tmp_path: Path) -> None:
    folder = write_table(
        tmp_path / "photos",
        key=["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
        rights=["CC-BY-4.0", "all reserved", "CC-BY-4.0", None],
        release=["yes", "yes", "no", "yes"],
        license=["CC-BY-4.0"] * 4,  # what it calls licence is another thing: not looked at
    )
    pipeline = settings(folder, kind="parquet")
    pipeline["source"]["columns"] = {"licence": "rights", "consent": "release"}
    pipeline["photos"]["screen"] |= {"licences": ["CC-BY-4.0"], "consent": True}
    run = curate(tmp_path, pipeline)
    assert endings(run, "photos") == {
        "a.jpg": "",
        "b.jpg": "licence",
        "c.jpg": "no_consent",
        "d.jpg": "licence",
    }


def test_a_column_that_the_collection_does_not_have_fails_it_instead_of_letting_it_in(tmp_path: Path) -> None:
    folder = write_table(tmp_path / "photos", key=["a.jpg"], rights=["CC0"])
    pipeline = settings(folder, kind="parquet", max_failed_share=1)
    pipeline["source"]["columns"] = {"licence": "rihgts"}
    row = rows_of(curate(tmp_path, pipeline) / "photos")[0]
    assert row["verdict"] == "failed"
    assert "no column 'rihgts', which source.columns names" in row["decisions"][-1]["detail"]


def test_photos_whose_name_or_address_opted_out_are_not_even_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_table(
        tmp_path / "photos",
        key=["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
        url=["https://example.org/a", "https://EXAMPLE.org:443/b#top", "https://example.org/c", None],
        page_url=[None, None, "https://example.org/about?us", None],
    )
    listed = tmp_path / "opt-out.txt"
    listed.write_text("url:http://example.org/b\nurl:https://example.org/about?us # a page\nid:d.jpg\n")
    pipeline = settings(folder, kind="parquet")
    pipeline["photos"]["screen"]["opt_out"] = str(listed)
    monkeypatch.setenv("PERSONA_CALLS", str(tmp_path / "calls"))
    run = curate(tmp_path, pipeline)
    out = {"b.jpg": "opted_out", "c.jpg": "opted_out", "d.jpg": "opted_out"}
    assert endings(run, "photos") == {"a.jpg": "", **out}
    rows = {row["file_name"]: row["photo_id"] for row in rows_of(run / "photos")}
    assert [name for name, photo_id in rows.items() if photo_id is not None] == ["a.jpg"]
    listed.write_text("id:photos.parquet#00000000\n")
    curate(tmp_path, pipeline)
    assert endings(run, "photos") == {"a.jpg": "opted_out", "b.jpg": "", "c.jpg": "", "d.jpg": ""}
    assert {name for stage, name in asked(tmp_path / "calls") if stage == "detect"} >= {
        row["photo_id"] for row in rows_of(run / "photos") if row["verdict"] == "kept"
    }


def test_a_stage_that_rules_out_every_photo_is_no_success_and_says_the_cause_and_the_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_table(tmp_path / "photos", key=["a.jpg", "b.jpg", "c.jpg"], terms=["CC0"] * 3)
    pipeline = settings(folder, kind="parquet")
    pipeline["photos"]["screen"]["licences"] = ["CC0"]
    curate(tmp_path, pipeline, may_be_empty=False)
    said = capsys.readouterr().err
    assert "stage screen ruled out all 3 photos, 3 by licence (licence not stated)" in said
    assert "the setting is photos.screen.licences" in said
    curate(tmp_path, pipeline, may_be_empty=True)


SPELLED = {
    "https://photos.example/bus.jpg": "http://PHOTOS.example:80/bus.jpg?w=1024#top",
    "https://photos.example/~ann/a%20b.jpg": "https://photos.example/%7Eann/a b.jpg",
    "https://photos.example/caf%c3%a9.jpg": "https://photos.example/x/../café.jpg",
    "https://bücher.example/1": "https://xn--bcher-kva.example./1",
}


@pytest.mark.parametrize("with_query", [False, True])
def test_an_address_opts_out_however_it_is_spelled_and_its_query_counts_only_where_that_is_asked(
    tmp_path: Path, with_query: bool
) -> None:
    names = [f"{number}.jpg" for number in range(len(SPELLED))]
    folder = write_table(tmp_path / "photos", key=names, url=list(SPELLED.values()))
    listed = tmp_path / "opt-out.txt"
    listed.write_text("".join(f"url:{wished}\n" for wished in SPELLED))
    pipeline = settings(folder, kind="parquet")
    pipeline["photos"]["screen"] |= {"opt_out": str(listed), "address_query": with_query}
    found = endings(curate(tmp_path, pipeline), "photos")
    assert found == dict.fromkeys(names, "opted_out") | ({"0.jpg": ""} if with_query else {})


def test_lines_of_an_opt_out_list_that_matched_nothing_are_named_wherever_the_run_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = collection(5, people=2)
    (tmp_path / "photos").mkdir()
    for photo in drawn:
        (tmp_path / "photos" / photo.name).write_bytes(photo.jpeg)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8no photo")
    broken = hashlib.sha256(b"\xff\xd8no photo").hexdigest()
    listed = tmp_path / "opt-out.txt"
    missing = "https://photos.example/of-nobody-here.jpg"
    listed.write_text(f"# wishes of May\nid:{drawn[0].name}\nurl:{missing}\nsha256:{broken}\nid:none.jpg\n")
    pipeline = settings(tmp_path / "photos")
    pipeline["photos"]["screen"]["opt_out"] = str(listed)
    run = curate(tmp_path, pipeline)
    said = "opt-out list: 4 lines, 2 matched\n  line 3 (url) matched nothing\n  line 5 (id) matched nothing\n"
    assert main(["status", str(run)]) == 0
    assert said in capsys.readouterr().out
    (run / "summary.json").rename(tmp_path / "summary.json")
    (run / "status.json").unlink()
    main(["status", str(run)])  # of a run that never came to its end
    assert said in capsys.readouterr().out
    (tmp_path / "summary.json").rename(run / "summary.json")
    card = " ".join((run / "shards" / "README.md").read_text().split())
    assert "An opt-out list of 4 lines was obeyed" in card
    assert "2 of them matched a photo of the collection" in card
    assert main(["report", str(run)]) == 0
    written = b"".join(file.read_bytes() for file in sorted(run.rglob("*")) if file.is_file())
    assert b'"missed":[3,5]' in written.replace(b" ", b"")
    assert missing.encode() not in written  # the list is about people: it stays where it is


def _address(number: int) -> str:
    return f"https://photos.invalid/{number}"


def _write_causes(folder: Path) -> dict[str, int]:
    """A collection of tars in each of which something stands between a photo and its record.

    Returns {where a photo lies: the number in its address}.
    """
    photos = [photo.jpeg for photo in collection(31, people=2, outfits=3)]
    found: dict[str, int] = {}

    def pair(tar: str, name: str, record: str | None = None) -> list[tuple[str, bytes]]:
        number = len(found)
        found[f"{tar}.tar/{name}"] = number
        text = json.dumps({"url": _address(number), "license": "CC0", "consent": "yes"})
        return [(name, photos[number]), (record or name.rpartition(".")[0] + ".json", text.encode())]

    def write(tar: str, *pairs: list[tuple[str, bytes]], apart: bool = False) -> bytes:
        members = [one for members in zip(*pairs, strict=True) for one in members] if apart else []
        data = tar_of(members or [one for pair in pairs for one in pair])
        (folder / f"{tar}.tar").write_bytes(data)
        return data

    folder.mkdir()
    write("apart", pair("apart", "a.jpg"), pair("apart", "b.jpg"), apart=True)
    apple = [("._a.json", b"\0\5\x16\7" + bytes(60))]
    one = pair("foreign", "a.jpg")
    write("foreign", [one[0]], apple, [one[1]], pair("foreign", "b.jpg"))
    write("longer", pair("longer", "k.000.jpg"), pair("longer", "k.001.jpg"), pair("longer", "j.s.0.jpg"))
    write("capitals", pair("capitals", "A.JPG", "A.JSON"))
    write("whole-name", pair("whole-name", "a.jpg", "a.jpg.json"))
    times = {345: b"14473552512\0"}
    old = [member(name, data, magic=GNU, fields=times) for name, data in pair("old", "folder/a.jpg")]
    (folder / "old.tar").write_bytes(b"".join(old) + END)
    two = write("joined", pair("joined", "a.jpg")) + write("joined", pair("joined", "b.jpg"))
    (folder / "joined.tar").write_bytes(two)
    return found


@pytest.fixture(scope="module")
def causes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """That collection in a folder with brackets, its last tar behind a link, and whose address is which."""
    folder = tmp_path_factory.mktemp("causes")
    numbers = _write_causes(folder / "tars [1]")
    (folder / "tars 1").mkdir()
    (folder / "tars 1" / "strangers.tar").write_bytes(tar_of([("x.jpg", jpeg_of(draw(1, 0, 0, 0)))]))
    (folder / "elsewhere").mkdir()
    (folder / "tars [1]" / "whole-name.tar").rename(folder / "elsewhere" / "whole-name.tar")
    (folder / "tars [1]" / "linked").symlink_to(folder / "elsewhere")
    return folder / "tars [1]", numbers


def test_an_address_that_opted_out_is_obeyed_whatever_stands_between_a_photo_and_its_record(
    causes: tuple[Path, dict[str, int]], tmp_path: Path
) -> None:
    folder, numbers = causes
    listed = tmp_path / "opt-out.txt"
    wish = {name: number for name, number in numbers.items() if number % 2 or name.count(".") > 2}
    listed.write_text("".join(f"url:{_address(number)}\n" for number in wish.values()))
    pipeline = settings(folder, kind="webdataset")
    pipeline["photos"]["screen"] |= {"opt_out": str(listed), "licences": ["CC0"], "consent": True}
    found = endings(curate(tmp_path, pipeline), "photos", "source_key")
    assert found == {name: "opted_out" if name in wish else "" for name in numbers}


def test_our_own_shards_keep_what_people_wished_when_they_are_a_collection(
    causes: tuple[Path, dict[str, int]], tmp_path: Path
) -> None:
    first = curate(tmp_path, settings(causes[0], kind="webdataset"), "first [1]")
    listed = tmp_path / "opt-out.txt"
    wish = {_address(number) for number in causes[1].values() if number % 2}
    listed.write_text("".join(f"url:{address}\n" for address in wish))
    pipeline = settings(first / "shards", kind="webdataset")
    pipeline["photos"]["screen"] |= {"opt_out": str(listed), "licences": ["CC0"], "consent": True}
    rows = rows_of(curate(tmp_path, pipeline, "second") / "photos")
    assert {row["verdict"] for row in rows} == {"kept", "rejected"}
    assert {row["source_url"] for row in rows if row["verdict"] == "kept"}.isdisjoint(wish)
    rejected = [row for row in rows if row["verdict"] == "rejected"]
    assert {row["decisions"][-1]["reason"] for row in rejected} == {"opted_out"}
    assert {row["source_url"] for row in rejected} <= wish


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over three people; one photo of the first is marked as a minor's, one of the second as nsfw."""
    folder = tmp_path_factory.mktemp("filtered")
    (folder / "photos").mkdir()
    for number in range(18):
        picture = draw(5, number // 6, 0, number)
        if number == MINOR:
            x0, y0, _, y1 = HEAD
            picture[y0:y1, x0 - 9 : x0 - 1] = _MAGENTA
        if number == NSFW:
            picture[:40, :40] = _GREEN
        (folder / "photos" / f"{number:02d}.jpg").write_bytes(jpeg_of(picture))
    pipeline = settings(folder / "photos")
    marked = "tests.curation.photos.test_ingest_wishes:MarkedClassifier"
    pipeline["people"]["age"] = {"by": {"backend": marked, "options": {"colour": list(_MAGENTA)}}}
    pipeline["people"]["nsfw"] = {"by": {"backend": marked, "options": {"colour": list(_GREEN)}}}
    return curate(folder, pipeline)


def test_one_vote_of_a_minor_drops_all_photos_of_that_identity_and_says_so(filtered: Path) -> None:
    found = endings(filtered, "identities")
    dropped = {name for name, reason in found.items() if reason == "minor"}
    assert dropped == {f"{number:02d}.jpg" for number in range(6)}
    packed = {row["file_name"] for row in rows_of(filtered / "captions", ["file_name"])}
    assert packed
    assert not packed & dropped


def test_a_photo_above_the_nsfw_threshold_goes_alone_and_before_anybody_is_looked_for(filtered: Path) -> None:
    found = endings(filtered, "people/_photos")
    assert [name for name, reason in found.items() if reason == "nsfw"] == [f"{NSFW:02d}.jpg"]
    assert photos_with_people(filtered)[f"{NSFW:02d}.jpg"]["people"] == []


def test_counts_of_a_run_with_filters_check_themselves(filtered: Path) -> None:
    stages = {s["stage"]: s for s in json.loads((filtered / "summary.json").read_text())["stages"]}
    assert (stages["nsfw"]["in"], stages["nsfw"]["rejected"]) == (18, 1)
    assert (stages["minor"]["in"], stages["minor"]["rejected"]) == (6, 6)
    assert all(s["in"] == s["kept"] + s["rejected"] + s["failed"] for s in stages.values())


def test_why_tells_that_a_person_was_dropped_for_a_vote(
    filtered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["why", str(filtered), "00.jpg"]) == 0
    assert "minor       rejected minor a photo of this person votes so" in capsys.readouterr().out


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Model:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    folder = tmp_path_factory.mktemp("vit")
    labels = {0: "0-12", 1: "13-17", 2: "18-99"}
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=16, id2label=labels, label2id={v: k for k, v in labels.items()},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return Model("age", str(folder), "0" * 64, "MIT")


def test_a_classifier_of_transformers_adds_the_probabilities_of_the_labels_that_count(
    tiny_vit: Model,
) -> None:
    pictures = [draw(1, 0, 0, number)[: 60 + number] for number in range(3)]

    def score(*labels: str) -> np.ndarray:
        chosen = TransformersClassifierSettings(model="age", labels=list(labels), batch_size=2)
        return TransformersClassifier(chosen, {"age": tiny_vit}).score(pictures)

    young, adult = score("0-12", "13-17"), score("18-99")
    assert young.shape == (3,)
    np.testing.assert_allclose(young + adult, 1, atol=1e-5)
    with pytest.raises(ConfigError, match="model age: knows no label 'child'"):
        score("child")


def test_a_photo_that_was_stripped_for_a_shard_is_found_by_the_sha256_of_what_was_collected(
    tmp_path: Path,
) -> None:
    collected = [hashlib.sha256(name.encode()).hexdigest() for name in ("first", "second", "third")]
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, photo in enumerate(collection(3, people=1)[:3]):
        (photos / f"{number}.jpg").write_bytes(photo.jpeg)
        (photos / f"{number}.json").write_text(json.dumps({"photo_id": collected[number]}))
    pipeline = settings(photos)
    listed = tmp_path / "opt-out.txt"
    listed.write_text(f"sha256:{collected[0]}\n{tombstone('photo', collected[1])}\n")
    pipeline["photos"]["screen"]["opt_out"] = str(listed)
    run = curate(tmp_path, pipeline)
    assert endings(run, "photos") == {"0.jpg": "opted_out", "1.jpg": "opted_out", "2.jpg": ""}


@pytest.mark.parametrize("name", ["json", "record"])
@pytest.mark.parametrize("made", [json.dumps, dict], ids=["text", "object"])
def test_the_record_of_a_stripped_photo_is_found_wherever_its_row_holds_it(
    tmp_path: Path, name: str, made: Any
) -> None:
    collected = [hashlib.sha256(word.encode()).hexdigest() for word in ("first", "second", "third")]
    marks = [{}, {}, {"mining": "plus:DataMining DMI-PROHIBITED", "reserved": True}]
    stated = zip(collected, marks, strict=True)
    table = {
        "image": [photo.jpeg for photo in collection(3, people=1)[:3]],
        "file_name": ["0.jpg", "1.jpg", "2.jpg"],
        name: [made({"photo_id": one, "stated_marks": json.dumps(each)}) for one, each in stated],
    }
    (tmp_path / "photos").mkdir()
    pq.write_table(pa.table(table), tmp_path / "photos" / "photos.parquet")
    pipeline = settings(tmp_path / "photos", kind="parquet")
    listed = tmp_path / "opt-out.txt"
    listed.write_text(f"sha256:{collected[0]}\n{tombstone('photo', collected[1])}\n")
    pipeline["photos"]["screen"]["opt_out"] = str(listed)
    run = curate(tmp_path, pipeline)
    assert endings(run, "photos") == {"0.jpg": "opted_out", "1.jpg": "opted_out", "2.jpg": "mining_reserved"}
