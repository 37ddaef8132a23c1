"""Why a photo, person, identity or group is in or out: every decision, with scores and thresholds.

A table of the run is read twice at most, however many people there are: once to find what is named, and once
for what was decided about everyone who was found.
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from curation.columns import string_array
from curation.declared import Number
from curation.errors import ConfigError, printable
from curation.excluded.address import COLUMNS, addresses_of, is_web, most_like, nearest, normal
from curation.fragments import stages_counted
from curation.ledger import FAILED, KEPT
from curation.run_folder import Run

_LEAST_PREFIX = 6  # shorter starts of an id name too many things

Later = dict[str, Any]
"""Of a person behind the phase `people`: {identity, group, caption, decisions, shard where it has one}."""


def explain(folder: str, wanted: str) -> dict[str, Any]:
    """{photos: [...]}: each photo that `wanted` names, its decisions, its people and theirs.

    `wanted` is a file name, a source_key, a photo_id, person_id, identity or group, or the start of
    an id; where nothing is called so, a key of img2dataset or WebDataset, TAR/KEY, the end of a source_key,
    or an address. Raises ConfigError, with the nearest name, when nothing of the run is named so.
    """
    run = Run(folder)
    run.require()
    photos = _photos_named(run, wanted) or _photos_named(run, wanted, _keys_meant(run, wanted))
    if not photos:
        short = (
            f" (the start of an id needs {_LEAST_PREFIX} characters)" if len(wanted) < _LEAST_PREFIX else ""
        )
        like = _nearest(run, wanted)
        hint = f"; the nearest photo is '{printable(like)}'" if like else ""
        raise ConfigError(f"{folder}: knows no photo, person, identity or group '{wanted}'{short}{hint}")
    originals = _people_of_originals(run, photos)
    shown = [person["person_id"] for photo in photos for person in photo["people"]]
    later = _later(run, [*shown, *(person_id for ids in originals.values() for person_id in ids)])
    for photo in photos:
        for person in photo["people"]:
            behind = later[person["person_id"]]
            person |= {**behind, "decisions": person["decisions"] + behind["decisions"]}
        copy_of = photo.pop("copy_of")
        people = [
            {"person_id": name, "identity": later[name]["identity"], "group": later[name]["group"]}
            for name in originals.get(copy_of, [])
        ]
        photo["original"] = {"photo_id": copy_of, "people": people} if copy_of else None
    return {"run": folder, "photos": photos}


def _people_of_originals(run: Run, photos: list[dict[str, Any]]) -> dict[str, list[str]]:
    """{photo_id: its person_ids} of the photos that these are copies of."""
    wanted = string_array(sorted({photo["copy_of"] for photo in photos if photo["copy_of"]}))
    found: dict[str, list[str]] = {}
    for table in run.people.tables(["person_id"]) if len(wanted) else ():
        of_photo = pc.utf8_slice_codeunits(table["person_id"], 0, 64)
        for person_id in table["person_id"].filter(pc.is_in(of_photo, wanted)).to_pylist():
            found.setdefault(person_id[:64], []).append(person_id)
    return found


def why_lines(found: dict[str, Any]) -> list[str]:
    """For people: one line a decision."""
    lines: list[str] = []
    for photo in found["photos"]:
        size = f"  {photo['width']} × {photo['height']} px" if photo["width"] else ""
        lines.append(f"photo {photo['photo_id'] or '(no bytes)'}  {photo['source_key']}{size}")
        lines += [f"  {_line(decision)}" for decision in photo["decisions"]]
        for person in photo["original"]["people"] if photo["original"] else []:
            place = f"identity {person['identity'] or 'none'}"
            place += f"  group {person['group']}" if person["group"] else ""
            lines.append(f"  its original shows person {person['person_id'][-12:]}  {place}")
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


def failed_rows(folder: str) -> Iterator[dict[str, Any]]:
    """Every photo, person and group whose last decision is `failed`: {id, stage, reason, detail}."""
    run, failed = Run(folder), string_array([FAILED])
    run.require()
    photos = run.photos_so_far()
    for table in (photos, run.people_photos, run.identities, run.captions):
        for part in table.tables([table.key, "verdict", "decisions"]):
            own = stages_counted(part)
            for row in part.filter(pc.is_in(part["verdict"], failed)).to_pylist():
                last = row["decisions"][-1]
                if table is photos or last["stage"] in own:  # others are told of by a table before
                    yield _failed(row[table.key], last)
    for row in run.outfits.rows(["person_ids", "person_verdicts", "person_decisions"]):
        people = zip(row["person_ids"], row["person_verdicts"], row["person_decisions"], strict=True)
        for person_id, verdict, decisions in people:
            if verdict == FAILED:
                yield _failed(person_id, decisions[-1])
    groups = run.groups(["group", "verdict", "decisions"])
    if groups is not None:
        for row in groups.filter(pc.is_in(groups["verdict"], failed)).to_pylist():
            yield _failed(row["group"], row["decisions"][-1])


def _failed(name: str, decision: dict[str, Any]) -> dict[str, Any]:
    detail = f"{decision['reason']}: {decision['detail']}".strip(": ")
    return {"id": name, "stage": decision["stage"], "reason": decision["reason"], "detail": detail}


def _line(decision: dict[str, Any]) -> str:
    checks = decision["checks"]
    line = f"{decision['stage']:<11} {decision['verdict']:<8}"
    if decision["reason"]:
        line += f" {decision['reason']}"
    if not checks and decision["score"] is not None:
        passed = decision["verdict"] == KEPT
        checks = [{**decision, "name": decision["reason"], "passed": passed}]
    numbers = [_number(decision["stage"], check) for check in _deciding_first(checks, decision["reason"])]
    if numbers:
        line += f" ({', '.join(numbers)})"
    if decision["detail"]:
        line += f" {decision['detail']}"
    if decision["model"]:
        line += f"  [{decision['model']}]"
    return line


def _deciding_first(checks: list[dict[str, Any]], reason: str) -> list[dict[str, Any]]:
    """The check that gave the reason, then the others as they were made."""
    return sorted(checks, key=lambda check: check["name"] != reason)


def _number(stage: str, check: dict[str, Any]) -> str:
    """A check in words; of a stage that declares none (a run of another version), by the check's name."""
    name = check["name"]
    number = _numbers().get((stage, name)) or _declared_number(stage, name)
    number = number or Number("at least", f"{name.replace('_', ' ') or 'score'}:")
    return number.compared(check["score"], check["threshold"], check["passed"])


