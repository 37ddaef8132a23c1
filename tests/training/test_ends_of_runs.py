"""How long a run is, and which of its checkpoints stay: epochs, the best by validation, patience."""

import json
import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.drawn_training import DrawnBatches, built, samples, tiny
from tests.tiny_processes import ended, start
from tests.train_tiny import training
from training.batch import Batch
from training.checkpoint import checkpoints_in, load_checkpoint
from training.export import last_checkpoint
from training.loop import Training, validation_loss
from training.metrics import Validated
from training.ranks import Ranks
from training.run_settings import LoopSettings, OptimiserSettings


def validated(
    folder: Path,
    *,
    people: Sequence[str] = ("person-900-a", "person-901-a"),
    of: str | None = "held-out",
    batch: Batch | None = None,
    say: Callable[[str], None] = print,
    **loop: Any,
) -> Training:
    """A run whose validation falls for some steps, then rises: its rate is far too high, its people few.

    people, of   that are held out, and the checksum of their dataset
    batch        of them, where it is another than is read
    """
    recipe = tiny("visual_persona", dropout={"identity": 0.0, "text": 0.0, "both": 0.0, "region": 0.0})
    optimiser = OptimiserSettings(lr=0.3, warmup_steps=0)
    settings = LoopSettings.model_validate({"precision": "fp32", "optimiser": optimiser, **loop})
    held_out = [batch or samples(recipe, people)] if people else []
    batches, module = DrawnBatches(recipe, 2, people=2), built(recipe, seed=5)
    return Training(recipe, module, batches, settings, folder, validation=held_out, validation_of=of, say=say)


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}


def test_the_checkpoint_of_the_lowest_validation_loss_stays_beside_the_last_also_after_a_resume(
    tmp_path: Path,
) -> None:
    every: dict[str, Any] = {"checkpoint_every": 1, "validate_every": 3, "keep_checkpoints": 1}
    for steps in (7, 12):  # the second goes on, and knows the best of the first by what lies there
        validated(tmp_path, steps=steps, **every).run()
        measured = losses(tmp_path)
        assert measured.keys() == set(range(1, steps + 1)), "each checkpoint is validated"
        best = min(measured, key=lambda step: measured[step])
        assert [path.name for path in checkpoints_in(tmp_path / "checkpoints")] == sorted(
            {f"step-{best:08d}", f"step-{steps:08d}"}
        )
    assert best < 12, "or the test shows nothing"
    found = last_checkpoint(tmp_path, best=True)
    assert (found.step, found.record["validation_loss"]) == (best, measured[best])
    assert last_checkpoint(tmp_path).step == 12
    # And without the setting it goes.
    validated(tmp_path, steps=13, **every, keep_best=False).run()
    assert [path.name for path in checkpoints_in(tmp_path / "checkpoints")] == ["step-00000013"]


def test_a_killed_run_has_its_best_checkpoint_and_ends_with_that_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"steps": 8, "checkpoint_every": 2, "pictures_every": 100, "read_every": 1}
    settings |= {"keep_checkpoints": 1, "validate_every": 2}
    training(tmp_path / "whole", Ranks(), **settings).run()
    assert ended(start(tmp_path / "killed", kill_at=7, **settings)) == -signal.SIGKILL
    # The checkpoint of the last steps may have been on its way.
    there = [path.name for path in checkpoints_in(tmp_path / "killed/checkpoints")]
    left = {step: loss for step, loss in losses(tmp_path / "killed").items() if step <= int(there[-1][5:])}
    assert f"step-{min(left, key=lambda step: left[step]):08d}" in there
    training(tmp_path / "killed", Ranks(), **settings).run()
    names = [
        [path.name for path in checkpoints_in(tmp_path / run / "checkpoints")] for run in ("whole", "killed")
    ]
    assert names[0] == names[1]
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_a_run_without_gain_ends_early_saves_and_stays_ended(tmp_path: Path) -> None:
    every: dict[str, Any] = {"steps": 60, "checkpoint_every": 60, "validate_every": 1, "patience": 3}
    run = validated(tmp_path, **every)
    done = run.run()
    measured = losses(tmp_path)
    best = min(measured, key=lambda step: measured[step])
    assert done == best + 3 < 60
    assert run.stopped == "validation_loss has not fallen in 3 validations"
    checkpoint = load_checkpoint(checkpoints_in(tmp_path / "checkpoints")[-1])
    assert checkpoint.step == done
    # Every step of it is read, though fewer than a read is of were left.
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, done + 1))
    again = validated(tmp_path, **every)
    assert again.run() == done
    assert again.stopped is not None
    # More patience goes on from there.
    assert validated(tmp_path, **{**every, "patience": 4}).run() > done


