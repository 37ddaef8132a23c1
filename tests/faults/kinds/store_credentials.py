"""Credentials that change while a run uses them: one clear line without a secret; then on with the new."""

from random import Random

from tests.faults.small_run import require_one_line
from tests.faults.store import KEY, served, store_run
from tests.faults.workplace import BrokenPromiseError, Injury, Workplace

SHARE = 3


def injure(place: Workplace, random: Random) -> Injury:
    """The key is refused from any moment of the run; the run is started again with another one."""
    share = random.random()
    undisturbed = store_run(place, place.fresh()).undisturbed(place, "store")
    run = store_run(place, place.fresh())
    store = served(place).store
    store.refused = 0
    command = run.start()
    command.reaches(share * undisturbed.cpu_s)
    store.keys.add("second-key")
    store.keys.discard(KEY)
    try:
        code = command.exit_code()
        if code:
            require_one_line(command)
        run.check_visible()
        second = {**run.environment, "AWS_ACCESS_KEY_ID": "second-key"}
        run.with_environment(second).finish(undisturbed)
    finally:
        store.keys.add(KEY)
        store.keys.discard("second-key")
    secret = str(run.environment["AWS_SECRET_ACCESS_KEY"]).encode()
    for name, data in {**run.where.files(), "what it said": command.said().encode()}.items():
        if secret in data:
            raise BrokenPromiseError(f"the secret is in {name}")
    run.where.clear()
    return Injury(store.refused > 0, f"changed at {share:.0%}, exit code {code}")
