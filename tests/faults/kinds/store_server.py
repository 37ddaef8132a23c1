"""SIGKILL of the object store's server, which comes back after a while; the command may wait or stop."""

import time
from random import Random

from tests.faults.small_run import require_one_line
from tests.faults.store import served, store_run
from tests.faults.workplace import Injury, Workplace

SHARE = 5


def injure(place: Workplace, random: Random) -> Injury:
    """One kill at any moment, and up to two seconds without a server."""
    share, away_s = random.random(), random.uniform(0, 2)
    undisturbed = store_run(place, place.fresh()).undisturbed(place, "store")
    run = store_run(place, place.fresh())
    gate = served(place).gate
    command = run.start()
    hit = command.reaches(share * undisturbed.cpu_s)
    gate.kill()
    time.sleep(away_s)
    gate.open()
    if command.exit_code():
        require_one_line(command)
    run.check_visible()
    run.finish(undisturbed)
    run.where.clear()
    return Injury(hit, f"killed at {share:.0%}, away {away_s:.1f} s, exit code {command.exit_code()}")
