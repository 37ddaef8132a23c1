"""Optimisers behind one setting, the learning rate over the steps, their state by parameter name, and moving
averages of weights."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn

from edges.extras import install_line
from training.adamw_8bit import AdamW8bit
from training.models.lora import is_lora
from training.run_settings import OptimiserSettings

_ADAMW = ("step", "exp_avg", "exp_avg_sq")
# Numbers of a group that its optimiser goes on from, in double precision.
_OF_A_GROUP = {
    "prodigy": ("d", "d_max", "d_numerator", "k"),
    "schedule_free": ("k", "weight_sum", "lr_max"),
}
_WHOLE = {"prodigy": "its rate is found from all of them", "adafactor": "it keeps their rows and columns"}


def part_of_model(name: str) -> str:
    """Of a parameter's name: identity, lora, to_kv or base, as `RatesSettings` has them."""
    if name.startswith("identity."):
        return "identity"
    if is_lora(name):
        return "lora"
    return "to_kv" if ".processor." in name else "base"


def make_optimiser(
    trained: Mapping[str, nn.Parameter],
    settings: OptimiserSettings,
    *,
    in_parts: bool = False,
    backend: str | Callable[..., Any] | None = None,
) -> torch.optim.Optimizer:
    """With a group for each part of the model that has a rate of its own, and for what is decayed of it.

    in_parts   whether these are a rank's parts of parameters
    backend    of torch.compile, for the update of 8-bit moments; none: it is not compiled

    AdamW is fused: one kernel for all parameters, and nothing read back from the device. So is nothing of its
    8-bit kin; all others have the host wait for the device once a step, prodigy twice for each parameter.
    Raises ValueError, one line, where an optimiser's package is not installed or it cannot do with parts.
    """
    if in_parts and settings.name in _WHOLE:
        raise ValueError(
            f"loop.optimiser.name: {settings.name} needs whole parameters, {_WHOLE[settings.name]}: "
            "loop.shard: false, or another one"
        )
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        rate = getattr(settings.rates, part_of_model(name)) or settings.lr
        # Weights of linear layers and convolutions; queries have three dimensions.
        groups.setdefault((rate / settings.lr, parameter.ndim in (2, 4)), []).append(parameter)
    listed: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": settings.lr * share,
            "lr_share": share,
            "weight_decay": settings.weight_decay if decayed else 0.0,
        }
        for (share, decayed), parameters in groups.items()
    ]
    first, second = settings.betas
    usual: dict[str, Any] = {"lr": settings.lr, "betas": (first, second), "eps": settings.eps}
    try:
        if settings.name == "adamw":
            return torch.optim.AdamW(listed, fused=True, **usual)
        if settings.name == "adamw_8bit":
            return AdamW8bit(listed, backend=backend, **usual)
        if settings.name == "adafactor":
            return torch.optim.Adafactor(listed, lr=settings.lr)
        if settings.name == "prodigy":
            from prodigyopt import Prodigy

            warms_up = settings.warmup_steps > 0
            with redirect_stdout(StringIO()):  # it prints how it decays
                return Prodigy(listed, use_bias_correction=True, safeguard_warmup=warms_up, **usual)
        from schedulefree import AdamWScheduleFree

        made = AdamWScheduleFree(listed, **usual)
        made.train()  # for good: `averaged` makes what its own switch would, and loses nothing
        return made
    except ModuleNotFoundError as error:
        raise ValueError(
            f"loop.optimiser.name: {settings.name} needs the package {error.name}: "
            f"{install_line('optimisers')}"
        ) from None


def learning_rate(settings: OptimiserSettings, step: int, steps: int) -> float:
    """Of step 0 to steps − 1: rises linearly through the warm-up, then follows the schedule."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(steps - settings.warmup_steps, 1)
    left = 1 - done if settings.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return settings.lr * (settings.last_lr_share + (1 - settings.last_lr_share) * left)


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Of all parameters, from the next step on; of a part with a rate of its own in the same proportion."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_share"]


def update(optimiser: torch.optim.Optimizer, skip: Tensor) -> None:
    """One step, which changes nothing where `skip`, a bool on the device.

    Both kinds of AdamW look at `found_inf`, through which torch's GradScaler tells the fused one: the host
    does not read it. For the others it does.
    """
    if isinstance(optimiser, torch.optim.AdamW | AdamW8bit):
        optimiser.found_inf = skip.float()
    elif type(skip) is not Tensor:  # a shape without numbers, as where memory is predicted
        _allocate_state(optimiser)
        return
    elif skip:
        return
    optimiser.step()


def _allocate_state(optimiser: torch.optim.Optimizer) -> None:
    """What the first step does, for optimisers that ask the device for numbers."""
    kind = _name_of(optimiser)
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if not optimiser.state.get(parameter):
                optimiser.state[parameter] = {
                    part: _nothing(part, parameter) for part in _parts(kind, parameter)
                }


def _nothing(part: str, parameter: nn.Parameter) -> Tensor:
    if part == "step":
        return torch.zeros(())
    sums = {"row_var": -1, "col_var": -2}
    return torch.zeros_like(parameter.sum(sums[part], keepdim=True) if part in sums else parameter)


def optimiser_tensors(
    optimiser: torch.optim.Optimizer, trained: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Its whole state: {parameter name + '.' + part: tensor}, moments in float32, and what groups count as
    {'group.' + number + '.' + count: float64 scalar}. Empty before the first step."""
    states = {
        f"{name}.{part}": tensor
        for name, parameter in trained.items()
        if parameter in optimiser.state
        for part, tensor in _state(optimiser, parameter).items()
    }
    counts = {
        f"group.{number}.{key}": torch.tensor(float(group[key]), dtype=torch.float64)
        for number, group in enumerate(optimiser.param_groups)
        for key in _OF_A_GROUP.get(_name_of(optimiser), ())
    }
    return states | counts if states else {}


