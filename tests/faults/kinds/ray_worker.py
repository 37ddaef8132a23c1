"""SIGKILL of a worker of a run on Ray, idle or at work; the run goes on by itself."""

import time
from random import Random

import psutil

from tests.faults.cluster import ray_run, workers
from tests.faults.workplace import BrokenPromiseError, Injury, Workplace

SHARE = 3


def injure(place: Workplace, random: Random) -> Injury:
    """One kill at any moment after the first worker is there."""
    share, which = random.random(), random.random()
    undisturbed = ray_run(place, place.fresh()).undisturbed(place, "ray")
    run = ray_run(place, place.fresh())
    command = run.start()
    began = time.monotonic()
    hit = False
    while command.running() and not hit:
        there = workers()
        if there and time.monotonic() - began >= share * undisturbed.seconds:
            try:
                there[int(which * len(there))].kill()
                hit = True
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.02)
    if command.exit_code():
        raise BrokenPromiseError(f"a lost worker stopped the run: {command.said()[-300:].strip()}")
    run.check_visible()
    run.finish(undisturbed)
    return Injury(hit, f"killed at {share:.0%}")
