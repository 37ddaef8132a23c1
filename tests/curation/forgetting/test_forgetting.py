"""`persona forget`: photos and people leave all that was written, and no collection brings them back."""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from curation.engine import Answer, InlineEngine
from curation.fragments import about
from curation.models import Model
from curation.outfits.gather import read_people
from curation.run_folder import Run
from curation.vlm.asking import Questions, Reply
from curation.vlm.pictures import COLUMNS
from curation.vlm.session import AnswerCache
from persona import main
from shards.tools.dataset_rows import DatasetRows
from tests.drawn_people import Drawn, collection, draw, jpeg_of
from tests.drawn_pipeline import files_of, rows_of, settings, write_config

GONE = 7  # number of the photo that is forgotten
URL = "https://photos.invalid/{:03d}.jpg"


def persona(*words: str | Path) -> int:
    """The command line in this process: its exit code."""
    return main([str(word) for word in words])


def write_collection(folder: Path, drawn: list[Drawn], file: str = "photos.parquet") -> Path:
    """Photos with their addresses as a Parquet file."""
    folder.mkdir(parents=True, exist_ok=True)
    number = [int(photo.name[6:11]) for photo in drawn]
    table = pa.table(
        {
            "image": pa.array([photo.jpeg for photo in drawn], pa.binary()),
            "key": [photo.name for photo in drawn],
            "url": [URL.format(n) for n in number],
            "author": [f"Author {n:03d}" for n in number],
        }
    )
    pq.write_table(table, folder / file)
    return folder


@dataclass(frozen=True)
class World:
    """A collection, its pipeline, a finished run with its report."""

    folder: Path
    drawn: list[Drawn]
    config: Path

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "first"

    @property
    def photo_id(self) -> str:
        return hashlib.sha256(self.drawn[GONE].jpeg).hexdigest()

    def curate(self, run: Path, config: Path | None = None) -> dict[str, Any]:
        code = persona(
            "curate",
            "drawn",
            "--config",
            config or self.config,
            "--out",
            run,
            "--engine",
            "inline",
            "--quiet",
        )
        assert code == 0
        return dict(json.loads((run / "summary.json").read_text()))


def pipeline_over(collection_folder: Path, **changes: Any) -> dict[str, Any]:
    pipeline = settings(collection_folder, kind="parquet")
    for section, values in changes.items():
        pipeline[section] = {**pipeline[section], **values}
    return pipeline


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> World:
    """24 photos of four people, and a smaller copy of the one that will be forgotten."""
    folder = tmp_path_factory.mktemp("forgetting")
    drawn = collection(5, people=4)
    small = Image.open(io.BytesIO(drawn[GONE].jpeg)).resize((120, 180))
    copies = [Drawn("photo-00900.jpg", drawn[GONE].person, 1, jpeg_of(np.asarray(small), quality=80))]
    photos = write_collection(folder / "photos", [*drawn, *copies])
    pipeline = pipeline_over(photos, identities={"index": str(folder / "index")})
    world = World(folder, drawn, write_config(folder / "p.yaml", pipeline))
    world.curate(world.run)
    assert persona("report", world.run) == 0
    return world


@pytest.fixture
def world(original: World, tmp_path: Path) -> World:
    """A copy of its run and index that may be changed; the collection stays where it is."""
    for name in ("runs", "index"):
        shutil.copytree(original.folder / name, tmp_path / name)
    for source, target in (
        (original.config, tmp_path / "p.yaml"),
        (original.run / "run.yaml", tmp_path / "runs" / "first" / "run.yaml"),
    ):
        text = source.read_text()
        for name in ("index", "forgotten"):
            text = text.replace(str(original.folder / name), str(tmp_path / name))
        target.write_text(text)
    return World(tmp_path, original.drawn, tmp_path / "p.yaml")


def written(folder: Path) -> bytes:
    """All that lies in a folder, as it is and, of Parquet files, decoded too."""
    found = []
    for name, data in files_of(folder).items():
        found += [name.encode(), data]
        if name.endswith(".parquet"):
            found.append(repr(pq.read_table(io.BytesIO(data)).to_pylist()).encode())
    return b"\0".join(found)


