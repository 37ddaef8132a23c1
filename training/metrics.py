"""Where metrics go: lines of JSON, which a resumed run continues without a seam, and others for people."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from shards.format.atomic_file import write_whole


class Metrics(Protocol):
    """Takes numbers by name, and what people look at besides."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Of one step; names are the same for the whole run."""
        ...

    def text(self, name: str, text: str) -> None:
        """Of the whole run, as its config."""
        ...

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        """Pictures of one step by name."""
        ...

    def close(self) -> None:
        """After the last one."""
        ...


class JsonLines:
    """`metrics.jsonl`: {"step": …, name: value, …} a line.

    What a killed run wrote of steps that are done again from `first_step` on is dropped.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] < first_step]
        write_whole(path, "".join(f"{line}\n" for line in kept).encode())
        self._stream = path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a line, and leaves it to the system at once."""
        self._stream.write(json.dumps({"step": step, **values}) + "\n")
        self._stream.flush()

    def text(self, name: str, text: str) -> None:
        """Not here: it lies in the run's folder."""

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        """Not here: they lie in the run's folder."""

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()


class Together:
    """Several places, each of which gets everything."""

    def __init__(self, places: Sequence[Metrics]) -> None:
        self._places = places

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """To each."""
        for place in self._places:
            place.write(step, values)

    def text(self, name: str, text: str) -> None:
        """To each."""
        for place in self._places:
            place.text(name, text)

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        """To each."""
        for place in self._places:
            place.pictures(step, files)

    def close(self) -> None:
        """Each."""
        for place in self._places:
            place.close()


def _whole_lines(path: Path) -> list[str]:
    """Lines of a file; the last one of a killed run may be cut, and is left out."""
    if not path.exists():
        return []
    return [line for line in path.read_text().split("\n")[:-1] if line]


class TensorBoard:
    """Event files in a folder. What a killed run wrote of steps from `first_step` on is hidden."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # it takes a second to import

        self._writer = SummaryWriter(str(folder), purge_step=first_step, flush_secs=20)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Each value is a curve of its name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def text(self, name: str, text: str) -> None:
        """Under Text; as code, so that its lines stay lines."""
        self._writer.add_text(name, "".join(f"    {line}\n" for line in text.splitlines()))

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        """Under Images."""
        for name, file in files.items():
            with Image.open(file) as image:
                self._writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class WeightsAndBiases:
    """One run of a project; its name is the training's folder, and a resumed training goes on with it.

    project    that the run belongs to
    name       of the run, unique in the project
    config     settings of the training, as JSON holds them
    """

    def __init__(self, project: str, name: str, config: Mapping[str, Any]) -> None:
        import wandb

        run_id = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
        self._run = wandb.init(
            project=project, name=name, id=run_id, resume="allow", config=dict(config), save_code=False
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Each value is a curve of its name. Of steps that it has already, it keeps the first."""
        self._run.log(dict(values), step=step)

    def text(self, name: str, text: str) -> None:
        """Not here: the run has it as its config."""

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        """Each under its name."""
        import wandb

        self._run.log({name: wandb.Image(str(file)) for name, file in files.items()}, step=step)

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()


_SMOOTHED_OVER = 50  # steps, about


@dataclass
class SmoothedLoss:
    """Exponential mean of losses, as if none had been before the first (as Adam corrects its moments)."""

    total: float = 0.0
    weight: float = 0.0

    def after(self, loss: float) -> float:
        """The mean with one more."""
        keep = 1 - 1 / _SMOOTHED_OVER
        self.total = keep * self.total + (1 - keep) * loss
        self.weight = keep * self.weight + (1 - keep)
        return self.total / self.weight


@dataclass(frozen=True)
class Validated:
    """The last validation of a run, the lowest loss of all, and how many have followed that were not lower.

    loss       None where it was no number, which is no gain
    checksum   of the held-out dataset, where it is one
    samples    that are asked for in each of these validations, of all ranks; 0 where that is not known
    """

    step: int = 0
    loss: float | None = None
    lowest: float | None = None
    without_gain: int = 0
    checksum: str | None = None
    samples: int = 0

    def after(self, step: int, loss: float) -> "Validated":
        """With one more."""
        known = loss if math.isfinite(loss) else None
        if known is not None and (self.lowest is None or known < self.lowest):
            return replace(self, step=step, loss=known, lowest=known, without_gain=0)
        return replace(self, step=step, loss=known, without_gain=self.without_gain + 1)

    def is_comparable(self, other: "Validated") -> bool:
        """Whether losses of both are of the same samples. Records of older versions do not state which, and
        are taken for the same: a run goes on through an upgrade."""
        if not self.samples or not other.samples:
            return True
        return (self.checksum, self.samples) == (other.checksum, other.samples)


def progress_line(step: int, steps: int, values: Mapping[str, float]) -> str:
    """What a step that was read gave, for the console: loss, learning rate, rates, and the time that is left.

    values   as `Rates.since_last` names them, with loss and lr; what is not there is left out
    """
    parts = [f"step {step}/{steps}"]
    for name, form in _SHOWN.items():
        if name in values:
            parts.append(form.format(values[name]))
    if "step_s" in values and step < steps:
        parts.append(f"{duration((steps - step) * values['step_s'])} left")
    return "  ".join(parts)


_SHOWN = {
    "loss": "loss {:.4f}",
    "smoothed_loss": "smoothed {:.4f}",
    "lr": "lr {:.2e}",
    "samples_per_s": "{:.4g} samples/s",
    "data_wait": "data-wait {:.1%}",
    "mfu": "MFU {:.1%}",
    "memory_gib": "{:.1f} GiB",
}


def duration(seconds: float) -> str:
    """As 48 s, 12 min 05 s, 3 h 20 min, 2 d 5 h."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if not minutes:
        return f"{seconds:.0f} s"
    if not hours:
        return f"{minutes} min {int(seconds % 60):02d} s"
    return f"{days} d {hours % 24} h" if days else f"{hours} h {minutes % 60:02d} min"
