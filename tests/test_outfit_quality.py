"""Quality without a truth: counted from what the judge was asked and said."""

from pathlib import Path

import pyarrow as pa

from curation.fragments import Fragment, commit
from curation.outfits.phase import PAIR
from curation.outfits.quality import outfit_quality, quality_lines
from curation.storage import write_bytes

ASKED = [
    ("1", "2", True), ("2", "1", False), ("2", "3", True),
    ("1", "3", False), ("3", "1", False), ("3", "4", False),
]  # fmt: skip


def run_of(folder: Path) -> str:
    """A run whose phase outfits put photos 1, 2, 3 into one outfit."""
    write_bytes(str(folder / "run.yaml"), b"pipeline: drawn\n")
    pairs = [{"a": a, "b": b, "same": s, "score": 0.5, "by_regions": False} for a, b, s in ASKED]
    table = pa.table(
        {
            "identity": pa.array(["who"]),
            "person_ids": pa.array([["1", "2", "3", "4"]]),
            "outfits": pa.array([["a", "a", "a", None]], pa.list_(pa.string())),
            "merged": pa.array([[False, False, True, False]]),
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
