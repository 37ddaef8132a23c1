"""Quality without a truth: counted from what the judge was asked and said."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from curation.fragments import Fragment, commit
from curation.judging.quality import outfit_quality, quality_lines
from curation.outfits.phase import PAIR
from curation.settings import PipelineSettings
from curation.storage import write_bytes
from tests.drawn_pipeline import settings
from tests.drawn_questions import JUDGE

Asked = tuple[str, str, bool | None]
ASKED = [
    ("1", "2", True), ("2", "1", False), ("2", "3", True),
    ("1", "3", False), ("3", "1", False), ("3", "4", False),
]  # fmt: skip


def run_of(
    folder: Path,
    asked: Sequence[Asked] = ASKED,
    outfits: Sequence[str | None] = ("a", "a", "a", None),
    by_regions: Sequence[Asked] = (),
    **judge: Any,
) -> str:
    """A run whose phase outfits put photos 1, 2, 3 into one outfit; `judge` are settings of its judge."""
    pipeline = settings("nowhere")
    if judge:
        card = {"file": "m", "source": "tests", "licence": "MIT", "commercial": True}
        pipeline |= {"models": {"cards": {"tiny": card}}, "outfits": {"judge": {**JUDGE, **judge}}}
    whole = PipelineSettings.model_validate(pipeline).model_dump(mode="json")
    write_bytes(str(folder / "run.yaml"), yaml.safe_dump({"pipeline": "drawn", "settings": whole}).encode())
    ids = [str(number) for number in range(1, len(outfits) + 1)]
    pairs = [
        {"a": a, "b": b, "same": same, "score": 0.5, "by_regions": regions}
        for regions, questions in ((False, asked), (True, by_regions))
        for a, b, same in questions
    ]
    table = pa.table(
        {
            "identity": pa.array(["who"]),
            "person_ids": pa.array([ids]),
            "outfits": pa.array([list(outfits)], pa.list_(pa.string())),
            "merged": pa.array([[name == "3" for name in ids]]),
            "pairs": pa.array([pairs], pa.list_(PAIR)),
        }
    )
    fragment = Fragment(0, "0" * 16)
    commit(str(folder / "outfits" / fragment.name), table, {"rows": 1, "counts": {}})
    return str(folder)


def test_flips_triangles_sizes_and_suspected_merges_are_counted(tmp_path: Path) -> None:
    found = outfit_quality(run_of(tmp_path), audit=2)
    assert (found["photos"], found["calls"], found["calls_per_photo"]) == (4, 6, 1.5)
    assert (found["swapped_pairs"], found["swap_flips"]) == (2, 0.5)
    assert found["triangles"] == {"closed": 0, "violated": 0}  # 1 and 2 have a no of their own
    assert found["group_sizes"] == {"3": 1}
    assert found["merged_photos"] == 1
    suspected = {"identity": "who", "outfit": "a", "photos": 3, "no": 2, "asked": 3}
    assert found["suspected_merges"] == [suspected]
    assert len(found["audit"]["kept"]) == 2
    assert [(pair["a"], pair["b"]) for pair in found["audit"]["refused"]] == [("3", "4")]
    assert any("2 of 3 pairs inside are a no" in line for line in quality_lines(found))


@pytest.mark.parametrize(("regions", "questions"), [(True, 6 + 2 * 5), (False, 6)])
def test_a_pair_asked_region_by_region_counts_the_questions_that_were_sent(
    tmp_path: Path, regions: bool, questions: int
) -> None:
    """Five, or none where the setting is off: then the judge answers by itself that it cannot tell."""
    by_regions: list[Asked] = [("1", "3", False), ("3", "4", None)]
    found = outfit_quality(run_of(tmp_path, by_regions=by_regions, regions=regions))
    assert (found["calls"], found["calls_per_photo"]) == (questions, questions / 4)


@pytest.mark.timeout(60)
def test_triangles_take_as_long_as_pairs_were_asked_and_not_as_there_are_photos(tmp_path: Path) -> None:
    """One photo beside 3,000 others, and one triangle: 4,500,000,000 threes of photos."""
    asked: list[Asked] = [("1", str(number), True) for number in range(2, 3002)]
    run = run_of(tmp_path, [*asked, ("2", "3", True), ("4", "5", False)], ["a"] * 3001)
    assert outfit_quality(run)["triangles"] == {"closed": 1, "violated": 1}


def test_every_triangle_is_counted_once_whichever_order_its_pairs_were_asked_in(tmp_path: Path) -> None:
    asked: list[Asked] = [("4", "3", True), ("2", "4", True), ("3", "2", True), ("1", "4", True)]
    found = outfit_quality(run_of(tmp_path, [*asked, ("2", "1", False)], ["a"] * 4))
    assert found["triangles"] == {"closed": 1, "violated": 1}
