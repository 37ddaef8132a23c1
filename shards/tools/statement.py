"""One page of what is known of a dataset's rights, for people who decide whether it may be used.

Everything is of dataset.json, which the run wrote and every tool keeps true; nothing is judged here.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shards.reading.folder import read_dataset_json
from shards.tools.commands import folder_of

_FILTERS = (
    ("photos.screen.licences", "only photos of allowed licences"),
    ("photos.screen.consent", "only photos whose people agreed"),
    ("people.nsfw", "a classifier of nudity"),
    ("people.age", "a classifier of minors"),
)
_BIOMETRIC = """The shards hold no embedding of a face. They hold what was found on each photo: a box and five
points of the face, joints, a map of body parts, and a random name for the person. Whether these are
biometric data depends on what they are used for. The run that made the dataset computed embeddings of
faces; they lie in its run folder and, where one was used, in an identity index, and not here."""
_PUBLISH = """Photos may be handed on where their licences say so, each with its credit (`persona shards
credits`). That a licence of a photo permits its use says nothing about the people on it: their rights are
their own."""


def statement(folder: str) -> str:
    """The page, as Markdown. Raises DatasetError where the folder is no dataset."""
    about = read_dataset_json(folder)
    parts = [
        f"# {about.get('pipeline') or 'Dataset'}: what is known of its rights",
        _table(
            [
                ("groups, photos", f"{about.get('groups', 0)}, {about.get('photos', 0)}"),
                ("revision", about.get("revision", 0)),
                ("config", f"`{about.get('config') or 'unknown'}`"),
            ]
        ),
        "## Licences",
        _allowed(about),
        _table([(name, f"{count} photos") for name, count in about.get("licences", {}).items()]),
        "## Wishes",
        "\n".join(f"- {line}" for line in _wishes(about)),
        "## Filters",
        "\n".join(f"- {line}" for line in _filters(about)),
        "## Biometric data",
        _BIOMETRIC,
        "## Handing it on",
        _PUBLISH,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _allowed(about: Mapping[str, Any]) -> str:
    settings = about.get("settings")
    if not settings:
        return "It is not known which licences were let in: the dataset was not made by `persona curate`."
    allowed = settings.get("photos.screen.licences")
    if allowed is None:
        return "No allow-list was set: photos of every licence came in, also those that state none."
    return f"Let in were: {', '.join(f'`{name}`' for name in allowed)}. As the collection states them:"


def _wishes(about: Mapping[str, Any]) -> list[str]:
    listed, revision = about.get("opt_out"), about.get("revision", 0)
    if listed:
        lines = [
            f"An opt-out list of {listed['lines']} lines (sha256 `{listed['sha256']}`) was obeyed; "
            f"{listed['matched']} of them matched a photo of the collection."
        ]
    else:
        lines = ["No opt-out list was set."]
    revision -= len(about.get("stripped", {}).get("revisions", []))  # these took nobody out
    if revision:
        lines.append(f"{revision} times somebody was taken out since; `{_tombstones(about)}` keeps them out.")
    else:
        lines.append("Nobody was taken out since.")
    return lines


def _tombstones(about: Mapping[str, Any]) -> str:
    stated = about.get("tombstones")
    return str(stated["name"]) if isinstance(stated, Mapping) else "dataset.json"


def _filters(about: Mapping[str, Any]) -> list[str]:
    settings = about.get("settings")
    if not settings:
        return ["It is not known which filters were on."]
    lines = []
    for key, says in _FILTERS:
        on = {name: value for name, value in settings.items() if name == key or name.startswith(f"{key}.")}
        is_on = any(value not in (None, False) for value in on.values())
        told = ", ".join(f"`{name}` {json.dumps(value)}" for name, value in on.items()) if is_on else ""
        lines.append(f"{says}: {'on, ' + told if is_on else 'off'}")
    return lines


def _table(rows: list[tuple[str, Any]]) -> str:
    if not rows:
        return ""
    cells = [(str(name).replace("|", "\\|"), value) for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in cells)])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards statement`."""
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--out", metavar="FILE", help="default: printed")


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns 0."""
    page = statement(folder_of(options.folder))
    if options.out is not None:
        Path(options.out).write_text(page, encoding="utf-8")
    else:
        print(json.dumps({"statement": page}) if options.json else page, end="\n" if options.json else "")
    return 0
