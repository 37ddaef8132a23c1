"""The photos that a request would take out, to be looked at before it is done (`forget --dry-run`)."""

from collections.abc import Iterator, Sequence
from typing import Any

from curation.errors import PersonaError
from curation.forgetting.places import Place
from curation.forgetting.resolve import PHOTO_DIGITS, ResolvedRequest, photo_rows
from curation.run_folder import Run
from shards.format.dataset import DatasetError
from shards.tools.dataset_rows import DatasetRows


def list_photos(resolved: ResolvedRequest, places: Sequence[Place]) -> Iterator[dict[str, Any]]:
    """{place, file, photo_id, groups, copy_of} of every photo that goes, place by place.

    file     its source_key, of a dataset its member
    groups   keys of the groups that it is in
    copy_of  photo_id of the photo that its run took it for a copy of, or None
    """
    for place in places:
        if place.kind == "run":
            yield from _of_run(place.path, resolved)
        elif place.kind == "dataset":
            yield from _of_dataset(place.path, resolved)


def _of_run(run: str, resolved: ResolvedRequest) -> Iterator[dict[str, Any]]:
    wanted = set(resolved.keys.get(run, ()))
    found: dict[str, dict[str, Any]] = {}
    for row in photo_rows(run) if wanted else ():
        if row["source_key"] in wanted:
            photo = found.setdefault(row["source_key"], {"photo_id": None, "copy_of": None})
            photo |= {name: row[name] for name in ("photo_id", "copy_of") if row[name] is not None}
    groups = _groups_of(run, {photo["photo_id"] for photo in found.values()}) if found else {}
    for key, photo in sorted(found.items()):
        yield {"place": run, "file": key, **photo, "groups": sorted(groups.get(photo["photo_id"], ()))}


def _groups_of(run: str, photos: set[str | None]) -> dict[str | None, set[str]]:
    """{photo_id: groups} by the run's captions."""
    found: dict[str | None, set[str]] = {}
    for row in Run(run).captions.rows(["person_id", "group"]):
        photo_id = row["person_id"][:PHOTO_DIGITS]
        if photo_id in photos and row["group"] is not None:
            found.setdefault(photo_id, set()).add(row["group"])
    return found


def _of_dataset(folder: str, resolved: ResolvedRequest) -> Iterator[dict[str, Any]]:
    try:
        dataset = DatasetRows(folder)
        for number, key in enumerate(dataset.all_keys()):
            for suffix, photo_id in dataset.photo_ids(number).items():
                if photo_id in resolved.photos:
                    file = f"{key}.{suffix}"
                    photo = {"file": file, "photo_id": photo_id, "copy_of": None, "groups": [key]}
                    yield {"place": folder, **photo}
        dataset.close()
    except DatasetError as error:
        raise PersonaError(str(error)) from None
