"""The training loop of the small models: a budget of minutes, a checkpoint to go on from, an average."""

import copy
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_WARM_UP = 0.03  # share of the budget in which the learning rate rises
_END_RATE = 0.01  # of the peak, where the cosine ends
_LOG_EVERY_S = 20.0
_MAX_NORM = 10.0

LossOf = Callable[[int, float], tuple[torch.Tensor, dict[str, float]]]
"""(step, share of the budget used) → loss, and figures to print. A step's batch depends on it only."""


def train(
    out: Path,
    minutes: float,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: LossOf,
    average: float = 0.998,
    save_every_s: float = 120.0,
) -> tuple[torch.nn.Module, int]:
    """Trains until `minutes` of training are used, those of earlier starts on `out` counted in.

    Without a GPU they are minutes of the processor, divided by torch's threads, so that another
    program beside it does not make the model worse.

    Returns the moving average of the weights (its decay is `average`) and the number of steps. The
    state is saved in `out` every `save_every_s`, so a killed run loses at most that; batches depend on
    the step alone, so it goes on as if it had not been killed. The learning rate follows the share
    of the budget, not the steps: a slower machine takes fewer steps and ends as low.
    """
    out.mkdir(parents=True, exist_ok=True)
    peaks = [group["lr"] for group in optimizer.param_groups]
    averaged = copy.deepcopy(model).eval()
    for parameter in averaged.parameters():
        parameter.requires_grad_(False)
    step, used = _resume(out, model, averaged, optimizer)
    budget = minutes * 60
    start, saved, logged = _clock() - used, used, used
    sums: dict[str, float] = {}
    since = step
    model.train()
    while used < budget:
        share = used / budget
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * _rate(share)
        loss, figures = loss_of(step, share)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), _MAX_NORM)
        if torch.isfinite(norm):
            optimizer.step()
        step += 1
        _follow(averaged, model, min(average, (1 + step) / (10 + step)))
        for name, value in {"loss": float(loss.detach()), **figures}.items():
            sums[name] = sums.get(name, 0.0) + value
        used = _clock() - start
        if used - logged >= _LOG_EVERY_S:
            means = {name: round(total / (step - since), 4) for name, total in sums.items()}
            print(json.dumps({"step": step, "minutes": round(used / 60, 2), **means}), flush=True)
            sums, since, logged = {}, step, used
        if used - saved >= save_every_s:
            _save(out, model, averaged, optimizer, step, used)
            saved = used
    _save(out, model, averaged, optimizer, step, used)
    return averaged, step


def _clock() -> float:
    """Seconds since some moment, as `train` counts them."""
    if torch.cuda.is_available():
        return time.monotonic()
    return time.process_time() / torch.get_num_threads()


def _rate(share: float) -> float:
    if share < _WARM_UP:
        return max(share / _WARM_UP, 1e-3)
    falling = (share - _WARM_UP) / (1 - _WARM_UP)
    return _END_RATE + (1 - _END_RATE) * (1 + math.cos(math.pi * falling)) / 2


@torch.no_grad()
def _follow(averaged: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    trained = model.state_dict()
    for name, value in averaged.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(trained[name].to(value.dtype), 1 - decay)
        else:
            value.copy_(trained[name])


def _save(
    out: Path,
    model: torch.nn.Module,
    averaged: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    used: float,
) -> None:
    state: dict[str, Any] = {
        "model": model.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "used_s": used,
    }
    temporary = out / "state.pt.new"
    torch.save(state, temporary)
    os.replace(temporary, out / "state.pt")


def _resume(
    out: Path, model: torch.nn.Module, averaged: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    if not (out / "state.pt").exists():
        return 0, 0.0
    state = torch.load(out / "state.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"going on at step {state['step']}, {state['used_s'] / 60:.1f} minutes used", flush=True)
    return int(state["step"]), float(state["used_s"])
