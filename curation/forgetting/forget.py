"""Forgets photos and people everywhere at once, so that a kill at any moment loses no wish.

    1. tombstones         from here on nothing of it can come back
    2. pending.json       what goes, in which places: the only file that names it, as long as the work lasts
    3. every place        datasets, then runs, indices, labels; each step may be repeated
    4. the search         for ids and addresses in all that was touched
    5. record.jsonl       what was done, signed; then pending.json is removed

A call that finds pending.json completes that wish first; no run starts while it is there.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from curation.errors import ConfigError, PersonaError
from curation.forgetting.labels import forget_in_labels
from curation.forgetting.places import Place
from curation.forgetting.record import add_entry
from curation.forgetting.resolve import Meant, resolve
from curation.forgetting.run_files import Changed, forget_in_dataset, forget_in_run, require_still
from curation.forgetting.search import Searched, search
from curation.forgetting.tombstones import TombstoneStore
from curation.forgetting.unknown import unknown
from curation.forgetting.wish import Wish
from curation.run_folder import Run
from curation.storage import exists, join, read_bytes, remove, write_bytes

PENDING = "pending.json"
_NAMED = 20  # of what is nowhere
_MIN_PHOTOS = 2  # of a group of a dataset that no run is known of


@dataclass(frozen=True)
class Signed:
    """Who forgets, why (free words; name nobody in them), and when (UTC)."""

    by: str
    why: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Forgotten:
    """What was done. `record`: the signed entry; `left`: files in which the search still found something."""

    record: dict[str, Any]
    left: list[str]


def forget(
    store: TombstoneStore,
    wish: Wish,
    places: list[Place],
    signed: Signed,
    *,
    obeyed: Sequence[TombstoneStore] = (),
    missing_ok: bool = False,
    break_lock: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Forgotten | None:
    """Completes what is pending, then does what is wished. None where nothing was pending or wished.

    obeyed      further stores whose tombstones runs here obey: they get the same ones
    missing_ok  ids and addresses that no place knows are no error; they are kept out from now on
    break_lock  takes over locks that a dead process left on datasets in stores

    Raises PersonaError, before anything is changed, where something is named that no place knows, and where a
    run is working.
    """
    done = complete(store, say, break_lock=break_lock)
    if not wish:
        return done
    for place in places:
        if place.kind == "run":
            require_still(place.path)
    meant = resolve(wish, places)
    if not missing_ok:
        require_known(wish, meant, places, store)
    named = () if wish.with_query else wish.urls
    new = store.add(meant.photos, meant.pictures, meant.urls, named)
    for other in obeyed:
        if other.folder != store.folder:
            other.add(meant.photos, meant.pictures, meant.urls, named)
    pending = {
        "id": secrets.token_hex(8),
        "at": signed.at.isoformat(timespec="seconds"),
        "by": signed.by,
        "why": signed.why,
        "asked": wish.counts(),
        "tombstones": new,
        "places": [[place.path, place.kind] for place in places],
        "meant": meant.to_json(),
    }
    write_bytes(join(store.folder, PENDING), json.dumps(pending).encode())
    return complete(store, say, break_lock=break_lock)


def complete(
    store: TombstoneStore, say: Callable[[str], None] = lambda line: None, *, break_lock: bool = False
) -> Forgotten | None:
    """Does what pending.json says, from wherever it stands. None where there is none."""
    path = join(store.folder, PENDING)
    if not exists(path):
        return None
    pending = json.loads(read_bytes(path))
    meant = Meant.from_json(pending["meant"])
    places = [Place(where, kind) for where, kind in pending["places"]]
    touched = []
    for place in places:
        if exists(place.path):
            say(f"{place.kind} {place.path}")
            touched.append({"place": place.path, "kind": place.kind, **_forget_in(place, meant, break_lock)})
    looked = search([p.path for p in places if exists(p.path)], meant.photos, meant.urls)
    looked.left += sorted(set(_stale_side_files(touched)) - set(looked.left))
    key = store.key()
    record = add_entry(
        store.folder,
        key,
        {
            **{name: pending[name] for name in ("id", "at", "by", "why", "asked")},
            "photos": len(meant.photos),
            "tombstones_added": pending["tombstones"],
            "tombstones": store.read().digest(),
            "places": touched,
            "searched": _said(looked),
        },
    )
    remove(path)
    return Forgotten(record, looked.left)


def require_known(wish: Wish, meant: Meant, places: list[Place], store: TombstoneStore) -> None:
    """Raises PersonaError that names what of a wish is nowhere in these places."""
    lines = unknown(wish, meant, places, store.read())
    if lines:
        more = [f"… and {len(lines) - _NAMED} more"] if len(lines) > _NAMED else []
        raise PersonaError(
            "\n".join(
                [
                    f"{len(lines)} of what is named is nowhere in {', '.join(p.path for p in places)}; "
                    "nothing was changed (--missing-ok keeps it out from now on all the same)",
                    *lines[:_NAMED],
                    *more,
                ]
            )
        )


def require_nothing_pending(store: TombstoneStore) -> None:
    """Raises ConfigError where a wish was not completed."""
    if exists(join(store.folder, PENDING)):
        raise ConfigError(
            f"{store.folder}: somebody's wish to be forgotten is not completed: "
            f"persona forget --store {store.folder} --go-on"
        )


def _forget_in(place: Place, meant: Meant, break_lock: bool) -> dict[str, Any]:
    if place.kind == "run":
        keys = meant.keys.get(place.path, [])
        done: Changed = forget_in_run(place.path, meant.photos, keys, break_lock=break_lock)
        said: dict[str, Any] = {"rows": done.rows, "rewritten": done.rewritten, "removed": done.removed}
        return {**said, "dataset": done.dataset} if done.dataset else said
    if place.kind == "dataset":
        dataset = forget_in_dataset(
            place.path, meant.photos, _MIN_PHOTOS, break_lock=break_lock, only_what_is_there=True
        )
        return {"dataset": dataset}
    if place.kind == "index":
        from curation.identities.forget import forget as forget_in_index

        gone = forget_in_index(place.path, photo_ids=meant.photos)
        return {"faces": gone.faces, "identities": len(gone.identities), "rewritten": gone.files}
    return {"pairs": forget_in_labels(place.path, meant.photos)}


def _stale_side_files(touched: list[dict[str, Any]]) -> Iterator[str]:
    """What other programs wrote beside the shards of these places, and was not made anew."""
    for done in touched:
        folder = Run(done["place"]).shards if done["kind"] == "run" else done["place"]
        for name in done.get("dataset", {}).get("stale_side_files", ()):
            yield join(folder, name)


def _said(looked: Searched) -> dict[str, Any]:
    return {"files": looked.files, "bytes": looked.bytes, "left": len(looked.left)}
