"""The trainer's benchmarks run where there is no GPU, and lose no row with another."""

import json
from functools import partial

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.train_step import PLAIN, Bench, Levers, levered, line, measured, plain
from benchmarks.trainer_ratios import SMALL, dino_flops_ratio
from tests.drawn_training import SETTINGS  # noqa: F401  one thread


def test_the_check_for_a_gpu_runs_small_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--small"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    # Each section was printed when it was done.
    assert [text.partition(":")[0] for text in lines[1:-1]] == list(found["sections"])
    assert found["failed"] == []
    sections = found["sections"]
    assert sections["resumed"]["identical"]
    assert sections["eager"]["predicted_gib"] > 0
    assert all(sections[name]["step_s"] > 0 for name in ("eager", "compiled", "8-bit moments", "UNet tuned"))


def test_a_section_that_fails_and_one_without_time_cost_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    check = gpu_check.Check(small=True, budget_s=60)

    def breaks() -> dict[str, object]:
        raise torch.OutOfMemoryError("tried to allocate\n2 TiB")

    check.run("too large", breaks, 0)
    check.run("too long", dict, 3600)
    check.run("fine", dict, 1)
    assert check.found["too large"]["failed"] == "OutOfMemoryError: tried to allocate 2 TiB"
    assert "are left" in check.found["too long"]["passed_over"]
    assert check.found["fine"].keys() == {"took_s"}
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_row_without_memory_says_so_and_the_next_one_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench = Bench(torch.device("cpu"), SMALL, 64, 2)

    def too_large() -> None:
        raise torch.OutOfMemoryError("no")

    assert measured("in fp32", too_large, bench, 1) is None  # type: ignore[arg-type]
    assert capsys.readouterr().out.startswith("in fp32")
    ours = measured("ours", partial(levered, bench, "ours", Levers("bf16")), bench, 1)
    peer = measured(PLAIN, partial(plain, bench), bench, 1)
    assert ours is not None
    assert peer is not None
    # Missing regions are not computed, nor is the VAE.
    assert 0 < ours.flops < peer.flops
    assert ours.predicted == pytest.approx(ours.peak, rel=0.2)
    assert f"{ours.median_s / peer.median_s:.2f}" in line(peer, ours, bench, 1e12)


def test_a_training_computes_no_more_than_six_tenths_of_dinov2() -> None:
    assert 0.5 < dino_flops_ratio(batches=40) < 0.6
