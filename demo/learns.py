"""`python -m demo.learns`: does the trainer learn who is on the reference? Measured on people it never saw.

Draws people of the rendered world, trains the small configuration on some of them, and measures its
loss on others three times: with the true reference, with another person's, and with none. Timesteps,
noise, target and caption of the three are the same. Prints a table and, as its last line, one object of
JSON.

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

from demo.training.drawn_groups import DrawnGroups, add_latents, timed, write_groups
from demo.training.reference_losses import Comparison, compare, reference_losses
from edges.settings_reader import assignments

CONFIG = "visual_persona_demo"
SEED, HELD_OUT_SEED = 5001, 905001  # of the worlds: no person is in both
PEOPLE, HELD_OUT = 480, 96
STEPS = 400
DRAWS = 16  # of timestep and noise, for each held-out person


def main() -> int:
    """Measures; 0, or 1 where a difference is not three standard errors, 2 for bad usage."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.learns",
        description="Trains the small configuration on rendered people, and measures on others whether it "
        "has learned to use the reference.",
        epilog="example: python -m demo.learns --steps 1200 --out runs/learns",
    )
    parser.add_argument("--people", type=int, default=PEOPLE, help="to learn from (default %(default)s)")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="to measure on (default %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of training (default %(default)s)")
    parser.add_argument("--out", type=Path, help="keep shards and training here, and go on from them")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help=f"of the config {CONFIG}"
    )
    given = parser.parse_args()
    try:
        changes = assignments(given.set)
        with nullcontext(given.out) if given.out else TemporaryDirectory(prefix="persona-learns-") as out:
            learned = learn(Path(out), given.people, given.held_out, given.steps, changes)
    except ValueError as error:
        print(f"learns: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print("\n".join(learned.lines()))
    print(json.dumps(learned.to_json()))
    return 0 if min(learned.wrong.sigma, learned.none.sigma) > 3 else 1


@dataclass(frozen=True)
class Learned:
    """Losses on held-out people, and by how much the true reference's is lower."""

    true: float
    wrong: Comparison
    none: Comparison
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
        return {
            "true_vs_wrong_sigma": round(self.wrong.sigma, 2),
            "true_vs_none_sigma": round(self.none.sigma, 2),
            "loss_true": round(self.true, 5),
            "loss_wrong": round(self.true + self.wrong.more, 5),
            "loss_none": round(self.true + self.none.more, 5),
            **self.about,
        }


def learn(out: Path, people: int, held_out: int, steps: int, changes: dict[str, Any]) -> Learned:
    """Does what is not done yet under `out`: shards, latents, training; then measures.

    Raises ValueError, one line, for settings that will not do.
    """
    import torch

    from training.export import adapter_of, last_checkpoint
    from training.ranks import Ranks
    from training.run_settings import read_settings
    from training.start import prepare

    torch.set_num_threads(1)  # the tensors are small: a second thread waits more than it works
    settings = read_settings(CONFIG, {"loop.steps": steps, "loop.validate_every": steps} | changes)
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
        add_latents(out / "drawn", out / "shards", CONFIG)
        add_latents(out / "drawn-held-out", out / "held-out", CONFIG)
    with timed(seconds, "train"):
        _say(f"training {CONFIG} for {steps} steps of {batch} pairs")
        held_out_shards = str(out / "held-out")
        prepared = prepare(settings, str(out / "shards"), out / "training", Ranks(), held_out_shards)
        training = prepared.training()
        training.run()
    with timed(seconds, "measure"):
        _say("measuring on the others")
        averages = adapter_of(last_checkpoint(out / "training"), averaged=True)
        training.recipe.load_adapter(training.module, averages)
        losses = reference_losses(training.module, training.validation, draws=DRAWS)
    about = {
        "config": CONFIG,
        "people": people,
        "held_out_people": len(losses["true"]),
        "draws": DRAWS,
        "steps": steps,
        "samples": steps * batch,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
    }
    true = float(losses["true"].mean())
    return Learned(true, compare(losses, "wrong"), compare(losses, "none"), about)


def _say(text: str) -> None:
    print(f"learns: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
