"""What a run that goes on may differ in from the run that was begun."""

from typing import Any

from training.start import changed_settings


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Of records that have the rest alike."""
    same = {"data": {"batch": 8}, "loop": {"accumulate": 1}, "method": {}, "ranks": 2}
    return changed_settings({**same, **before}, {**same, **now})


def test_ranks_that_make_another_step_are_listed_and_others_are_not() -> None:
    assert differences({"ranks": 8}, {"ranks": 1}) == ["ranks was 8, is 1"]
    assert differences({"ranks": 8}, {"ranks": 4, "loop": {"accumulate": 2}}) == []
    assert differences({"ranks": None}, {"ranks": 4}) == []  # written by an older version


def test_a_model_s_folder_may_lie_elsewhere_but_be_no_other() -> None:
    before = {"method": {"sdxl": {"folder": "models/sdxl-base"}}}
    assert differences(before, {"method": {"sdxl": {"folder": "/data/models/sdxl-base/"}}}) == []
    (told,) = differences(before, {"method": {"sdxl": {"folder": "models/another"}}})
    assert "method.sdxl.folder was models/sdxl-base, is models/another" in told


def test_a_part_that_is_set_or_taken_away_is_listed() -> None:
    none, some = {"method": {"decoder": None}}, {"method": {"decoder": {"depth": 2}}}
    assert differences(none, some) == ["method.decoder was none, is set"]
    assert differences(some, none) == ["method.decoder was set, is none"]
