"""A store that is slow and fails: 500, 503, resets before and after a request was done, cut bodies."""

from random import Random

from tests.faults.small_run import require_one_line
from tests.faults.store import Weather, served, store_run
from tests.faults.workplace import Injury, Workplace

SHARE = 4


def injure(place: Workplace, random: Random) -> Injury:
    """Up to a third of all requests go wrong, all through the run."""
    weather = Weather(random.uniform(0, 0.02), random.uniform(0.05, 0.33))
    undisturbed = store_run(place, place.fresh()).undisturbed(place, "store")
    run = store_run(place, place.fresh())
    store = served(place).store
    store.seed(random)
    store.weather = weather
    try:
        command = run.start()
        code = command.exit_code()
    finally:
        store.weather = Weather()
    if code:
        require_one_line(command)
    run.check_visible()
    run.finish(undisturbed)
    run.where.clear()
    what = f"{weather.failing:.0%} of requests fail, {weather.latency_s * 1000:.0f} ms each"
    return Injury(True, f"{what}, exit code {code}")