def test_a_validation_in_which_no_sample_counts_is_no_number_and_never_the_best() -> None:
    recipe = tiny("visual_persona")
    held_out = samples(recipe, ["person-900-a", "person-901-a"])
    none = replace(held_out, weight=torch.zeros_like(held_out.weight))
    loss = validation_loss(built(recipe), [none], Ranks()).item()
    assert math.isnan(loss)
    before = Validated().after(1, 0.5)
    assert before.after(2, loss) == Validated(2, None, 0.5, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"people": ["person-902-a", "person-903-a"], "of": "another"},
        {"people": ["person-900-a"]},
    ],
    ids=["another dataset", "fewer samples"],
)
def test_losses_of_other_held_out_samples_are_not_compared_and_the_best_begins_anew(
    other: dict[str, Any], tmp_path: Path
) -> None:
    every: dict[str, Any] = {"checkpoint_every": 1, "keep_checkpoints": 1, "patience": 50}
    validated(tmp_path, steps=6, **every).run()
    # As if all that the first set gave were lower than whatever the second one gives.
    for folder in checkpoints_in(tmp_path / "checkpoints"):
        record = json.loads((folder / "checkpoint.json").read_text())
        record["validation_loss"] = record["validated"]["lowest"] = 1e-6
        (folder / "checkpoint.json").write_text(json.dumps(record))
    said: list[str] = []
    run = validated(tmp_path, steps=9, say=said.append, **every, **other)
    assert len([line for line in said if "the best is looked for anew" in line]) == 1
    run.run()
    measured = {step: loss for step, loss in losses(tmp_path).items() if step > 6}
    best = min(measured, key=lambda step: measured[step])
    assert last_checkpoint(tmp_path, best=True).step == best
    stated = last_checkpoint(tmp_path).record["validated"]
    assert (stated["lowest"], stated["without_gain"]) == (measured[best], 9 - best)
    # The same set again is compared with itself, without a word, and so is one after a resume without any.
    said.clear()
    validated(tmp_path, steps=10, say=said.append, **every, **other).run()
    validated(
        tmp_path, steps=11, say=said.append, **{**every, "people": [], "of": None, "patience": None}
    ).run()
    validated(tmp_path, steps=12, say=said.append, **every, **other).run()
    assert not any("anew" in line for line in said)
    assert last_checkpoint(tmp_path).record["validated"]["lowest"] <= measured[best]


