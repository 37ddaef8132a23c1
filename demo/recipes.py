"""`python -m demo.recipes --recipe NAME`: does a recipe learn who is on the reference?

Measured on people it never saw. Draws people of the rendered world, trains the recipe's small configuration
on some of them, and measures its loss on others three times: with the true reference, with another person's,
and with none. Timesteps, noise, target and caption of the three are the same. Prints a table and, as its
last line, one object of JSON. With --out it goes on where it was stopped: shards, latents and the training's
last checkpoint stay.

The shards are made from the world's truth and not by a curation, because a curated world of the demo
has too few people to learn from. Everything behind them is the product: reader, recipe, loop.
"""

import argparse
import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from demo.training.drawn_groups import DrawnGroups, write_groups
from demo.training.latents import add_latents, timed
from demo.training.reference_losses import Comparison, compare, reference_losses
from edges.settings_reader import assignments
from training.run_settings import named_configs, read_settings
from training.settings import or_nearest

SEED, HELD_OUT_SEED = 5001, 905001  # of the worlds: no person is in both
PEOPLE, HELD_OUT = 480, 96
DRAWS = 16  # of timestep and noise, for each held-out person


def main(recipe: str | None = None, program: str = "recipes") -> int:
    """Measures; 0, or 1 where a difference is not three standard errors, 2 for bad usage.

    recipe   measured, where the command does not ask for one
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m demo.{program}",
        description="Trains the small configuration of a recipe on rendered people, and measures on others "
        "whether it has learned to use the reference.",
        epilog="example: python -m demo.recipes --recipe visual_persona --steps 1200 --out runs/learns",
    )
    if recipe is None:
        parser.add_argument("--recipe", required=True, metavar="NAME", help="as persona train takes it")
    parser.add_argument("--people", type=int, default=PEOPLE, help="to learn from (default %(default)s)")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="to measure on (default %(default)s)")
    parser.add_argument("--steps", type=int, help="of training (default: as the configuration says)")
    parser.add_argument("--out", type=Path, help="keep shards and training here, and go on from them")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="in the configuration"
    )
    given = parser.parse_args()
    try:
        config = demo_config(recipe or given.recipe)
        changes = assignments(given.set)
        if given.steps is not None:
            changes["loop.steps"] = given.steps
        with nullcontext(given.out) if given.out else TemporaryDirectory(prefix="persona-learns-") as out:
            learned = learn(Path(out), given.people, given.held_out, config, changes)
    except ValueError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print("\n".join(learned.lines()))
    print(json.dumps(learned.to_json()))
    return 0 if min(learned.wrong.sigma, learned.none.sigma) > 3 else 1


def demo_config(recipe: str) -> str:
    """The name of the configuration of the demo's size for a recipe. Raises ValueError, one line."""
    of = {read_settings(name, {}).recipe: name for name in named_configs() if name.endswith("_demo")}
    if recipe not in of:
        raise ValueError(f"unknown recipe {recipe!r}{or_nearest(recipe, of)}")
    return of[recipe]


@dataclass(frozen=True)
class Learned:
    """Losses on held-out people, and by how much the true reference's is lower, and another person's than
    none's."""

    true: float
    wrong: Comparison
    none: Comparison
    none_to_wrong: Comparison
    about: dict[str, Any]

    def lines(self) -> list[str]:
        """A table."""
        rows = [f"{'reference':<18} {'loss':>8} {'more than true':>15} {'standard error':>15} {'sigma':>7}"]
        rows.append(f"{'true':<18} {self.true:>8.4f}")
        for name, found in (("another person's", self.wrong), ("none", self.none)):
            loss, error = self.true + found.more, found.standard_error
            rows.append(f"{name:<18} {loss:>8.4f} {found.more:>15.5f} {error:>15.5f} {found.sigma:>7.1f}")
        rows.append(
            f"paired over {self.about['held_out_people']} held-out people; a person's difference is the mean "
            f"over {self.about['draws']} fixed draws of timestep and noise"
        )
        return rows

    def to_json(self) -> dict[str, Any]:
        """The last line."""
        sigmas = {
            "true_vs_wrong_sigma": round(self.wrong.sigma, 2),
            "true_vs_none_sigma": round(self.none.sigma, 2),
            "wrong_vs_none_sigma": round(self.none_to_wrong.sigma, 2),
        }
        return {
            **sigmas,
            **{f"{self.about['recipe']}_{name}": sigma for name, sigma in sigmas.items()},
            "loss_true": round(self.true, 5),
            "loss_wrong": round(self.true + self.wrong.more, 5),
            "loss_none": round(self.true + self.none.more, 5),
            **self.about,
        }


def learn(out: Path, people: int, held_out: int, config: str, changes: dict[str, Any]) -> Learned:
    """Does what is not done yet under `out`: shards, latents, training; then measures.

    Raises ValueError, one line, for settings that will not do.
    """
    import torch

    from training.export import adapter_of, last_checkpoint
    from training.ranks import Ranks, StopSignals
    from training.start import prepare

    torch.set_num_threads(1)  # the tensors are small: a second thread waits more than it works
    settings = read_settings(config, changes)
    steps = settings.loop.steps
    batch = settings.data.batch
    if held_out % batch:
        raise ValueError(f"--held-out {held_out}: must be a multiple of the batch, {batch}")
    data = settings.data.model_copy(update={"validation_batches": held_out // batch})
    settings = settings.model_copy(update={"data": data})
    seconds: dict[str, float] = {}
    with timed(seconds, "draw"):
        _say(f"drawing {people} people to learn from and {held_out} others")
        write_groups(out / "drawn", DrawnGroups(SEED, people))
        write_groups(out / "drawn-held-out", DrawnGroups(HELD_OUT_SEED, held_out))
    with timed(seconds, "latents"):
        shards, held_out_shards = (
            add_latents(out / drawn, out / f"{name}-{config}", config)
            for drawn, name in (("drawn", "shards"), ("drawn-held-out", "held-out"))
        )
    with timed(seconds, "train"):
        _say(f"training {config} for {steps} steps of {batch} pairs")
        run = out / f"training-{config}"
        training = prepare(settings, shards, run, Ranks(), held_out_shards).training()
        with StopSignals() as stop:
            if training.run(stop) < steps:
                raise ValueError(f"stopped at step {training.step} of {steps}; the same command goes on")
    with timed(seconds, "measure"):
        _say("measuring on the others")
        averages = adapter_of(last_checkpoint(run), averaged=True)
        training.recipe.load_adapter(training.module, averages)
        losses = reference_losses(training.recipe, training.module, training.validation, draws=DRAWS)
    about = {
        "recipe": settings.recipe,
        "config": config,
        "people": people,
        "held_out_people": len(losses["true"]),
        "draws": DRAWS,
        "steps": steps,
        "samples": steps * batch,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
    }
    true = float(losses["true"].mean())
    return Learned(
        true, compare(losses, "wrong"), compare(losses, "none"), compare(losses, "none", "wrong"), about
    )


def _say(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
