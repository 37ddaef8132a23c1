"""What stages declare is what they do, and it is typed once."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.declared import Declared, Number, Threshold
from curation.funnel import NUMBERS, STAGES, number_words, reason_table
from curation.settings import PipelineSettings
from curation.settings.base import setting_of
from curation.stage import Stage
from tests.drawn_pipeline import ROOT, environment, settings

PARTS = ("curation", "shards", "training", "edges")
# A card, a class of labels or a column may be called as a stage is. Where the name of a stage is meant, it is
# compared with what a decision says, counted by, or stamped.
_OF_A_DECISION = ("stage", "by_stage", "real", "now")


def test_the_table_of_reasons_in_the_docs_is_what_the_stages_declare() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    assert "\n".join(reason_table()) in page, "write it anew: python -m curation.funnel"


def test_the_words_of_numbers_that_why_reads_are_those_that_the_stages_declare() -> None:
    written = (ROOT / "curation" / "number_words.json").read_text()
    assert written == number_words(), "write it anew: make reference"


def test_who_lists_stages_loads_no_library_of_pixels_or_models() -> None:
    heavy = ["cv2", "torch", "scipy", "ray", "transformers", "onnxruntime", "ultralytics", "aiohttp"]
    code = f"import sys, curation.funnel; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def _thresholds() -> Iterator[tuple[type[Declared], Threshold]]:
    for stage in STAGES:
        for threshold in stage.thresholds:
            yield stage, threshold


def test_every_threshold_is_compared_with_a_setting_that_there_is() -> None:
    whole = settings("photos")
    classifier = {"backend": "tests.drawn_models:DrawnClassifier"}
    whole["people"] |= {"nsfw": {"by": classifier}, "age": {"by": classifier}, "lone_faces": {}}
    whole["selection"] = {"max_person_photos": 9}
    pipeline = PipelineSettings.model_validate(whole)
    for stage, threshold in _thresholds():
        assert isinstance(setting_of(pipeline, threshold.key), int | float), (stage.name, threshold.key)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_declares_its_settings_and_each_reason_once(stage: type[Declared]) -> None:
    reasons = [each.reason for each in stage.all_reasons()]
    assert len(reasons) == len(set(reasons))
    assert stage.settings_type is not None
    if issubclass(stage, Stage):
        assert set(stage.needs) <= {each.name for each in STAGES}


def names_out_of_place(root: Path, names: set[str]) -> list[str]:
    """`file:line name` of each name of a stage that is typed where a stage is meant, outside of its class."""
    found = []
    for part in PARTS:
        for file in sorted((root / part).rglob("*.py")):
            tree = ast.parse(file.read_text())
            meant = (name for node in ast.walk(tree) for name in _where_a_stage_is_meant(node))
            at = f"{file.relative_to(root)}"
            found += [f"{at}:{name.lineno} {name.value}" for name in meant if name.value in names]
    return found


def _where_a_stage_is_meant(node: ast.AST) -> Iterator[ast.Constant]:
    places: list[ast.AST] = []
    if isinstance(node, ast.Compare) and '"stage"' in ast.unparse(node).replace("'", '"'):
        places = [node.left, *node.comparators]
    elif isinstance(node, ast.Call):
        called, owner = ast.unparse(node.func), ast.unparse(node.func).split(".")[0]
        if called.endswith(("Stamp", "asked")) or (called.endswith(".get") and owner in _OF_A_DECISION):
            places = list(node.args[:1])
        places += [word.value for word in node.keywords if word.arg == "only"]
    elif isinstance(node, ast.Subscript) and ast.unparse(node.value) in _OF_A_DECISION:
        places = [node.slice]
    elif isinstance(node, ast.Dict):  # {(stage, reason): …}
        places = [key.elts[0] for key in node.keys if isinstance(key, ast.Tuple) and key.elts]
    for place in places:
        for inner in ast.walk(place):
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                yield inner


def test_no_stage_is_named_outside_of_its_class() -> None:
    assert names_out_of_place(ROOT, {stage.name for stage in STAGES}) == []


@pytest.mark.parametrize(
    "line",
    [
        'early = decision["stage"] in ("read", "screen")',
        'kept = by_stage.get("pack", {})',
        'counts.count("photo", decisions, only="nsfw")',
        'stamp = Stamp("pack", "", config)',
        'ORDER = {("screen", "too_small"): 1}',
    ],
)
def test_a_name_of_a_stage_out_of_its_place_is_found(line: str, tmp_path: Path) -> None:
    (tmp_path / "curation").mkdir()
    (tmp_path / "curation" / "why.py").write_text(line + "\n")
    assert names_out_of_place(tmp_path, {stage.name for stage in STAGES})


def test_every_number_that_the_code_records_has_its_quantity_in_words() -> None:
    checked = _given({"check": 0, "at_least": 0, "at_most": 0, "Check": 0})
    with_number = _given({"Outcome": 1}, least_arguments=4)
    assert len(checked) > 10
    assert with_number
    named = {name for _, name in NUMBERS}
    assert {name: place for name, place in {**checked, **with_number}.items() if name not in named} == {}


@pytest.mark.parametrize(
    ("number", "seen", "says"),
    [
        (Number("at least", "shorter side", "px"), (489, 256, True), "shorter side 489 px ≥ 256"),
        (Number("at least", "shorter side", "px"), (189, 256, False), "shorter side 189 px < 256"),
        (Number("at least", "best detection"), (0.888, 0.5, True), "best detection 0.888 ≥ 0.5"),
        (Number("at least", "best detection"), (0.499996, 0.5, False), "best detection 0.499996 < 0.5"),
        (Number("above", "bits"), (0, 6, False), "bits 0 ≤ 6"),
        (Number("at most", "size", "MiB", 2**20), (81 * 2**20, 64 * 2**20, False), "size 81 MiB > 64"),
        (Number("at most", "area", "px"), (102480, 64e6, True), "area 102,480 px ≤ 64,000,000"),
        (Number("at most", "frames"), (5, 1, True), "frames 5"),  # films are wanted: 1 is no bound
        (Number("below", "score of a minor"), (0.3, None, True), "score of a minor 0.3"),
    ],
)  # fmt: skip
def test_a_number_is_shown_as_its_quantity_beside_its_bound(
    number: Number, seen: tuple[float, float | None, bool], says: str
) -> None:
    assert number.compared(*seen) == says


def test_every_reason_that_the_code_gives_is_declared() -> None:
    declared = {each.reason for stage in STAGES for each in stage.all_reasons()}
    given = _given({"failed": 0, "check": 0, "at_least": 0, "at_most": 0, "Check": 0, "Outcome": 1})
    assert len(given) > 20
    assert {reason: place for reason, place in given.items() if reason not in declared} == {}


def _given(places: dict[str, int], least_arguments: int = 0) -> dict[str, str]:
    """{name: file:line} of the names typed in calls, `places` saying as which argument."""
    given = {}
    for file in sorted((ROOT / "curation").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func).split(".")[-1]
                if called not in places or len(node.args) < least_arguments:
                    continue
                arguments = node.args[places[called] :][:1]
                for reason in arguments:
                    if isinstance(reason, ast.Constant) and isinstance(reason.value, str) and reason.value:
                        given[reason.value] = f"{file.relative_to(ROOT)}:{node.lineno}"
    return given