def change_records(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Of all checkpoints of a run."""
    for checkpoint in checkpoints_in(folder / "checkpoints"):
        record = json.loads((checkpoint / "checkpoint.json").read_text())
        change(record)
        (checkpoint / "checkpoint.json").write_text(json.dumps(record))


def as_older_versions_wrote_it(record: dict[str, Any]) -> None:
    del record["validated"]["checksum"], record["validated"]["samples"]


def test_a_run_of_before_held_out_sets_were_stated_stays_ended_and_keeps_its_best(tmp_path: Path) -> None:
    every: dict[str, Any] = {"steps": 30, "checkpoint_every": 1, "keep_checkpoints": 1}
    done = validated(tmp_path, **every, patience=3).run()
    assert done < 30
    best = last_checkpoint(tmp_path, best=True).step
    assert best < done
    change_records(tmp_path, as_older_versions_wrote_it)
    told: list[str] = []
    assert validated(tmp_path, **every, patience=3, say=told.append).run() == done
    # It goes on with more patience, and states from then on what it compares with.
    more = validated(tmp_path, **every, patience=5, say=told.append).run()
    assert not any("anew" in line for line in told)
    found = last_checkpoint(tmp_path, best=True)
    measured = losses(tmp_path)
    assert found.step == min(measured, key=lambda step: measured[step])
    newest = last_checkpoint(tmp_path)
    assert (newest.step, newest.record["validated"]["lowest"]) == (more, found.record["validation_loss"])
    assert (newest.record["validated"]["checksum"], newest.record["validated"]["samples"]) == ("held-out", 2)


def test_the_best_of_each_held_out_set_stays(tmp_path: Path) -> None:
    every: dict[str, Any] = {"checkpoint_every": 1, "keep_checkpoints": 1}
    another: dict[str, Any] = {"people": ["person-902-a", "person-903-a"], "of": "another"}
    sets: list[dict[str, Any]] = [{}, another, {}]
    best: list[int] = []
    for steps, held_out in zip((6, 9, 12), sets, strict=True):
        validated(tmp_path, steps=steps, **every, **held_out).run()
        best.append(last_checkpoint(tmp_path, best=True).step)
        if steps == 6:  # lower than whatever comes
            change_records(tmp_path, lambda record: record.update(validation_loss=1e-6))
    assert [path.name for path in checkpoints_in(tmp_path / "checkpoints")] == [
        f"step-{step:08d}" for step in sorted({*best, 12})
    ]
    assert best[0] <= 6 < best[1] <= 9
    assert best[2] == best[0], "losses of the first set are compared with it again"


def test_a_held_out_sample_that_could_not_be_read_once_makes_no_other_set(tmp_path: Path) -> None:
    every: dict[str, Any] = {"checkpoint_every": 1, "keep_checkpoints": 1}
    validated(tmp_path, steps=4, **every).run()
    told: list[str] = []
    (read,) = validated(tmp_path, steps=4, **every).validation
    once = replace(read, weight=torch.tensor([1.0, 0.0]))
    validated(tmp_path, steps=6, **every, say=told.append, batch=once).run()
    assert not any("anew" in line for line in told)
    assert last_checkpoint(tmp_path).record["validated"]["samples"] == 2


def test_epochs_become_steps_by_the_size_of_the_dataset() -> None:
    loop = LoopSettings.model_validate(
        {"epochs": 3, "checkpoint_every": "1 epoch", "validate_every": "0.5 epochs", "keep_every": 7}
    )
    found = loop.in_steps(11)
    assert (found.steps, found.epochs, found.checkpoint_every, found.validate_every, found.keep_every) == (
        33, None, 11, 6, 11,
    )  # fmt: skip
    assert [step for step in range(1, 34) if found.falls_on("checkpoint_every", step)] == [11, 22, 33]
    assert found.falls_on("keep_every", 22)
    assert not found.falls_on("pictures_every", 22)
    # Of a part of a step a whole one.
    assert LoopSettings(epochs=0.5).in_steps(5).steps == 3
    assert LoopSettings(epochs=1, validate_every="0.1 epochs").in_steps(2).validate_every == 1


@pytest.mark.parametrize(
    ("saved", "kept", "stay"),
    [
        ("1 epoch", "2 epochs", [100, 200]),  # of 50.5 steps each: 101 would be no checkpoint
        ("1 epoch", 120, [100, 200]),
        (40, "2 epochs", [120]),
        ("1 epoch", "0.1 epochs", [50, 100, 150, 200]),
        (40, 80, [80, 160]),
    ],
)
def test_checkpoints_stay_where_epochs_between_those_that_are_kept_are_parts_of_steps(
    saved: int | str, kept: int | str, stay: list[int]
) -> None:
    loop = LoopSettings(steps=202, checkpoint_every=saved, keep_every=kept).in_steps(50.5)
    steps = [step for step in range(1, 203) if loop.falls_on("checkpoint_every", step)]
    assert [step for step in steps if loop.falls_on("keep_every", step)] == stay


@pytest.mark.parametrize("given", [{}, {"steps": 3, "epochs": 1}])
def test_a_run_has_steps_or_epochs(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="steps or epochs: one of the two"):
        LoopSettings.model_validate(given)