@cache
def _numbers() -> dict[tuple[str, str], Number]:
    """The stages' numbers as they were written down (`funnel.number_words`)."""
    rows = json.loads(Path(__file__).with_name("number_words.json").read_text())
    return {(stage, name): Number(**about) for stage, name, about in rows}


def _declared_number(stage: str, name: str) -> Number | None:
    """That of a stage of one's own, which nobody has written down."""
    from curation.funnel import NUMBERS

    return NUMBERS.get((stage, name))


def _keys_meant(run: Run, wanted: str) -> list[str]:
    """source_keys of the photos whose key or address this is."""
    photos, found = run.photos_so_far(), list[str]()
    if is_web(wanted):
        # With its query first: what follows ? may be all that tells two photos apart.
        for with_query in (True, False):
            form = normal(wanted, with_query)
            for row in photos.rows(["source_key", *COLUMNS]):
                if any(normal(address, with_query) == form for address in addresses_of(row)):
                    found.append(row["source_key"])
            if found:
                break
        return found
    if not _is_utf8(wanted):
        return found
    tar, slash, key = wanted.rpartition("/")
    folder = f"{re.escape(tar)}(?:[.]tar)?/" if slash else ""
    ends = rf"(?:^|/){folder}{re.escape(key)}(?:[.][^/]*)?$"
    # In Parquet files of img2dataset the key is a column, which lies in the record.
    stated = rf'"key": "{re.escape(wanted)}"'
    for table in photos.tables(["source_key", "metadata"]):
        is_meant = pc.or_(
            pc.match_substring_regex(table["source_key"], ends),
            pc.fill_null(pc.match_substring_regex(table["metadata"], stated), False),
        )
        found += table.filter(is_meant)["source_key"].to_pylist()
    return found


def _is_utf8(word: str) -> bool:
    """Whether Arrow can look for the word as a pattern: bytes of a command line that are no UTF-8 are lone
    surrogates in it."""
    return not any("\ud800" <= letter <= "\udfff" for letter in word)


def _nearest(run: Run, wanted: str) -> str | None:
    """The photo's name, key or address that is most like this one."""
    photos = run.photos_so_far()
    if is_web(wanted):
        return nearest(
            wanted, (a for row in photos.rows(["source_key", *COLUMNS]) for a in addresses_of(row))
        )
    names: Iterable[str] = (
        name
        for row in photos.rows(["source_key", "file_name"])
        for name in ([row["source_key"]] if "/" in wanted else [row["file_name"] or row["source_key"]])
    )
    return most_like(wanted, ((name, name) for name in names))


