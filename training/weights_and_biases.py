"""Metrics to Weights & Biases, for those who ask for it; the package is not among the requirements."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any


def check_wandb() -> None:
    """Raises ValueError, one line, where the package is missing."""
    if find_spec("wandb") is None:
        raise ValueError("loop.wandb: needs the package wandb: pip install wandb")


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

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()
