"""`persona identities`: what an index holds, and the joins of identities that it proposes."""

import argparse
import json
from typing import Any

from shards.command_line import add_command


def mount(parser: argparse.ArgumentParser) -> None:
    """Adds the actions to the command `identities`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = add_command(
        actions, "list", _list, "what an index holds, and its merges", "persona identities list faces/index"
    )
    listing.add_argument("index", metavar="INDEX", help="the folder that identities.index names")
    listing.add_argument("--state", choices=("proposed", "accepted", "reverted"), help="merges in this state")
    listing.add_argument("--json", action="store_true")

    propose = add_command(
        actions,
        "propose",
        _propose,
        "look through the whole index for identities that may be one",
        "persona identities propose faces/index --merge-cosine 0.45",
    )
    propose.add_argument("index", metavar="INDEX")
    propose.add_argument(
        "--merge-cosine", type=float, required=True, help="least mean cosine over all pairs of faces"
    )
    propose.add_argument("--json", action="store_true")

    for name, run, says in (
        ("accept", _accept, "make the identities of a merge one, from the next run on"),
        ("revert", _revert, "make them two again"),
    ):
        action = add_command(actions, name, run, says, f"persona identities {name} faces/index 1f0c93ab")
        action.add_argument("index", metavar="INDEX")
        action.add_argument("merges", metavar="MERGE", nargs="*", help="ids that `list` shows")
        action.add_argument("--all", action="store_true", help="every merge that is not in that state")
        action.add_argument("--json", action="store_true")

    forgetting = add_command(
        actions,
        "forget",
        _forget,
        "take people out of an index",
        "persona identities forget faces/index --identity 1f0c93ab5d…",
    )
    forgetting.add_argument("index", metavar="INDEX")
    forgetting.add_argument("--identity", nargs="+", default=[], help="with all that is joined with it")
    forgetting.add_argument("--person", nargs="+", default=[], help="person_ids")
    forgetting.add_argument("--photo", nargs="+", default=[], help="photo_ids: everyone on them")
    forgetting.add_argument("--json", action="store_true")


def _list(options: argparse.Namespace) -> int:
    from curation.identities.index import IdentityIndex

    index = IdentityIndex(options.index)
    sizes = index.sizes()
    said: dict[str, Any] = {
        "embedder": index.embedder_name,
        "additions": {name: index.day_of(name).isoformat() for name in index.additions()},
        "faces": sum(sizes.values()),
        "identities": len(sizes),
        "of_one_face": sum(size == 1 for size in sizes.values()),
        "merges": [
            {
                "id": key,
                "state": entry.state,
                "by": entry.by,
                "into": entry.into,
                "other": entry.other,
                "cosine": entry.cosine,
            }
            for key, entry in sorted(index.merges.entries.items())
            if options.state in (None, entry.state)
        ],
    }
    if options.json:
        print(json.dumps(said))
        return 0
    print(
        f"{said['faces']} faces of {said['identities']} identities ({said['of_one_face']} of one face), "
        f"embedder {said['embedder']}"
    )
    for name, day in said["additions"].items():
        print(f"  {day}  {name}")
    for merge in said["merges"]:
        print(
            f"{merge['id']}  {merge['state']:<8}  {merge['other']} into {merge['into']}  "
            f"cosine {merge['cosine']:g}  by {merge['by']}"
        )
    return 0


def _propose(options: argparse.Namespace) -> int:
    from curation.engine import Job
    from curation.errors import ConfigError
    from curation.identities.index import IdentityIndex
    from curation.identities.propose import propose_merges

    if not -1 <= options.merge_cosine <= 1:
        raise ConfigError(f"--merge-cosine {options.merge_cosine:g}: must be between -1 and 1")
    index = IdentityIndex(options.index)
    job = Job(options.index, None, {})  # type: ignore[arg-type]  # the search asks nothing of a pipeline
    new = propose_merges(index, options.merge_cosine, job)
    print(json.dumps({"new": new}) if options.json else f"{new} new proposals")
    return 0


def _accept(options: argparse.Namespace) -> int:
    return _decide(options, "accepted")


def _revert(options: argparse.Namespace) -> int:
    return _decide(options, "reverted")


def _decide(options: argparse.Namespace, state: str) -> int:
    from curation.errors import ConfigError
    from curation.identities.index import IdentityIndex

    merges = IdentityIndex(options.index).merges
    from_state = "proposed" if state == "accepted" else "accepted"
    ids = options.merges
    if options.all:
        ids = [key for key, entry in merges.entries.items() if entry.state == from_state]
    elif not ids:
        raise ConfigError(f"{options.index}: name merges, or give --all")
    if state == "accepted":
        merges.accept(ids)
    else:
        merges.revert(ids)
    merges.save()
    print(json.dumps({state: ids}) if options.json else f"{len(ids)} merges are {state}")
    return 0


def _forget(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from curation.errors import ConfigError
    from curation.identities.forget import forget

    if not (options.identity or options.person or options.photo):
        raise ConfigError(f"{options.index}: say whom: --identity, --person or --photo")
    found = forget(
        options.index, person_ids=options.person, photo_ids=options.photo, identities=options.identity
    )
    if options.json:
        print(json.dumps(asdict(found)))
        return 0
    print(
        f"{found.faces} faces forgotten in {found.files} files; {len(found.identities)} identities have none "
        f"left, {found.merges} merges deleted, {found.proposed} proposed anew"
    )
    return 0
