"""A store that from some moment on refuses everything: one clear line, and the run goes on when it may."""

from random import Random

from tests.faults.small_run import require_one_line
from tests.faults.store import served, store_run
from tests.faults.workplace import Injury, Workplace

SHARE = 4


def injure(place: Workplace, random: Random) -> Injury:
    """403 from any moment of the run to its end."""
    share = random.random()
    undisturbed = store_run(place, place.fresh()).undisturbed(place, "store")
    run = store_run(place, place.fresh())
    store = served(place).store
    store.refused = 0
    command = run.start()
    command.reaches(share * undisturbed.cpu_s)
    store.denied = True
    try:
        code = command.exit_code()
    finally:
        store.denied = False
    if code:
        require_one_line(command)
    run.check_visible()
    run.finish(undisturbed)
    run.where.clear()
    return Injury(store.refused > 0, f"denied from {share:.0%}, exit code {code}")
