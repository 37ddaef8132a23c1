"""SIGKILL of the command itself, while it works through the phases on a local disk."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.faults.small_run import SmallRun, local_run
from tests.faults.workplace import Injury, Workplace

SHARE = 10


def injure(place: Workplace, random: Random) -> Injury:
    """One kill at any moment of the run."""
    injury, _ = kill(place, random, local_run, "local")
    return injury


def kill(
    place: Workplace, random: Random, run_in: Callable[[Workplace, Path], SmallRun], name: str
) -> tuple[Injury, SmallRun]:
    """Kills the command of a run at a drawn share of its processor time, and ends the run undisturbed."""
    share = random.random()
    undisturbed = run_in(place, place.fresh()).undisturbed(place, name)
    run = run_in(place, place.fresh())
    command = run.start()
    hit = command.reaches(share * undisturbed.cpu_s)
    if hit:
        command.kill()
    run.check_visible()
    run.finish(undisturbed)
    return Injury(hit, f"killed at {share:.0%}"), run