@torch.no_grad()
def load_optimiser_tensors(
    optimiser: torch.optim.Optimizer, trained: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Goes on from such a state. Raises ValueError where it is of other parameters or another optimiser."""
    if not tensors:
        return
    kind, left = _name_of(optimiser), dict(tensors)
    try:
        for number, group in enumerate(optimiser.param_groups):
            for key in _OF_A_GROUP.get(kind, ()):
                group[key] = type(group[key])(left.pop(f"group.{number}.{key}").item())
        for name, parameter in trained.items():
            saved = {part: left.pop(f"{name}.{part}") for part in _parts(kind, parameter)}
            _set_state(optimiser, parameter, saved)
    except KeyError:
        left["missing"] = torch.empty(0)
    if left:
        raise ValueError(
            "the optimiser's state is that of other parameters than are trained now, or of another optimiser"
        )


def _name_of(optimiser: torch.optim.Optimizer) -> str:
    """Of the optimisers whose groups count or whose state is not AdamW's, as the setting names them."""
    found = {"Prodigy": "prodigy", "AdamWScheduleFree": "schedule_free", "Adafactor": "adafactor"}
    return found.get(type(optimiser).__name__, "adamw")


def _parts(kind: str, parameter: nn.Parameter) -> tuple[str, ...]:
    """What the state of a parameter consists of."""
    return {
        "adafactor": ("step", "row_var", "col_var") if parameter.ndim > 1 else ("step", "variance"),
        "prodigy": ("step", "s", "p0", "exp_avg", "exp_avg_sq"),
        "schedule_free": ("z", "exp_avg_sq"),
    }.get(kind, _ADAMW)


def _state(optimiser: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    parts = _parts(_name_of(optimiser), parameter)
    if isinstance(optimiser, AdamW8bit):
        return dict(zip(parts, optimiser.moments(parameter), strict=True))
    state = optimiser.state[parameter]
    return {part: torch.as_tensor(state[part]) for part in parts if part in state}


def _set_state(
    optimiser: torch.optim.Optimizer, parameter: nn.Parameter, saved: Mapping[str, Tensor]
) -> None:
    kind = _name_of(optimiser)
    made: dict[str, Any] = {}
    for part, given in saved.items():
        # Every part lies where its parameter lies, and as it lies: the fused kernel pairs places in memory,
        # and a checkpoint holds everything contiguous.
        if given.shape == parameter.shape and given.ndim:
            made[part] = torch.empty_like(parameter, dtype=torch.float32).copy_(given)
        elif part == "step":
            made[part] = given.clone() if kind == "adafactor" else given.to(parameter.device).clone()
        else:
            made[part] = given.to(parameter.device).clone()
    if isinstance(optimiser, AdamW8bit):
        optimiser.set_moments(parameter, *made.values())
        return
    if kind == "prodigy":
        made["step"] = int(made["step"])
    optimiser.state[parameter] = made


class Ema:
    """Averages of what is trained, in float32 on its device: moving ones, which lie beside the parameters, or
    those of a schedule-free optimiser, which are made of its state when they are asked for.

    The decay of moving averages grows as (1 + n) / (10 + n) up to `decay`, so that the random start is soon
    forgotten.
    """

    def __init__(
        self,
        trained: Mapping[str, nn.Parameter],
        decay: float,
        optimiser: torch.optim.Optimizer | None = None,
    ) -> None:
        self._decay, self._trained = decay, trained
        self._free = optimiser if optimiser is not None and _name_of(optimiser) == "schedule_free" else None
        self._moving = {}
        if self._free is None:
            self._moving = {name: p.detach().float().clone() for name, p in trained.items()}

    @property
    def are_made(self) -> bool:
        """Whether they are made of an optimiser's state when they are asked for."""
        return self._free is not None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By parameter name."""
        return self._moving if self._free is None else self._made()

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step 0, 1, …"""
        if self._free is None:
            decay = min(self._decay, (1 + step) / (10 + step))
            parameters = [p.detach() for p in self._trained.values()]
            torch._foreach_lerp_(list(self._moving.values()), parameters, 1 - decay)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from these. Raises ValueError where they are of other parameters."""
        if tensors.keys() != self._trained.keys():
            raise ValueError("the averages are those of other parameters than are trained now")
        for name, average in self._moving.items():
            average.copy_(tensors[name])

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Inside, parameters are what a training is judged by: with a schedule-free optimiser its averages,
        else themselves; behind it they are as before, to the bit."""
        if self._free is None:
            yield
            return
        before = {name: p.detach().clone() for name, p in self._trained.items()}
        self._put(self._made())
        try:
            yield
        finally:
            self._put(before)

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._trained.items():
            parameter.copy_(tensors[name])

    @torch.no_grad()
    def _made(self) -> dict[str, Tensor]:
        """x = y + (1 − 1/β₁)·(z − y) (arXiv 2405.15682), where gradients are taken at y, the parameters."""
        assert self._free is not None
        share, made = {}, {}
        for group in self._free.param_groups:
            share.update({id(p): 1 - 1 / group["betas"][0] for p in group["params"]})
        for name, parameter in self._trained.items():
            y, state = parameter.detach().float(), self._free.state.get(parameter, {})
            made[name] = y.lerp(state["z"].float(), share[id(parameter)]) if "z" in state else y.clone()
        return made
