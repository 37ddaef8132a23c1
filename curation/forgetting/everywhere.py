"""Forgets photos and people everywhere at once, so that a kill at any moment loses no request.

    1. tombstones         from here on nothing of it can come back
    2. pending.json       what goes, in which places: the only file that names it, as long as the work lasts
    3. every place        datasets, then runs, indices, labels; each step may be repeated
    4. the search         for ids and addresses in all that was touched
    5. record.jsonl       what was done, signed; then pending.json is removed

A call that finds pending.json completes that request first; no run starts while it is there.
"""

import csv
import io
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from curation.errors import ConfigError, PersonaError
from curation.excluded.tombstone_store import TombstoneStore, stores_of
from curation.forgetting.places import Place
from curation.forgetting.record import add_entry
from curation.forgetting.request import ForgetRequest
from curation.forgetting.resolve import ResolvedRequest, resolve, unknown
from curation.forgetting.run_files import Changed, forget_in_dataset, forget_in_run, require_still
from curation.forgetting.run_rows import RowFilter
from curation.forgetting.search import Searched, search
from curation.judging.labelled_pairs import read_labels
from curation.run_folder import Run
from curation.settings import PipelineSettings
from curation.storage import exists, join, read_bytes, remove, write_bytes, write_table

PENDING = "pending.json"
_NAMED = 20  # of what is nowhere
_MIN_PHOTOS = 2  # of a group of a dataset that no run is known of


@dataclass(frozen=True)
class SignedBy:
    """Who made a request, why (free words; name nobody in them), and when (UTC)."""

    by: str
    why: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class ForgetOutcome:
    """The outcome of a request. `record`: the signed entry; `left`: files that still hold something of it."""

    record: dict[str, Any]
    left: list[str]