def pieces(jpeg: bytes) -> list[bytes]:
    """24 bytes from every tenth of a photo, behind its header: no other photo has them."""
    return [jpeg[at : at + 24] for at in range(len(jpeg) // 3, len(jpeg) - 24, len(jpeg) // 10)]


def verify(dataset: Path) -> int:
    return persona("shards", "verify", dataset)


def test_nothing_that_was_written_tells_of_a_forgotten_photo_and_all_else_is_whole(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = world.drawn[GONE]
    traces = [
        world.photo_id.encode(),
        URL.format(GONE).encode(),
        b"Author 007",
        gone.name.encode(),
        gone.jpeg,
    ]
    traces += [bytes.fromhex(world.photo_id), *pieces(gone.jpeg)]
    before = written(world.run)
    assert all(trace in before for trace in traces if trace != traces[5])
    photos, people = world.run / "people" / "_photos", world.run / "people"
    untouched = rows_of(photos, ["photo_id", "people"]), rows_of(people, ["person_id", "decisions"])
    assert persona("forget", world.folder / "runs", "--photo", world.photo_id, "--why", "request 1") == 0
    assert "0 still name one of them" in capsys.readouterr().out
    everything = written(world.folder / "runs") + written(world.folder / "index")
    assert [trace for trace in traces if trace in everything] == []
    assert verify(world.run / "shards") == 0
    copy = next(row["photo_id"] for row in untouched[0] if row["people"] is None)  # it goes as well
    assert rows_of(photos, ["photo_id", "people"]) == [
        row for row in untouched[0] if row["photo_id"] not in (world.photo_id, copy)
    ]
    assert rows_of(people, ["person_id", "decisions"]) == [
        row for row in untouched[1] if not row["person_id"].startswith(world.photo_id)
    ]
    summary = json.loads((world.run / "summary.json").read_text())
    for stage in summary["stages"]:
        assert stage["in"] == stage["kept"] + stage["rejected"] + stage["failed"]
    assert summary["collection"] == len(world.drawn) - 1
    assert not (world.run / "report").exists()
    capsys.readouterr()
    assert persona("why", world.run, world.photo_id) == 2
    assert persona("report", world.run) == 0


def test_a_call_that_was_killed_between_the_two_tables_of_people_is_completed_by_the_same_call(
    world: World,
) -> None:
    as_it_was = Path(shutil.copytree(world.run, world.folder / "as-it-was"))
    assert persona("forget", world.run, "--photo", world.photo_id) == 0
    done = {file.name: file for file in (world.run / "people").glob("fragment-*")}
    shutil.copytree(as_it_was, world.run / "killed")
    for name, file in done.items():  # written before their twins in _photos
        shutil.copy(file, world.run / "killed" / "people" / name)
    killed = Path(shutil.move(world.run / "killed", world.folder / "runs" / "killed"))
    assert persona("forget", killed, "--photo", world.photo_id) == 0
    for folder in ("people", "people/_photos"):
        for file in (killed / folder).glob("fragment-*"):
            assert pq.read_table(file).equals(pq.read_table(world.run / folder / file.name))
            assert about(str(file))["counts"] == about(str(done[file.name]))["counts"]
    found = Run(str(killed))
    ruled = [row for table in (found.people_photos, found.people) for row in table.rows(["decisions"])]
    decisions = [decision["stage"] for row in ruled for decision in row["decisions"]]
    for stage in json.loads((killed / "summary.json").read_text())["stages"]:
        if stage["phase"] == "people":
            assert stage["in"] == decisions.count(stage["stage"]) > 0


def test_a_later_collection_brings_no_copy_back_and_why_tells_without_telling_whom(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert persona("forget", world.run, "--photo", world.photo_id) == 0
    gone = world.drawn[GONE]
    picture = Image.open(io.BytesIO(gone.jpeg))
    copies = {
        900: gone.jpeg,
        901: jpeg_of(np.asarray(picture), quality=55),
        902: jpeg_of(np.asarray(picture.resize((320, 480), Image.Resampling.BICUBIC))),
        903: jpeg_of(np.asarray(picture.resize((112, 168), Image.Resampling.LANCZOS)), quality=70),
        GONE: jpeg_of(draw(77, 0, 0, 0)),  # another picture under the address of the photo
    }
    others = [Drawn(photo.name, photo.person, photo.outfit, photo.jpeg) for photo in collection(6, people=1)]
    again = [Drawn(f"photo-{number:05d}.jpg", 0, 0, jpeg) for number, jpeg in copies.items()]
    again += [Drawn(f"photo-{500 + n:05d}.jpg", 0, 0, photo.jpeg) for n, photo in enumerate(others)]
    folder = write_collection(world.folder / "later", again)
    config = write_config(world.folder / "later.yaml", pipeline_over(folder))
    later = world.folder / "runs" / "later"
    world.curate(later, config)
    rows = {row["file_name"]: row for row in rows_of(later / "photos")}
    refused = [rows[f"photo-{number:05d}.jpg"] for number in copies]
    assert [row["decisions"][-1]["reason"] for row in refused] == ["forgotten"] * len(copies)
    assert {row["verdict"] for row in refused} == {"rejected"}
    for row in refused:
        assert not any(row[name] for name in ("photo_id", "phash", "source_url", "author", "metadata"))
    kept = [row["verdict"] for name, row in rows.items() if name >= "photo-00500" and name < "photo-00900"]
    assert kept == ["kept"] * len(others)
    capsys.readouterr()
    assert persona("why", later, "photo-00903.jpg") == 0
    said = capsys.readouterr().out
    assert "screen      rejected forgotten" in said
    assert world.photo_id[:12] not in said


def test_going_on_after_forgetting_ends_in_the_bytes_of_a_run_that_never_saw_the_photo(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert persona("forget", world.run, "--photo", world.photo_id) == 0
    assert persona("curate", "drawn", "--config", world.config, "--out", world.run, "--quiet") == 2
    assert "is revision 1 of a dataset that people were taken out of" in capsys.readouterr().err
    shutil.move(world.run / "shards", world.folder / "revised")
    monkeypatch.setenv("PERSONA_CALLS", str(world.folder / "calls"))
    went_on = world.curate(world.run)
    assert went_on["model_calls_this_time"].get("detect", 0) == 0
    without = [photo for number, photo in enumerate(world.drawn) if number != GONE]
    folder = write_collection(world.folder / "without", without)
    pipeline = pipeline_over(folder, identities={"index": str(world.folder / "other-index")})
    fresh = world.folder / "elsewhere" / "fresh"
    world.curate(fresh, write_config(world.folder / "fresh.yaml", pipeline))
    assert files_of(world.run / "shards") == files_of(fresh / "shards")


def test_what_was_read_of_others_is_found_again_where_the_forgotten_photo_was_never_read(
    world: World,
) -> None:
    listed = world.folder / "opt-out.txt"
    listed.write_text(f"id:{world.drawn[GONE].name}\n")
    collected = yaml.safe_load(world.config.read_text())["pipelines"]["drawn"]["source"]["path"]
    screen = {"min_side_px": 100, "opt_out": str(listed)}
    config = write_config(world.config, pipeline_over(collected, photos={"screen": screen}))
    second = world.folder / "runs" / "second"
    world.curate(second, config)
    assert persona("forget", second, "--url", URL.format(GONE)) == 0
    shutil.rmtree(second / "shards")
    assert world.curate(second, config)["model_calls_this_time"].get("read", 0) == 0


def test_a_forgotten_person_leaves_runs_index_and_labels(world: World) -> None:
    rows = rows_of(world.run / "identities", ["person_id", "identity"])
    identity = rows[0]["identity"]
    people = {row["person_id"] for row in rows if row["identity"] == identity}
    labels = world.folder / "labels.csv"
    other = next(row["person_id"] for row in rows if row["identity"] != identity)
    labels.write_text(f"a,b,same\n{rows[0]['person_id']},{other},0\n{other},{other},1\n")
    places = (world.folder / "runs", labels)
    assert persona("forget", *places, "--person", identity, "--by", "the desk", "--why", "letter 12") == 0
    everything = written(world.folder / "runs") + written(world.folder / "index") + labels.read_bytes()
    assert [trace for trace in (*people, identity) if trace.encode() in everything] == []
    assert labels.read_text() == f"a,b,same\n{other},{other},1\n"
    assert verify(world.run / "shards") == 0
    store = world.folder / "forgotten"
    entry = json.loads((store / "record.jsonl").read_text())
    assert (entry["by"], entry["why"], entry["photos"]) == ("the desk", "letter 12", len(people))
    assert entry["searched"]["left"] == 0
    assert (store / "key").stat().st_mode & 0o077 == 0


def test_what_was_decided_about_others_no_longer_names_a_forgotten_photo(world: World) -> None:
    run, strategy = world.folder / "runs" / "second", {"backend": "clusters"}
    pipeline = yaml.safe_load(world.config.read_text())["pipelines"]["drawn"]
    pipeline["outfits"]["strategy"], pipeline["identities"] = strategy, {}
    world.curate(run, write_config(world.folder / "clusters.yaml", pipeline))
    named = re.findall(r"the same as ([0-9a-f]{10})", written(run).decode("latin-1"))
    people = rows_of(run / "outfits", ["person_ids"])
    photo = next(p[:64] for row in people for p in row["person_ids"] if p.startswith(named[0]))
    assert persona("forget", run, "--photo", photo) == 0
    assert photo[:10].encode() not in written(run)
    assert b"the same as a forgotten photo" in written(run)


def test_a_photo_goes_by_its_address_and_by_a_copy_that_somebody_sends(world: World) -> None:
    sent = world.folder / "sent.jpg"
    sent.write_bytes(jpeg_of(np.asarray(Image.open(io.BytesIO(world.drawn[3].jpeg))), quality=60))
    wishes = world.folder / "wishes.txt"
    wishes.write_text(
        f"# of today\nurl:{URL.format(11).replace('https', 'HTTP')}\nhash:sent.jpg # by letter\n"
    )
    assert persona("forget", world.run, "--from", wishes) == 0
    left = {row["file_name"] for row in rows_of(world.run / "photos", ["file_name"])}
    assert {photo.name for photo in world.drawn} - left == {"photo-00003.jpg", "photo-00011.jpg"}


def test_a_forgetting_that_is_killed_anywhere_is_completed_by_going_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world.folder / "runs", tmp_path / "kept")
    replace, left = Path.replace, [0]

    def until_killed(self: Path, target: Any) -> Path:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", until_killed)
    assert persona("forget", world.run, "--photo", world.photo_id) == 0
    undisturbed, steps = files_of(world.run), -left[0]
    for kill_at in range(4, steps, 14):
        shutil.rmtree(world.folder / "runs")
        shutil.copytree(tmp_path / "kept", world.folder / "runs")
        left[0] = kill_at
        assert persona("forget", world.run, "--photo", world.photo_id) == 130
        store = world.folder / "forgotten"
        if (store / "pending.json").exists():
            assert persona("curate", "drawn", "--config", world.config, "--out", world.run, "--quiet") == 2
            assert "is not completed" in capsys.readouterr().err
            assert persona("forget", world.run, "--go-on") == 0
        else:
            assert persona("forget", world.run, "--photo", world.photo_id, "--missing-ok") == 0
        assert files_of(world.run) == undisturbed
        assert sorted(path.name for path in store.iterdir()) == ["key", "record.jsonl", "tombstones.txt"]


def test_what_models_said_of_a_forgotten_photo_goes_and_what_they_said_of_others_stays(world: World) -> None:
    card = {"file": "vlm", "source": "hf://a/b", "licence": "MIT", "commercial": True}
    said = yaml.safe_load((world.run / "run.yaml").read_text())
    said["settings"]["models"]["cards"] = {"vlm": card}
    said["settings"]["outfits"]["judge"] = {"backend": "vllm", "model": "vlm", "prompt": "outfit-exact"}
    said["settings"]["captions"]["by"] = {"backend": "vllm", "model": "vlm", "prompt": "paper-caption"}
    said["models"] = {"vlm": {"path": "/nowhere", "sha256": "0" * 64}}
    (world.run / "run.yaml").write_text(yaml.safe_dump(said))
    pipeline, model = Run(str(world.run)).pipeline()[1], Model("vlm", "/nowhere", "0" * 64, "")
    judge = Questions(pipeline.outfits.judge, model, pipeline.source)
    captioner = Questions(pipeline.captions.by, model, pipeline.source)
    people = read_people(str(world.run), COLUMNS)
    gone = next(name for name in people if name.startswith(world.photo_id))
    for row in rows_of(world.run / "outfits", ["person_ids"]):
        if gone in row["person_ids"]:
            beside = [people[name] for name in row["person_ids"] if name != gone]
    pairs = {
        judge.about((people[gone], beside[0])).key: False,
        judge.about((beside[1], people[gone])).key: False,
        judge.about((beside[0], beside[1])).key: True,
    }
    captions = {captioner.about((person,)).key: name != gone for name, person in people.items()}
    captions["ab" * 32] = False  # of earlier settings: of whom, nobody can tell
    for phase, keys in (("outfits", pairs), ("captions", captions)):
        cache = AnswerCache(Run(str(world.run)).answers(phase))
        for key in keys:
            cache.put(key, Reply("an answer", 0.5))
    assert persona("forget", world.run, "--photo", world.photo_id) == 0
    for phase, keys in (("outfits", pairs), ("captions", captions)):
        cache = AnswerCache(Run(str(world.run)).answers(phase))
        cache.refresh()
        assert {key: cache.get(key) is not None for key in keys} == keys


def test_a_record_that_was_changed_is_found_out(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert persona("forget", world.run, "--photo", world.photo_id) == 0
    assert persona("forget", world.run, "--url", URL.format(2)) == 0
    assert persona("forget", world.run, "--records") == 0
    record = world.folder / "forgotten" / "record.jsonl"
    record.write_text(record.read_text().replace('"photos": 2', '"photos": 1'))
    assert persona("forget", world.run, "--records") == 1
    assert "entry 1 is not as it was signed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--photo", "ab" * 32], 1, f"photo {'ab' * 32}"),
        (["--photo", "ab" * 32, "--dry-run"], 1, f"photo {'ab' * 32}"),
        (["--url", "https://photos.invalid/0O7.jpg?w=9"], 1, "(the nearest here: https://photos.invalid/0"),
        (["--url", URL.format(7) + "?w=9", "--with-query"], 1, f"(the nearest here: {URL.format(7)})"),
        (["--url", "https://else.where/"], 1, "address https://else.where/\n"),
        (["--photo", "abc"], 2, "a photo_id has 64 hex digits"),
        (["--hash", "/nowhere.jpg"], 2, "No such file"),
        ([], 2, "name --photo, --person, --url, --hash or --from"),
    ],
)
def test_a_wish_that_cannot_be_met_changes_nothing_and_says_why(
    words: list[str], code: int, says: str, original: World, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(original.folder)
    assert persona("forget", original.run, *words) == code
    assert says in capsys.readouterr().err
    assert files_of(original.folder) == before


def test_tombstones_without_their_key_stop_a_run_instead_of_letting_everything_in(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert persona("forget", world.run, "--photo", world.photo_id) == 0
    (world.folder / "forgotten" / "key").unlink()
    later = ("--out", world.folder / "runs" / "later", "--quiet", "--engine", "inline")
    assert persona("curate", "drawn", "--config", world.config, *later) == 2
    assert "its key is not there" in capsys.readouterr().err


def test_a_forgotten_photo_stays_out_of_runs_elsewhere_and_each_says_what_it_obeys(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--engine", "inline", "--set", "identities.index=null")

    def ending(run: Path, config: Path) -> str:
        assert persona("curate", "drawn", "--config", config, "--out", run, *words) == 0
        rows = {row["file_name"]: row["decisions"][-1]["reason"] for row in rows_of(run / "photos")}
        return str(rows[world.drawn[GONE].name])

    elsewhere = tmp_path / "other-disk" / "deep" / "second"
    assert persona("forget", world.run, "--photo", world.photo_id) == 0
    store = world.folder / "forgotten"
    assert f"--set photos.screen.forgotten={store}" in capsys.readouterr().out
    assert ending(elsewhere, world.config) == "forgotten"
    said = capsys.readouterr().out
    assert f"tombstones of {store} obeyed" in said
    capsys.readouterr()
    assert persona("status", elsewhere) == 0
    assert f"tombstones of {store} obeyed" in capsys.readouterr().out
    # Another file of pipelines knows nothing of that store until it is named, and says that it obeys none.
    other = tmp_path / "other-project" / "p.yaml"
    other.parent.mkdir()
    shutil.copy(world.config, other)
    assert ending(tmp_path / "others" / "third", other) == ""
    assert f"forgotten: no tombstones in {other.parent / 'forgotten'}" in capsys.readouterr().out
    monkeypatch.setenv("PERSONA_FORGOTTEN", str(store))
    assert ending(tmp_path / "others" / "fourth", other) == "forgotten"


def test_a_worker_that_does_not_see_the_tombstones_of_a_run_lets_nobody_in(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert persona("forget", world.run, "--photo", world.photo_id) == 0
    store, here = world.folder / "forgotten", InlineEngine.map

    def on_another_node(*what: Any) -> Iterator[Answer]:
        store.rename(world.folder / "out-of-sight")
        try:
            yield from here(*what)
        finally:
            (world.folder / "out-of-sight").rename(store)

    monkeypatch.setattr(InlineEngine, "map", on_another_node)
    run = world.folder / "runs" / "later"
    assert persona("curate", "drawn", "--config", world.config, "--out", run, "--engine", "inline") == 1
    assert "does not see the opt-outs and tombstones that the run obeys" in capsys.readouterr().err
    assert not list((run / "photos").glob("**/fragment*"))


def test_tombstones_beside_a_run_are_obeyed_whatever_store_its_pipeline_has(world: World) -> None:
    at_first = ("--store", world.folder / "runs" / "forgotten")
    assert persona("forget", world.run, "--photo", world.photo_id, *at_first) == 0
    shutil.rmtree(world.folder / "forgotten", ignore_errors=True)
    shutil.rmtree(world.run)
    world.curate(world.run)
    rows = {row["file_name"]: row["decisions"][-1]["reason"] for row in rows_of(world.run / "photos")}
    assert rows[world.drawn[GONE].name] == "forgotten"


def test_a_dry_run_lists_each_photo_with_its_groups_and_whose_copy_it_is(
    original: World, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(original.folder)
    assert persona("forget", original.run, "--url", URL.format(GONE) + "?w=1024", "--dry-run", "--json") == 0
    photos = {photo["file"]: photo for photo in json.loads(capsys.readouterr().out)["photos"]}
    small = next(name for name, photo in photos.items() if photo["copy_of"] == original.photo_id)
    large = next(name for name, photo in photos.items() if photo["photo_id"] == original.photo_id)
    groups = {row["person_id"][:64]: row["group"] for row in rows_of(original.run / "captions")}
    assert set(photos) == {small, large}
    assert photos[large]["groups"] == [groups[original.photo_id]]
    assert photos[small]["groups"] == []
    assert files_of(original.folder) == before
    assert persona("forget", original.run, "--photo", original.photo_id, "--dry-run") == 0
    said = capsys.readouterr().out
    assert f"{large}, in group {groups[original.photo_id]}" in said
    assert f"{small}, copy of {original.photo_id[:12]}" in said


def test_a_photo_leaves_the_shards_of_a_run_of_which_nothing_else_is_left(world: World) -> None:
    for folder in ("source", "photos", "people", "identities", "outfits", "captions", "report"):
        shutil.rmtree(world.run / folder, ignore_errors=True)
    dataset = DatasetRows(str(world.run / "shards"))
    before = sum(len(dataset.photo_ids(number)) for number in range(len(dataset)))
    assert persona("forget", world.run, "--photo", world.photo_id, "--missing-ok") == 0
    after = DatasetRows(str(world.run / "shards"))
    left = [photo for number in range(len(after)) for photo in after.photo_ids(number).values()]
    assert world.photo_id not in left
    assert len(left) == before - 1
    assert verify(world.run / "shards") == 0


def test_a_place_that_holds_nothing_of_a_wish_is_left_as_it_is(world: World) -> None:
    drawn = [
        Drawn(f"photo-{500 + n:05d}.jpg", photo.person, photo.outfit, photo.jpeg)
        for n, photo in enumerate(collection(6, people=2))
    ]
    other = write_collection(world.folder / "others", drawn)
    second = world.folder / "runs" / "second"
    config = write_config(world.folder / "second.yaml", pipeline_over(other))
    world.curate(second, config)
    alone = world.folder / "runs" / "alone"
    shutil.copytree(second / "shards", alone)
    assert persona("report", second) == 0
    before = files_of(second), files_of(alone)
    assert persona("forget", world.folder / "runs", "--photo", world.photo_id) == 0
    assert (files_of(second), files_of(alone)) == before
