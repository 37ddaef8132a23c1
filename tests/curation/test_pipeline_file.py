"""pipelines.yaml is validated whole before anything starts; every mistake is one line with its key."""

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from curation.absolute import with_absolute_paths
from curation.backends import check_backends
from curation.errors import ConfigError
from curation.pipeline_file import json_schema, load_pipeline
from curation.settings import PipelineSettings
from curation.settings.base import Settings, backend_choice, path, threshold
from curation.settings.people import FullBodySettings, UltralyticsSamSettings, UltralyticsSettings
from edges.settings_reader import SettingsError, assignments, load_yaml, read_yaml
from tests.drawn_cards import card, write_cards
from tests.drawn_pipeline import ROOT, persona, settings, write_config


def changed(path: str, value: Any) -> dict[str, Any]:
    """The drawn pipeline with one key set."""
    pipeline = settings("photos")
    level = pipeline
    *folders, last = path.split(".")
    for folder in folders:
        level = level.setdefault(folder, {})
    level[last] = value
    return pipeline


# What is wrong: (the key that must be named, what else the line must say).
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown key": (
        changed("people.detect.min_scor", 0.5),
        "people.detect.min_scor",
        "did you mean 'min_score'",
    ),
    "an unknown section": (changed("poeple", {}), "poeple", "did you mean 'people'"),
    "a word for a number": (
        changed("photos.screen.min_side_px", "large"),
        "photos.screen.min_side_px",
        "integer",
    ),
    "a number as text": (
        changed("people.full_body.min_share", "0.3"),
        "people.full_body.min_share",
        "number",
    ),
    "a number out of range": (
        changed("people.detect.min_score", 1.5),
        "people.detect.min_score",
        "less than or equal to 1",
    ),
    "a negative count": (
        changed("people.resources.workers", -1),
        "people.resources.workers",
        "greater than or equal to 1",
    ),
    "an unknown backend": (
        changed("people.segment.by", {"backend": "grabcutt"}),
        "people.segment.by.backend",
        "did you mean 'grabcut'",
    ),
    "an unknown key of a backend": (
        changed("people.segment.by", {"backend": "grabcut", "side": 100}),
        "people.segment.by.side",
        "did you mean 'side_px'",
    ),
    "a choice that is none": (changed("people.measure", "some"), "people.measure", "'kept' or 'all'"),
    "a model without a card": (
        changed("people.segment.by", {"backend": "ultralytics_sam", "model": "sam-b"}),
        "people.segment.by.model",
        "no model card is named 'sam-b'",
    ),
    "a threshold below what is stored": (
        changed("people.detect.min_score", 0.1),
        "people.detect.min_score",
        "people.detect.floor",
    ),
    "a missing section": (
        {k: v for k, v in settings("photos").items() if k != "source"},
        "source",
        "required",
    ),
    "a list for a mapping": (changed("people.face", ["yunet"]), "people.face", "dictionary"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_file_is_refused_with_one_line_that_names_the_key(mistake: str, tmp_path: Path) -> None:
    pipeline, key, says = WRONG[mistake]
    file = tmp_path / "pipelines.yaml"
    file.write_text(yaml.safe_dump({"pipelines": {"drawn": pipeline}}))
    done = persona("curate", "drawn", "--config", file, "--out", tmp_path / "run")
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert f" {key}:" in lines[0]
    assert says in lines[0]
    assert str(file) in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["CC-BY-4.0", "[CC-BY-4.0]"])
def test_a_single_word_where_a_list_is_asked_is_the_list_of_it(value: str, tmp_path: Path) -> None:
    file = write_config(tmp_path / "pipelines.yaml", settings("photos"))
    pipeline = load_pipeline(str(file), "drawn", [f"photos.screen.licences={value}"])
    assert pipeline.photos.screen.licences == ["CC-BY-4.0"]


@pytest.mark.parametrize("value", ["2024", "3e-5", "yes", "{a: 1}"])
def test_a_value_that_is_neither_a_word_nor_a_list_of_words_is_one_line(value: str, tmp_path: Path) -> None:
    pipeline = settings("photos")
    pipeline["source"]["path"] = load_yaml(value)
    file = write_config(tmp_path / "pipelines.yaml", pipeline)
    again = write_config(tmp_path / "again.yaml", settings("photos"))
    for config, changes in ((file, []), (again, [f"source.path={value}"])):
        with pytest.raises(ConfigError) as caught:
            load_pipeline(str(config), "drawn", changes)
        assert len(str(caught.value).splitlines()) == 1
        assert "source.path: " in str(caught.value)
        assert "valid string or a valid list" in str(caught.value)