def _photos_named(run: Run, wanted: str, meant: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The photos that this is a name of, and those with the source_keys `meant`."""
    has_people = len(run.people.fragments()) > 0
    photos = run.people_photos if has_people else run.photos_so_far()
    names, keys = string_array(sorted(_photo_ids_of(run, wanted))), string_array([wanted, *meant])
    columns = ["source_key", "file_name", "photo_id", "width", "height", "verdict", "decisions"]
    found: list[dict[str, Any]] = []
    for table in photos.tables([*columns, "copy_of"]):
        is_wanted = pc.or_(pc.is_in(table["source_key"], keys), pc.is_in(table["file_name"], keys))
        is_wanted = pc.or_(is_wanted, pc.is_in(table["photo_id"], names))
        if len(wanted) >= _LEAST_PREFIX and _is_utf8(wanted):
            is_wanted = pc.or_kleene(is_wanted, pc.starts_with(table["photo_id"], wanted))
        found += [{"copy_of": None, **row, "people": []} for row in table.filter(is_wanted).to_pylist()]
    if has_people and found:
        _add_people(run, found)
    return found


def _add_people(run: Run, photos: list[dict[str, Any]]) -> None:
    by_key = {photo["source_key"]: photo["people"] for photo in photos}
    wanted = string_array(sorted(by_key))
    for table in run.people.tables(["source_key", "person_id", "box", "box_score", "from_face", "decisions"]):
        for row in table.filter(pc.is_in(table["source_key"], wanted)).to_pylist():
            by_key[row["source_key"]].append(
                {
                    "person_id": row["person_id"],
                    "box": [round(value) for value in row["box"]],
                    "score": row["box_score"],
                    "from_face": row.get("from_face") is not None,
                    "decisions": row["decisions"],
                }
            )


def _photo_ids_of(run: Run, wanted: str) -> set[str]:
    """photo_ids of the people that a person_id, identity or group names."""
    if len(wanted) >= 64 and wanted[64:65] == "-":
        return {wanted[:64]}
    names: set[str] = set()
    if len(wanted) < _LEAST_PREFIX or not _is_utf8(wanted):
        return names
    identity = wanted.split("-", 1)[0]
    for table in run.identities.tables(["person_id", "identity"]):
        is_named = pc.starts_with(table["identity"], identity)
        names |= {person[:64] for person in table.filter(is_named)["person_id"].to_pylist()}
    return names


def _later(run: Run, person_ids: Iterable[str]) -> dict[str, Later]:
    """{person_id: what the later phases made of it}."""
    found: dict[str, Later] = {
        person_id: {"identity": None, "group": None, "caption": None, "decisions": []}
        for person_id in person_ids
    }
    wanted = string_array(sorted(found))
    for table in run.identities.tables(["person_id", "identity", "decisions"]) if found else ():
        own = stages_counted(table)
        for row in table.filter(pc.is_in(table["person_id"], wanted)).to_pylist():
            person = found[row["person_id"]]
            person["identity"] = row["identity"]
            person["decisions"] += [d for d in row["decisions"] if d["stage"] in own]
    identities = string_array(sorted({p["identity"] for p in found.values() if p["identity"]}))
    if not len(identities):
        return found
    for table in run.outfits.tables(["identity", "decisions", "person_ids", "person_decisions"]):
        for row in table.filter(pc.is_in(table["identity"], identities)).to_pylist():
            for person_id, decisions in zip(row["person_ids"], row["person_decisions"], strict=True):
                if person_id in found:
                    found[person_id]["decisions"] += [*row["decisions"], *decisions]
    for table in run.captions.tables(["person_id", "group", "photo_caption", "decisions"]):
        for row in table.filter(pc.is_in(table["person_id"], wanted)).to_pylist():
            person = found[row["person_id"]]
            person["group"], person["caption"] = row["group"], row["photo_caption"]
            person["decisions"] += row["decisions"]
    _add_groups(run, found)
    return found


def _add_groups(run: Run, people: dict[str, Later]) -> None:
    """Adds what became of the groups of people, and their shards."""
    wanted = string_array(sorted({person["group"] for person in people.values() if person["group"]}))
    groups = run.groups(["group", "shard", "decisions"]) if len(wanted) else None
    if groups is None:
        return
    rows = {row["group"]: row for row in groups.filter(pc.is_in(groups["group"], wanted)).to_pylist()}
    for person in people.values():
        row = rows.get(person["group"])
        if row is not None:
            person["shard"] = row["shard"]
            person["decisions"] += row["decisions"]
