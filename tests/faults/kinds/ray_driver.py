"""SIGKILL of the command of a run on Ray, whose workers are in the middle of something."""

import time
from random import Random

from tests.faults.cluster import ray_run
from tests.faults.workplace import Injury, Workplace

SHARE = 2


def injure(place: Workplace, random: Random) -> Injury:
    """One kill at any moment; the same command goes on on the same cluster."""
    share = random.random()
    undisturbed = ray_run(place, place.fresh()).undisturbed(place, "ray")
    run = ray_run(place, place.fresh())
    command = run.start()
    began = time.monotonic()
    while command.running() and time.monotonic() - began < share * undisturbed.seconds:
        time.sleep(0.005)
    hit = command.running()
    if hit:
        command.kill()
    run.check_visible()
    run.finish(undisturbed)
    return Injury(hit, f"killed at {share:.0%}")
