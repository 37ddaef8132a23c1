"""Keys that the platform renews while a run uses them: the run takes the new ones and is not interrupted."""

from random import Random

from tests.faults.store import SECRET, served, store_run
from tests.faults.workplace import BrokenPromiseError, Injury, Workplace
from tests.forked import Command

SHARE = 2
_ENOUGH = 3  # keys that one command was given


def injure(place: Workplace, random: Random) -> Injury:
    """A key expires after seconds, and a new one is handed out twice a second; nothing is started again."""
    undisturbed = store_run(place, place.fresh()).undisturbed(place, "store")
    store = served(place).store
    scratch = place.fresh()
    environment = served(place).environment_of_platform(scratch / "token")
    run = store_run(place, scratch).with_environment(environment)
    store.renewed.clear()
    store.refused = 0
    command = run.start()
    if command.exit_code():
        raise BrokenPromiseError(f"interrupted by the renewal of its key: {command.said()[-300:].strip()}")
    given, refused = len(store.renewed), store.refused
    run.check_visible()
    run.finish(undisturbed)
    verify = Command(("shards", "verify", f"{run.where.url}/shards"), scratch / "verified.txt", environment)
    if verify.exit_code():
        raise BrokenPromiseError(f"cannot be read with such a key: {verify.said()[-300:].strip()}")
    for name, data in {**run.where.files(), "what it said": command.said().encode()}.items():
        if SECRET.encode() in data or b"token-of-renewed" in data:
            raise BrokenPromiseError(f"the secret is in {name}")
    run.where.clear()
    return Injury(given >= _ENOUGH, f"{given} keys, {refused} requests with one that had expired")
