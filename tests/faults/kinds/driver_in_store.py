"""SIGKILL of the command while collection and run folder lie in an object store."""

from random import Random

from tests.faults.kinds.driver import kill
from tests.faults.store import store_run
from tests.faults.workplace import Injury, Workplace

SHARE = 5


def injure(place: Workplace, random: Random) -> Injury:
    """One kill at any moment of the run."""
    injury, run = kill(place, random, store_run, "store")
    run.where.clear()
    return injury
