"""SIGKILL of the command itself, while it works through the phases on a local disk."""

from random import Random

from tests.faults.small_run import local_run
from tests.faults.workplace import Injury, Workplace

SHARE = 10


def injure(place: Workplace, random: Random) -> Injury:
    """One kill at any moment of the run."""
    share = random.random()
    undisturbed = local_run(place, place.fresh()).undisturbed(place, "local")
    run = local_run(place, place.fresh())
    command = run.start()
    hit = command.reaches(share * undisturbed.cpu_s)
    if hit:
        command.kill()
    run.check_visible()
    run.finish(undisturbed)
    return Injury(hit, f"killed at {share:.0%}")
