"""Other hardware, from a small table that the user keeps: how much faster it is than this machine, its price.

The numbers of the table are measured or known by whoever fills it in. Where one is missing, the plan says
which, and tells no figure that depends on it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from curation.errors import ConfigError
from curation.plan.counts import Expected
from curation.plan.step_times import ExpectedStep
from curation.settings.base import Settings
from edges.settings_reader import load_yaml

KINDS = ("files", "vision", "vlm")
_KIND_OF_PHASE = {
    "photos": "files",
    "people": "vision",
    "identities": "files",
    "outfits": "vlm",
    "captions": "vlm",
    "shards": "files",
}


class RelativeRate(Settings):
    """How many times the rows in a second of one worker here, one worker there gets through."""

    files: float | None = Field(None, gt=0, description="photos, identities, shards: a core's work")
    vision: float | None = Field(None, gt=0, description="the phase people, its models on the accelerator")
    vlm: float | None = Field(None, gt=0, description="the server of the vision-language model")


class Machine(Settings):
    """One row of the table."""

    source: str = Field(description="who measured its rates, with which command; where its price stands")
    accelerators: int = Field(0, ge=0, le=1024, description="GPUs; 0: the phase people runs on its cores")
    cores: int = Field(1, ge=1, le=65536)
    relative_rate: RelativeRate = RelativeRate()
    price_per_hour: float | None = Field(None, ge=0, description="of the whole machine")


class ObjectStorePrices(Settings):
    """What a store asks for; in the table's currency."""

    gib_month: float | None = Field(None, ge=0)
    thousand_puts: float | None = Field(None, ge=0)
    thousand_gets: float | None = Field(None, ge=0)


class MachineTable(Settings):
    """The file: machines by name, prices of the object store."""

    currency: str = "EUR"
    object_store: ObjectStorePrices = ObjectStorePrices()
    machines: dict[str, Machine] = Field(default_factory=dict)


def read_table(file: str | None) -> MachineTable:
    """The table of a file, or one of no machine and no price. Raises ConfigError with one line."""
    if file is None:
        return MachineTable()
    try:
        data = load_yaml(Path(file).read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--machines {file}: cannot be read: {' '.join(str(error).split())}") from None
    try:
        return MachineTable.model_validate(data)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"]))
        raise ConfigError(f"--machines {file}: {key}: {problem['msg']}") from None


@dataclass(frozen=True)
class MachinePlan:
    """Hours and price on one machine; None where the table lacks what `missing` names."""

    name: str
    hours: Expected | None
    accelerator_hours: Expected | None
    price: Expected | None
    missing: list[str]

    def to_json(self) -> dict[str, Any]:
        """As `persona plan --json` has it."""
        found = {"hours": self.hours, "accelerator_hours": self.accelerator_hours, "price": self.price}
        return {
            "name": self.name,
            **{key: None if value is None else value.to_json(3) for key, value in found.items()},
            "missing": self.missing,
        }


def plan_machine(name: str, machine: Machine, steps: list[ExpectedStep], startup_s: float) -> MachinePlan:
    """The work of workers here, divided by how much faster they are there and by how many there are."""
    rate = machine.relative_rate
    work: dict[str, Any] = dict.fromkeys(KINDS, 0.0)
    for step in steps:
        kind = _KIND_OF_PHASE[step.phase]
        work[kind] = work[kind] + sum(seconds for _, seconds in step.stages.values())
    at_once = {"files": machine.cores, "vision": machine.accelerators or machine.cores, "vlm": 1}
    missing = [f"relative_rate.{kind}" for kind in KINDS if getattr(rate, kind) is None and _any(work[kind])]
    hours = None
    if not missing:
        hours = startup_s / 3600 + sum(
            work[kind] / 3600 / (getattr(rate, kind) or 1.0) / at_once[kind] for kind in KINDS
        )
    if machine.price_per_hour is None:
        missing.append("price_per_hour")
    price = None if hours is None or machine.price_per_hour is None else hours * machine.price_per_hour
    return MachinePlan(
        name,
        None if hours is None else Expected.of(hours),
        None if hours is None else Expected.of(hours * machine.accelerators),
        None if price is None else Expected.of(price),
        missing,
    )


def _any(work: Any) -> bool:
    return bool(getattr(work, "any", lambda: work)())