def forget(
    store: TombstoneStore,
    request: ForgetRequest,
    places: list[Place],
    signed: SignedBy,
    *,
    obeyed: Sequence[TombstoneStore] = (),
    missing_ok: bool = False,
    break_lock: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> ForgetOutcome | None:
    """Completes what is pending, then the request. None where nothing was pending or named.

    obeyed      further stores whose tombstones runs here obey: they get the same ones
    missing_ok  ids and addresses that no place knows are no error; they are kept out from now on
    break_lock  takes over locks that a dead process left on datasets in stores

    Raises PersonaError, before anything is changed, where something is named that no place knows, and where a
    run is working.
    """
    done = complete(store, say, break_lock=break_lock)
    if not request:
        return done
    for place in places:
        if place.kind == "run":
            require_still(place.path)
    resolved = resolve(request, places)
    if not missing_ok:
        require_known(request, resolved, places, store)
    named = () if request.with_query else request.urls
    new = store.add(resolved.photos, resolved.pictures, resolved.urls, named)
    for other in obeyed:
        if other.folder != store.folder:
            other.add(resolved.photos, resolved.pictures, resolved.urls, named)
    pending = {
        "id": secrets.token_hex(8),
        "at": signed.at.isoformat(timespec="seconds"),
        "by": signed.by,
        "why": signed.why,
        "asked": request.counts(),
        "tombstones": new,
        "places": [[place.path, place.kind] for place in places],
        "meant": resolved.to_json(),
    }
    write_bytes(join(store.folder, PENDING), json.dumps(pending).encode())
    return complete(store, say, break_lock=break_lock)


def complete(
    store: TombstoneStore, say: Callable[[str], None] = lambda line: None, *, break_lock: bool = False
) -> ForgetOutcome | None:
    """Does the steps of pending.json, from the first on. None where there is none."""
    path = join(store.folder, PENDING)
    if not exists(path):
        return None
    pending = json.loads(read_bytes(path))
    resolved = ResolvedRequest.from_json(pending["meant"])
    places = [Place(where, kind) for where, kind in pending["places"]]
    touched = []
    for place in places:
        if exists(place.path):
            say(f"{place.kind} {place.path}")
            touched.append(
                {"place": place.path, "kind": place.kind, **_forget_in(place, resolved, break_lock)}
            )
    looked = search([p.path for p in places if exists(p.path)], resolved.photos, resolved.urls)
    looked.left += sorted(set(_stale_side_files(touched)) - set(looked.left))
    key = store.key()
    record = add_entry(
        store.folder,
        key,
        {
            **{name: pending[name] for name in ("id", "at", "by", "why", "asked")},
            "photos": len(resolved.photos),
            "tombstones_added": pending["tombstones"],
            "tombstones": store.read().digest(),
            "places": touched,
            "searched": _counts_of(looked),
        },
    )
    remove(path)
    return ForgetOutcome(record, looked.left)


def require_known(
    request: ForgetRequest, resolved: ResolvedRequest, places: list[Place], store: TombstoneStore
) -> None:
    """Raises PersonaError that names what of a request is nowhere in these places."""
    lines = unknown(request, resolved, places, store.read())
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
    """Raises ConfigError where a request was not completed."""
    if exists(join(store.folder, PENDING)):
        raise ConfigError(
            f"{store.folder}: somebody's request to be forgotten is not completed: "
            f"persona forget --store {store.folder} --go-on"
        )


def _forget_in(place: Place, resolved: ResolvedRequest, break_lock: bool) -> dict[str, Any]:
    if place.kind == "run":
        keys = resolved.keys.get(place.path, [])
        changed: Changed = forget_in_run(place.path, resolved.photos, keys, break_lock=break_lock)
        counts: dict[str, Any] = {
            "rows": changed.rows,
            "rewritten": changed.rewritten,
            "removed": changed.removed,
        }
        return {**counts, "dataset": changed.dataset} if changed.dataset else counts
    if place.kind == "dataset":
        dataset = forget_in_dataset(
            place.path, resolved.photos, _MIN_PHOTOS, break_lock=break_lock, only_what_is_there=True
        )
        return {"dataset": dataset}
    if place.kind == "index":
        from curation.identities.forget import forget as forget_in_index

        gone = forget_in_index(place.path, photo_ids=resolved.photos)
        return {"faces": gone.faces, "identities": len(gone.identities), "rewritten": gone.files}
    return {"pairs": forget_in_labels(place.path, resolved.photos)}


def _stale_side_files(touched: list[dict[str, Any]]) -> Iterator[str]:
    """What other programs wrote beside the shards of these places, and was not made anew."""
    for done in touched:
        folder = Run(done["place"]).shards if done["kind"] == "run" else done["place"]
        for name in done.get("dataset", {}).get("stale_side_files", ()):
            yield join(folder, name)


def _counts_of(looked: Searched) -> dict[str, Any]:
    return {"files": looked.files, "bytes": looked.bytes, "left": len(looked.left)}


def check_before_run(run: str, pipeline: PipelineSettings) -> None:
    """Raises ConfigError where the run must not start."""
    for store in stores_of(run, pipeline.photos.screen.forgotten):
        require_nothing_pending(store)
        store.read()
    revision = (Run(run).dataset or {}).get("revision", 0)
    if revision:
        raise ConfigError(
            f"{Run(run).shards}: is revision {revision} of a dataset that people were taken out of; "
            "packing it anew would lose the positions of trainings that read it: move it away, then the same "
            "command packs another"
        )


_COLUMNS = ("a", "b", "same")


def forget_in_labels(path: str, photos: set[str]) -> int:
    """Removes pairs in which a person_id of these photos stands. Returns how many.

    Raises ConfigError where the file has other columns than such a file has.
    """
    try:
        table = read_labels(path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    if not set(_COLUMNS) <= set(table.column_names):
        raise ConfigError(f"{path}: is no file of labelled pairs (columns a, b, same)")
    forgotten = RowFilter(photos, ())
    stays = [
        not (forgotten.person(str(a)) or forgotten.person(str(b)))
        for a, b in zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)
    ]
    if all(stays):
        return 0
    rest = table.filter(pa.array(stays))
    if path.endswith(".parquet"):
        write_table(path, rest)
    else:
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(rest.column_names)
        lines.writerows(zip(*(column.to_pylist() for column in rest.columns), strict=True))
        write_bytes(path, text.getvalue().encode())
    return stays.count(False)
