"""Checkpoints in an object store: resumed from, rotated, and whole or not there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.slow_store import SlowStore, empty_bucket
from tests.train_tiny import training
from tests.training.test_loop import curve
from training.checkpoint import CheckpointError, CheckpointFolder, load_checkpoint, place_of
from training.export import last_checkpoint
from training.ranks import Ranks


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[SlowStore, Any]]:
    """An empty bucket of a store, and boto3's client."""
    with empty_bucket("runs") as found:
        yield found


def keys(s3: Any, prefix: str) -> list[str]:
    listed = s3.list_objects_v2(Bucket="runs", Prefix=prefix).get("Contents", [])
    return [found["Key"].removeprefix(prefix) for found in listed]


def write(url: str, *steps: int, **rotation: Any) -> None:
    checkpoints = CheckpointFolder(url, **rotation)
    for step in steps:
        tensors = {"adapter": {"x": torch.full((1000,), float(step))}, "ema": {}, "optimiser": {}}
        checkpoints.save(step, tensors, {"batches": {"consumed": step}})
    checkpoints.close()


def read(url: str, name: str) -> Any:
    with place_of(url).opened(name) as folder:
        return load_checkpoint(folder, f"{url}/{name}")


def test_a_run_goes_on_on_another_machine_from_what_lies_in_the_store(
    server: tuple[SlowStore, Any], tmp_path: Path
) -> None:
    loop: dict[str, Any] = {"checkpoints": "s3://runs/one", "checkpoint_every": 2, "keep_checkpoints": 2}
    training(tmp_path / "undisturbed", Ranks(), steps=6).run()
    training(tmp_path / "first", Ranks(), steps=4, **loop).run()
    assert not (tmp_path / "first/checkpoints").exists()
    second = training(tmp_path / "second", Ranks(), steps=6, **loop)
    assert second.step == 4
    second.run()
    assert curve(tmp_path / "first") + curve(tmp_path / "second") == curve(tmp_path / "undisturbed")
    assert place_of("s3://runs/one").names() == ["step-00000004", "step-00000006"]
    assert last_checkpoint("s3://runs/one").step == 6


def test_what_is_unfinished_is_never_found_and_what_is_old_is_deleted(server: tuple[SlowStore, Any]) -> None:
    url = "s3://runs/rotated"
    write(url, 1, 2, 3, 4, keep=2, keep_every=3)
    assert place_of(url).names() == ["step-00000003", "step-00000004"]
    assert {key.split("/")[0] for key in keys(server[1], "rotated/")} == set(place_of(url).names())
    # A sending that was killed leaves tensors without a record, as a removal does.
    server[1].put_object(Bucket="runs", Key="rotated/step-00000009/adapter.safetensors", Body=b"half")
    assert place_of(url).names() == ["step-00000003", "step-00000004"]
    write(url, 9, keep=2)
    assert read(url, "step-00000009").tensors["adapter"]["x"][0] == 9


def test_a_damaged_checkpoint_in_a_store_is_refused_and_named(server: tuple[SlowStore, Any]) -> None:
    url = "s3://runs/damaged"
    write(url, 1)
    server[1].put_object(Bucket="runs", Key="damaged/step-00000001/adapter.safetensors", Body=b"other")
    with pytest.raises(
        CheckpointError, match=r"s3://runs/damaged/step-00000001/adapter.safetensors: not what"
    ):
        read(url, "step-00000001")


def test_a_store_that_refuses_is_one_line(server: tuple[SlowStore, Any], tmp_path: Path) -> None:
    for url, message in (("s3://nowhere/x", "s3://nowhere/x: no such bucket"), ("odd://x/y", "odd://x/y: ")):
        with pytest.raises(CheckpointError, match=message) as caught:
            training(tmp_path, Ranks(), steps=1, checkpoints=url)
        assert "\n" not in str(caught.value)
