"""SIGKILL of the command while collection and run folder lie in an object store."""

from random import Random

from tests.faults.store import store_run
from tests.faults.workplace import Injury, Workplace

SHARE = 5


def injure(place: Workplace, random: Random) -> Injury:
    """One kill at any moment of the run."""
    share = random.random()
    undisturbed = store_run(place, place.fresh()).undisturbed(place, "store")
    run = store_run(place, place.fresh())
    command = run.start()
    hit = command.reaches(share * undisturbed.cpu_s)
    if hit:
        command.kill()
    run.check_visible()
    run.finish(undisturbed)
    run.where.clear()
    return Injury(hit, f"killed at {share:.0%}")
