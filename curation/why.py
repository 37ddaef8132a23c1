"""Why a photo, person, identity or group is in or out: every decision, with scores and thresholds."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import ConfigError, printable
from curation.fragments import list_fragments
from curation.ledger import FAILED
from curation.people.lone_faces import own_faces
from curation.report.fragment_rows import tables
from curation.run_folder import require_run
from curation.storage import exists, join, read_table

_LEAST_PREFIX = 6  # shorter starts of an id name too many things


def explain(run: str, wanted: str) -> dict[str, Any]:
    """{photos: [...]}: each photo that `wanted` names, its decisions, its people and theirs.

    `wanted` is a file name, a source_key, a photo_id, person_id, identity or group, or the start of
    an id. Raises ConfigError when nothing of the run is named so.
    """
    require_run(run)
    photos = _photos_named(run, wanted)
    if not photos:
        short = (
            f" (the start of an id needs {_LEAST_PREFIX} characters)" if len(wanted) < _LEAST_PREFIX else ""
        )
        raise ConfigError(f"{run}: knows no photo, person, identity or group '{wanted}'{short}")
    later = _decisions_by_person(run)
    found = []
    for photo in photos:
        people = []
        for person in photo.pop("people"):
            extra = later(person["person_id"])
            people.append({**person, **extra, "decisions": person["decisions"] + extra["decisions"]})
        found.append({**photo, "people": people})
    _follow(run, found, later)
    return {"run": run, "photos": found}


def _follow(run: str, photos: list[dict[str, Any]], later: Any) -> None:
    """Sets `original` of each copy: {photo_id, people}, whom its original shows; None of other photos."""
    wanted = pa.array(sorted({photo["copy_of"] for photo in photos if photo["copy_of"]}), pa.string())
    shown: dict[str, list[dict[str, Any]]] = {}
    for table in tables(run, "people", ["photo_id", "copy_of", "person_ids"]) if len(wanted) else ():
        mine = pc.and_(pc.is_in(table["photo_id"], wanted), pc.is_null(table["copy_of"]))
        for row in table.filter(mine).to_pylist():
            told = {person_id: later(person_id) for person_id in row["person_ids"]}
            shown[row["photo_id"]] = [
                {"person_id": person_id, "identity": more["identity"], "group": more["group"]}
                for person_id, more in told.items()
            ]
    for photo in photos:
        copy_of = photo.pop("copy_of")
        photo["original"] = {"photo_id": copy_of, "people": shown.get(copy_of, [])} if copy_of else None


def why_lines(found: dict[str, Any]) -> list[str]:
    """For people: one line a decision."""
    lines: list[str] = []
    for photo in found["photos"]:
        size = f"  {photo['width']} × {photo['height']} px" if photo["width"] else ""
        lines.append(f"photo {photo['photo_id'] or '(no bytes)'}  {photo['source_key']}{size}")
        lines += [f"  {_line(decision)}" for decision in photo["decisions"]]
        for person in photo["original"]["people"] if photo["original"] else []:
            told = f"identity {person['identity'] or 'none'}"
            told += f"  group {person['group']}" if person["group"] else ""
            lines.append(f"  its original shows person {person['person_id'][-12:]}  {told}")
        for person in photo["people"]:
            lines.append(f"  person {person['person_id'][-12:]}  box {person['box']}")
            if person["from_face"]:
                lines[-1] += "  derived from a face"
            if person.get("identity"):
                lines[-1] += f"  identity {person['identity']}"
            if person.get("group"):
                lines[-1] += f"  group {person['group']}"
            lines += [f"    {_line(decision)}" for decision in person["decisions"]]
            if person.get("caption"):
                lines.append(f"    caption: {person['caption']}")
    # Names and captions are those of strangers.
    return [printable(line) for line in lines]


def failed_rows(run: str) -> Iterator[dict[str, Any]]:
    """Every photo, person and group whose last decision is `failed`: {id, stage, reason, detail}."""
    require_run(run)
    photos = "photos" if list_fragments(join(run, "photos")) else "photos/_screened"
    for folder in (photos, "people", "identities", "captions"):
        key = "person_id" if folder in ("identities", "captions") else "source_key"
        for table in _tables(run, folder, [key, "verdict", "decisions"]):
            for row in table.filter(pc.equal(table["verdict"], FAILED)).to_pylist():
                last = row["decisions"][-1]
                if folder == "people" and last["stage"] in ("read", "screen", "copies"):
                    continue
                if folder == "identities" and last["stage"] != "identity":
                    continue
                yield _failed(row[key], last)
    for table in _tables(run, "outfits", ["person_ids", "person_verdicts", "person_decisions"]):
        for row in table.to_pylist():
            people = zip(row["person_ids"], row["person_verdicts"], row["person_decisions"], strict=True)
            for person_id, verdict, decisions in people:
                if verdict == FAILED:
                    yield _failed(person_id, decisions[-1])
    path = join(run, "packing", "groups.parquet")
    if exists(path):
        groups = read_table(path, ["group", "verdict", "decisions"])
        for row in groups.filter(pc.equal(groups["verdict"], FAILED)).to_pylist():
            yield _failed(row["group"], row["decisions"][-1])


def _failed(name: str, decision: dict[str, Any]) -> dict[str, Any]:
    detail = f"{decision['reason']}: {decision['detail']}".strip(": ")
    return {"id": name, "stage": decision["stage"], "reason": decision["reason"], "detail": detail}


def _line(decision: dict[str, Any]) -> str:
    checks = decision["checks"]
    said = f"{decision['stage']:<11} {decision['verdict']:<8}"
    if decision["reason"]:
        said += f" {decision['reason']}"
    if decision["score"] is not None:
        said += f" (measured {decision['score']:g}, threshold {decision['threshold']:g})"
    elif len(checks) > 1:
        numbers = ", ".join(f"{c['name']} {c['score']:g}/{c['threshold']:g}" for c in checks)
        said += f" ({numbers})"
    if decision["detail"]:
        said += f" {decision['detail']}"
    if decision["model"]:
        said += f"  [{decision['model']}]"
    return said


def _photos_named(run: str, wanted: str) -> list[dict[str, Any]]:
    folder = "people" if list_fragments(join(run, "people")) else "photos"
    if not list_fragments(join(run, folder)):
        folder = "photos/_screened"
    names = _photo_ids_of(run, wanted)
    columns = ["source_key", "file_name", "photo_id", "width", "height", "verdict", "decisions"]
    if folder == "people":
        columns += ["person_ids", "person_verdicts", "person_decisions", "boxes", "box_scores"]
    found = []
    for table in tables(run, folder, [*columns, "from_face", "copy_of"]):
        is_wanted = pc.or_(pc.equal(table["source_key"], wanted), pc.equal(table["file_name"], wanted))
        if names:
            is_wanted = pc.or_kleene(is_wanted, pc.is_in(table["photo_id"], pa.array(sorted(names))))
        if len(wanted) >= _LEAST_PREFIX:
            is_wanted = pc.or_kleene(is_wanted, pc.starts_with(table["photo_id"], wanted))
        for row in table.filter(pc.fill_null(is_wanted, False)).to_pylist():
            derived = own_faces(row)
            people = [
                {
                    "person_id": person_id,
                    "box": [round(value) for value in row["boxes"][i]],
                    "score": row["box_scores"][i],
                    "from_face": i in derived,
                    "decisions": row["person_decisions"][i],
                }
                for i, person_id in enumerate(row.get("person_ids") or [])
            ]
            photo = {name: row[name] for name in columns[:7]} | {"copy_of": row.get("copy_of")}
            found.append({**photo, "people": people})
    return found


def _photo_ids_of(run: str, wanted: str) -> set[str]:
    """photo_ids of the people that a person_id, identity or group names."""
    if len(wanted) >= 64 and wanted[64:65] == "-":
        return {wanted[:64]}
    names: set[str] = set()
    if len(wanted) < _LEAST_PREFIX:
        return names
    identity = wanted.split("-", 1)[0]
    for table in _tables(run, "identities", ["person_id", "identity"]):
        mine = pc.fill_null(pc.starts_with(table["identity"], identity), False)
        names |= {person[:64] for person in table.filter(mine)["person_id"].to_pylist()}
    return names


def _decisions_by_person(run: str) -> Any:
    """A function of a person_id: identity, group, caption and the decisions of the later phases."""

    def later(person_id: str) -> dict[str, Any]:
        found: dict[str, Any] = {"identity": None, "group": None, "caption": None, "decisions": []}
        for table in _tables(run, "identities", ["person_id", "identity", "decisions"]):
            for row in table.filter(pc.equal(table["person_id"], person_id)).to_pylist():
                found["identity"] = row["identity"]
                found["decisions"] += [d for d in row["decisions"] if d["stage"] in ("minor", "identity")]
        if found["identity"] is None:
            return found
        columns = ["identity", "decisions", "person_ids", "person_decisions"]
        for table in _tables(run, "outfits", columns):
            for row in table.filter(pc.equal(table["identity"], found["identity"])).to_pylist():
                if person_id in row["person_ids"]:
                    found["decisions"] += row["decisions"]
                    found["decisions"] += row["person_decisions"][row["person_ids"].index(person_id)]
        columns = ["person_id", "group", "photo_caption", "decisions"]
        for table in _tables(run, "captions", columns):
            for row in table.filter(pc.equal(table["person_id"], person_id)).to_pylist():
                found["group"], found["caption"] = row["group"], row["photo_caption"]
                found["decisions"] += row["decisions"]
        path = join(run, "packing", "groups.parquet")
        if found["group"] is not None and exists(path):
            groups = read_table(path)
            for row in groups.filter(pc.equal(groups["group"], found["group"])).to_pylist():
                found["shard"] = row["shard"]
                found["decisions"] += row["decisions"]
        return found

    return later


def _tables(run: str, folder: str, columns: list[str]) -> Iterator[pa.Table]:
    place = join(run, *folder.split("/"))
    for fragment in list_fragments(place):
        yield read_table(join(place, fragment.name), columns)
