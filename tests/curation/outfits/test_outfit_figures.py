"""The figures of benchmarks/outfits.py."""

from typing import Any

from benchmarks.outfit_figures import mean_of


def test_the_precision_of_several_draws_is_that_of_their_pairs_together() -> None:
    none: dict[str, Any] = {"precision": None, "recall": 0.0, "pairs": 0}
    few: dict[str, Any] = {"precision": 1.0, "recall": 0.1, "pairs": 10}
    many: dict[str, Any] = {"precision": 0.8, "recall": 0.3, "pairs": 30}
    assert mean_of([few, many, none]) == {"precision": 0.85, "recall": 0.13333, "pairs": 13.33333}
    assert mean_of([none, none]) == {"precision": None, "recall": 0.0, "pairs": 0.0}
    assert mean_of([few]) == few