@pytest.mark.parametrize("value", ["2024", "2024-05-01"])
def test_of_a_number_where_text_is_asked_it_is_told_how_to_write_it_as_text(
    value: str, tmp_path: Path
) -> None:
    """A folder may be called as a year or a day is."""
    file = write_config(tmp_path / "pipelines.yaml", settings("photos"))
    with pytest.raises(ConfigError, match=f": {value}: .*; in quotes it is a string"):
        load_pipeline(str(file), "drawn", [f"source.path={value}"])
    for quoted in (f"'{value}'", f"['{value}']"):
        path = load_pipeline(str(file), "drawn", [f"source.path={quoted}"]).source.path
        assert path in (value, [value])


def test_of_a_list_of_paths_the_one_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = write_config(tmp_path / "pipelines.yaml", settings("photos"))
    with pytest.raises(ConfigError) as caught:
        load_pipeline(str(file), "drawn", ["source.path=[photos, 2024]"])
    assert len(str(caught.value).splitlines()) == 1
    assert "source.path.1: 2024: " in str(caught.value)


def test_words_with_a_comma_are_no_list_without_brackets(tmp_path: Path) -> None:
    file = write_config(tmp_path / "pipelines.yaml", settings("photos"))
    done = persona("curate", "drawn", "--config", file, "--set", "photos.screen.licences=CC0-1.0,CC-BY-4.0")
    assert done.returncode == 2
    assert "photos.screen.licences" in done.stderr
    assert "[CC0-1.0,CC-BY-4.0]" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pipelines: {a: [", "not valid YAML"),
        ("pipelines:\n  drawn: {}\n  drawn: {}\n", "drawn: given twice"),
        ("pipeline: {}\n", "no pipelines"),
        ("pipelines: {other: {}}\n", "no pipeline 'drawn'"),
        ("pipelines: {drawn: 3}\n", "must be a mapping"),
    ],
)
def test_a_file_that_is_no_pipelines_file_is_refused_with_one_line(
    text: str, says: str, tmp_path: Path
) -> None:
    file = tmp_path / "pipelines.yaml"
    file.write_text(text)
    done = persona("curate", "drawn", "--config", file)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert says in done.stderr


def test_a_wrong_override_names_its_key(tmp_path: Path) -> None:
    done = persona("curate", "real-photos", "--set", "people.full_body=papr")
    assert done.returncode == 2
    assert "--set: people.full_body.preset: 'papr'" in done.stderr
    done = persona("curate", "real-photos", "--set", "people.full_body")
    assert "must be path.to.key=value" in done.stderr


