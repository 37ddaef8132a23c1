"""The demo's own measures and its page: balanced pairs for the judge, and one file that needs no other."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation.evaluation.truth import Measure, Truth
from curation.outfits.judge import Answer
from curation.vlm.server import ServerSpec, ServerStartError, VllmServer, VllmUnavailableError
from demo.gallery import Picture, Shown
from demo.results_page import write_page
from demo.server import DemoVlm
from demo.whole_run import JudgePair, draw_judge_pairs, judged, shares_garment

SHIRT = {"kind": "shirt", "colour": "red", "pattern": "plain"}
JEANS = {"kind": "jeans", "colour": "blue", "pattern": "plain"}
BAG = {"kind": "handbag", "colour": "black", "pattern": "plain"}
OUTFITS: dict[str, dict[str, Any]] = {
    "a": {"upper": SHIRT, "lower": JEANS},
    "b": {"upper": {**SHIRT, "colour": "green"}, "lower": JEANS},
    "c": {"dress": SHIRT, "bag": BAG},
}


def test_outfits_share_a_garment_when_a_main_one_is_the_same_to_the_letter() -> None:
    assert shares_garment(OUTFITS["a"], OUTFITS["b"])
    assert not shares_garment(OUTFITS["a"], OUTFITS["c"])
    assert not shares_garment({"bag": BAG, "upper": SHIRT}, {"bag": BAG})
    assert not shares_garment({"lower": JEANS}, {"lower": {**JEANS, "pattern": "stripes"}})


def test_pairs_for_the_judge_are_balanced_of_one_person_and_never_a_copy() -> None:
    people: dict[str, dict[str, Any]] = {}
    photos: dict[str, dict[str, Any]] = {}
    for who in range(4):
        for number in range(6):
            photo = f"{who}-{number}"
            # Photo 5 of everybody is a copy of photo 4.
            photos[photo] = {"kind": "photo", "copy_of": f"{who}-4" if number == 5 else None}
            worn = f"{who}-{'abc'[number // 2]}"
            people[f"{photo}-0"] = {"photo_id": photo, "identity": str(who), "outfit": worn}
    garments = {f"{who}-{letter}": OUTFITS[letter] for who in range(4) for letter in "abc"}
    truth = Truth(photos, {}, garments, {})
    drawn = draw_judge_pairs(people, truth, 1000)
    # Two pairs of one outfit a person: a and b; those of c are a photo and its copy.
    assert sum(pair.same for pair in drawn) == 8
    assert len(drawn) == 16
    assert len({(pair.a, pair.b) for pair in drawn}) == 16
    for pair in drawn:
        a, b = people[pair.a], people[pair.b]
        assert a["identity"] == b["identity"]
        assert (a["outfit"] == b["outfit"]) == pair.same
        assert pair.hard == ({a["outfit"][-1], b["outfit"][-1]} == {"a", "b"})
    assert draw_judge_pairs(people, truth, 1000) == drawn
    assert len(draw_judge_pairs(people, truth, 6)) == 6


def test_a_judge_is_measured_on_all_pairs_and_on_the_hard_ones() -> None:
    pairs = [JudgePair("1", "2", same, hard) for same, hard in ((True, False), (True, False), (False, True),
                                                               (False, False))]  # fmt: skip
    answers = [Answer(True), Answer(None, error="no server"), Answer(True), Answer(False)]
    found = {measure.key: (measure.value, measure.count) for measure in judged(pairs, answers)}
    assert found == {
        "judge_accuracy": (0.5, 4),
        "judge_hard_accuracy": (0.5, 2),
        "judge_yes": (0.5, 2),
        "judge_no": (0.5, 2),
        "judge_hard_no": (0.0, 1),
        "judge_errors": (1, 4),
    }


@pytest.fixture
def page(tmp_path: Path) -> str:
    stage = {"phase": "photos", "stage": "screen", "unit": "photo", "in": 3, "kept": 1, "rejected": 2,
             "failed": 0, "reasons": {"too_small": 2}}  # fmt: skip
    pictures = [Picture("data:image/jpeg;base64,AAAA", 'says <b>"x"</b>'), Picture(None, "broken")]
    write_page(
        tmp_path / "deep" / "results.html",
        "a <title>",
        ["one line"],
        [Measure("mask_iou", "IoU", 0.91, 7), Measure("face_accuracy", "faces", 0.5, 9)],
        {"mask_iou": 0.9, "face_accuracy": 0.98},
        {"groups": 1, "stages": [stage]},
        [Shown("group-a", 2, pictures)],
        [Shown("screen: too_small", 2, pictures)],
    )
    return (tmp_path / "deep" / "results.html").read_text()


def test_the_page_is_one_file_without_script(page: str) -> None:
    assert "<script" not in page
    assert all(link.startswith("data:") for link in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "http" not in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_the_page_shows_what_was_reached_and_what_went_where(page: str) -> None:
    assert re.search(r'class="good">0.9 ✓', page)
    assert re.search(r'class="bad">0.98 ✗', page)
    assert "too_small 2" in page
    assert page.count("no picture") == 2
    assert "<b>" not in page
    assert "a &lt;title&gt;" in page


def server_that_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: VllmServer, deadline_s: float, say: Callable[[str], None]) -> None:
        raise error

    monkeypatch.setattr(VllmServer, "start", start)


def test_where_vllm_cannot_run_the_same_model_runs_in_process_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_that_raises(VllmUnavailableError("vLLM: needs a processor with AVX2"), monkeypatch)
    said: list[str] = []
    with DemoVlm(ServerSpec("weights", "vlm"), tmp_path / "vllm.log", said.append) as vlm:
        vlm.begin()
        for _ in range(2):
            assert vlm.settings() == [
                "outfits.judge.backend=transformers",
                "captions.by.backend=transformers",
            ]
    assert vlm.name == "transformers"
    assert sum("AVX2" in line for line in said) == 1


def test_a_server_that_could_run_and_did_not_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_that_raises(ServerStartError("vLLM: not ready after 300 s"), monkeypatch)
    vlm = DemoVlm(ServerSpec("weights", "vlm"), tmp_path / "vllm.log", lambda text: None)
    with vlm, pytest.raises(ServerStartError, match="not ready"):
        vlm.settings()