def test_weights_that_are_not_there_are_named_with_the_command_that_fetches_them_before_a_run_starts(
    tmp_path: Path,
) -> None:
    done = persona(
        "curate", "real-photos", "--set", f"models.path={tmp_path}", "--set", f"source.path={tmp_path}",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "yolo11n_int8.tflite of people.detect.by.model" in done.stderr
    assert f"`persona models pull real-photos --set models.path={tmp_path}` fetches them" in done.stderr


def test_changed_weights_are_refused_where_the_card_has_their_hash(tmp_path: Path) -> None:
    (tmp_path / "one.bin").write_bytes(b"not the weights")
    config = write_cards(tmp_path / "cards.yaml", one=card("by hand", "one.bin", sha256="0" * 64))
    done = persona("curate", "drawn", "--config", config, "--set", f"models.path={tmp_path}")
    assert done.returncode == 2
    assert "models.cards.one.sha256" in done.stderr


class _WithPaths(Settings):
    """Settings with places of each kind, and a text that only looks like one."""

    lists: list[str] = path(["a", "s3://bucket/b"])
    looks: str = threshold("owner/name")
    decides: str | None = path(None, moves="decisions")
    neither: str = path("c", moves="nothing")


class _PipelineWithPaths(PipelineSettings):
    """A pipeline that has them."""

    paths: _WithPaths = _WithPaths()


def test_a_field_that_is_declared_as_a_path_is_made_absolute_wherever_it_stands() -> None:
    whole = settings("photos") | {"paths": {"decides": "~/list"}}
    made = with_absolute_paths(_PipelineWithPaths.model_validate(whole))
    here = str(Path.cwd())
    assert made.source.path == f"{here}/photos"
    assert made.paths.lists == [f"{here}/a", "s3://bucket/b"]
    assert made.paths.decides == str(Path("~/list").expanduser())
    assert made.paths.neither == f"{here}/c"
    assert made.paths.looks == "owner/name"


def test_what_a_dataset_was_made_with_holds_no_place_and_every_text_that_is_none() -> None:
    paths = _WithPaths(decides="list")
    assert paths.without_places() == {"looks": "owner/name"}
    assert paths.ruling() == {"lists": ["a", "s3://bucket/b"], "looks": "owner/name", "decides": "list"}
    assert paths.measurement() == {"lists": ["a", "s3://bucket/b"]}


class _WithAnotherSlot(Settings):
    """Settings of a stage that nobody listed anywhere."""

    by: backend_choice("segmenter", UltralyticsSamSettings) | None = None  # type: ignore[valid-type]


class _PipelineWithAnotherSlot(PipelineSettings):
    """A pipeline with that stage."""

    another: _WithAnotherSlot = _WithAnotherSlot()


def test_commercial_checks_every_slot_for_a_backend_also_one_that_was_added_today() -> None:
    whole = settings("photos")
    pipeline = _PipelineWithAnotherSlot.model_validate(whole)
    check_backends(pipeline, commercial=True)
    whole["another"] = {"by": {"backend": "ultralytics_sam", "model": "sam"}}
    whole["models"] = {
        "cards": {"sam": {"file": "m", "source": "tests", "licence": "MIT", "commercial": True}}
    }
    pipeline = _PipelineWithAnotherSlot.model_validate(whole)
    check_backends(pipeline, commercial=False)
    with pytest.raises(ConfigError, match=r"--commercial: another\.by: .* under AGPL-3\.0"):
        check_backends(pipeline, commercial=True)


def test_a_backend_whose_package_is_absent_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = PipelineSettings.model_validate(settings("photos"))
    by = UltralyticsSettings(model="pose")
    detect = pipeline.people.detect.model_copy(update={"by": by})
    people = pipeline.people.model_copy(update={"detect": detect})
    pipeline = pipeline.model_copy(update={"people": people})
    check_backends(pipeline, commercial=False)
    monkeypatch.setitem(sys.modules, "ultralytics", None)  # as where it is not installed
    with pytest.raises(ConfigError, match=r"people\.detect\.by: .* pip install ultralytics$"):
        check_backends(pipeline, commercial=False)


@pytest.mark.parametrize("text", ["2024-13-45", "!!int x", "[" * 3000, "[1"])
def test_a_value_that_is_no_yaml_is_one_line(text: str) -> None:
    with pytest.raises(SettingsError, match="not valid YAML") as caught:
        assignments([f"a.b={text}"])
    assert len(str(caught.value)) < 160
    if len(text) < 100:
        with pytest.raises(SettingsError, match="not valid YAML"):
            read_yaml(f"a: {text}", "pipelines.yaml")


@pytest.mark.parametrize(
    ("text", "number"),
    [("3e-5", 3e-5), ("3E5", 3e5), ("1.5e3", 1.5e3), (".5e-3", 5e-4), ("-2.e+1", -20.0), ("1.0e-3", 1e-3)],
)
def test_a_number_with_an_exponent_is_one_on_the_command_line_and_in_a_file(text: str, number: float) -> None:
    assert assignments([f"a={text}"]) == {"a": number}
    found, _ = read_yaml(f"a: {text}\nb: [{text}]\nc: '{text}'", "mine.yaml")
    assert found == {"a": number, "b": [number], "c": text}


@pytest.mark.parametrize("text", ["e5", "3e", "a3e-5", "3e-5b", "1e5-a", "0b1e", "12:30"])
def test_what_only_looks_like_a_number_with_an_exponent_is_none(text: str) -> None:
    assert not isinstance(assignments([f"a={text}"])["a"], float)


def test_of_a_key_that_is_set_twice_the_last_word_counts_in_its_place() -> None:
    found = assignments(["a.b=1", "a.c=2", "a.b=3"])
    assert list(found.items()) == [("a.c", 2), ("a.b", 3)]


def test_commercial_refuses_models_whose_licence_forbids_it() -> None:
    done = persona("curate", "real-photos", "--commercial")
    assert done.returncode == 2
    assert "--commercial" in done.stderr
    assert "AGPL-3.0" in done.stderr


@pytest.mark.parametrize("name", ["visual-persona-commercial", "visual-persona-screened", "real-portraits"])
def test_a_permissive_pipeline_passes_the_check_of_licences_and_says_where_they_are_stated(name: str) -> None:
    done = persona("curate", name, "--commercial", "--check", "--json")
    assert done.returncode == 0, done.stderr
    checked = json.loads(done.stdout)
    assert not {"AGPL-3.0", "non-commercial", "other"} & set(checked["licences"].values())
    assert "ultralytics" not in checked["backends"].values()
    cards = load_pipeline(str(ROOT / "pipelines.yaml"), name).models.cards
    assert set(checked["licences"]) == set(cards)
    assert all(one.licence_source and one.trained_on for one in cards.values())


@pytest.mark.parametrize("name", ["real-photos", "visual-persona-500k", "every-outfit"])
def test_the_check_refuses_a_pipeline_with_a_licence_that_forbids_it(name: str) -> None:
    assert persona("curate", name, "--check").returncode == 0
    done = persona("curate", name, "--check", "--commercial")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_photos_and_people_are_screened_by_one_pipeline_and_by_no_other() -> None:
    names = yaml.safe_load((ROOT / "pipelines.yaml").read_text())["pipelines"]
    pipelines = {name: load_pipeline(str(ROOT / "pipelines.yaml"), name).people for name in names}
    screened = {name for name, people in pipelines.items() if people.nsfw is not None}
    assert screened == {name for name, people in pipelines.items() if people.age is not None}
    assert screened == {"visual-persona-screened"}


def test_a_preset_is_named_by_a_word_and_changed_key_by_key() -> None:
    file = str(ROOT / "pipelines.yaml")
    paper = load_pipeline(file, "real-photos", ["people.full_body=paper", "people.full_body.min_box_px=99"])
    body = paper.people.full_body.resolved()
    assert (body.preset, body.min_box_px, body.min_score) == ("paper", 99, 0.9)
    assert FullBodySettings().resolved().min_score == 0.0


@pytest.mark.parametrize("name", yaml.safe_load((ROOT / "pipelines.yaml").read_text())["pipelines"])
def test_the_pipelines_of_the_repository_are_valid(name: str) -> None:
    assert load_pipeline(str(ROOT / "pipelines.yaml"), name).description


def test_the_production_pipeline_holds_the_paper_protocol_and_eight_gpus() -> None:
    pipeline = load_pipeline(str(ROOT / "pipelines.yaml"), "visual-persona-500k")
    people = pipeline.people
    assert people.resources.workers * people.resources.num_gpus == 8
    assert (people.segment.by.backend, people.segment.by.architecture) == ("segment_anything", "vit_h")
    assert people.regions.by.backend == "segformer"
    assert people.full_body.preset == "paper"
    assert pipeline.outfits.strategy.backend == "paper"
    assert (pipeline.outfits.judge.backend, pipeline.captions.by.prompt) == ("vllm", "paper-caption")


def test_the_pipeline_of_every_outfit_differs_from_the_papers_in_its_outfits_alone() -> None:
    file = str(ROOT / "pipelines.yaml")
    paper, every = (load_pipeline(file, name) for name in ("visual-persona-500k", "every-outfit"))
    assert every.outfits.strategy.backend == "clusters"
    assert every.outfits.judge.regions
    same = {"outfits": paper.outfits, "description": paper.description}
    assert every.model_copy(update=same) == paper


def test_the_schema_for_editors_knows_every_key_with_its_bounds() -> None:
    schema = json_schema()
    text = json.dumps(schema)
    for key in ("min_side_px", "full_body", "link_cosine", "max_shard_mib", "worker_deaths"):
        assert f'"{key}"' in text
    assert schema["additionalProperties"] is False
    jsonschema.validate(yaml.safe_load((ROOT / "pipelines.yaml").read_text()), schema)
    wrong = {"pipelines": {"drawn": changed("people.detect.min_scor", 0.5)}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)
    done = persona("schema")
    assert json.loads(done.stdout) == json.loads(text)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import json\nclass Own(:\n", r"SyntaxError: .*own_backend\.py:2"),
        ("raise RuntimeError('no licence\\nfound')\n", "RuntimeError: no licence found"),
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'$"),
        (None, "ModuleNotFoundError: .*; its folder must be in PYTHONPATH"),
    ],
)
def test_a_backend_of_ones_own_whose_module_cannot_be_imported_is_one_line(
    code: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if code is not None:
        (tmp_path / "own_backend.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    file = write_config(tmp_path / "p.yaml", changed("people.detect.by.backend", "own_backend:Own"))
    with pytest.raises(ConfigError, match=says) as caught:
        check_backends(load_pipeline(str(file), "drawn"), commercial=False)
    assert len(str(caught.value).splitlines()) == 1
    assert "backend own_backend:Own: cannot be imported: " in str(caught.value)
