"""`persona identities`: what an index holds, and the joins of identities that it proposes."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from edges.command_line import add_command

if TYPE_CHECKING:
    from curation.identities.merges import Merges


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

    for name, run, says, every in (
        ("accept", _accept, "make the identities of a merge one, from the next run on", "proposed"),
        ("revert", _revert, "make them two again", "accepted"),
    ):
        action = add_command(actions, name, run, says, f"persona identities {name} faces/index 1f0c93ab")
        action.add_argument("index", metavar="INDEX")
        action.add_argument("merges", metavar="MERGE", nargs="*", help="ids that `list` shows")
        action.add_argument("--all", action="store_true", help=f"every merge that is {every}")
        action.add_argument("--json", action="store_true")
        if name == "accept":
            action.add_argument(
                "--despite-shared-photo",
                action="store_true",
                help="accept the one MERGE although both have a face on one photo, as in a mirror or collage",
            )

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
    about: dict[str, Any] = {
        "embedder": index.embedder_name,
        "additions": {name: index.day_of(name).isoformat() for name in index.additions()},
        "index_days": index.days,
        "expired": index.expired(),
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
        print(json.dumps(about))
        return 0
    print(
        f"{about['faces']} faces of {about['identities']} identities ({about['of_one_face']} of one face), "
        f"embedder {about['embedder']}"
    )
    for name, day in about["additions"].items():
        old = name in about["expired"]
        print(f"  {day}  {name}" + (f"  expired: older than {index.days} days" if old else ""))
    for merge in about["merges"]:
        print(
            f"{merge['id']}  {merge['state']:<8}  {merge['other']} into {merge['into']}  "
            f"cosine {merge['cosine']:g}  by {merge['by']}"
        )
    return 0


def _propose(options: argparse.Namespace) -> int:
    from curation.errors import ConfigError
    from curation.identities.index import IdentityIndex
    from curation.identities.joining import propose_merges

    if not -1 <= options.merge_cosine <= 1:
        raise ConfigError(f"--merge-cosine {options.merge_cosine:g}: must be between -1 and 1")
    index = IdentityIndex(options.index)
    new = propose_merges(index, options.merge_cosine)
    print(json.dumps({"new": new}) if options.json else f"{new} new proposals")
    return 0


def _accept(options: argparse.Namespace) -> int:
    from curation.errors import ConfigError
    from curation.identities.index import IdentityIndex
    from curation.identities.joining import accept_merges

    if options.despite_shared_photo and (options.all or len(options.merges) != 1):
        raise ConfigError("--despite-shared-photo: is said of one merge that you name")
    index = IdentityIndex(options.index)
    merges = index.merges
    ids = _chosen(options, merges, "proposed")
    refused = accept_merges(index, merges, ids, options.despite_shared_photo)
    if refused and not options.all:
        # Who names merges wants those: nothing is done by halves.
        raise ConfigError(f"{options.index}: {next(iter(refused.values()))}")
    merges.save()
    accepted = [key for key in ids if key not in refused]
    if options.json:
        print(json.dumps({"accepted": accepted, "refused": refused}))
        return 0
    for line in refused.values():
        print(line, file=sys.stderr)
    print(f"{len(accepted)} merges are accepted" + (f", {len(refused)} refused" if refused else ""))
    return 0


def _revert(options: argparse.Namespace) -> int:
    from curation.identities.index import IdentityIndex

    merges = IdentityIndex(options.index).merges
    ids = _chosen(options, merges, "accepted")
    still_one = merges.revert(ids)
    merges.save()
    if options.json:
        print(json.dumps({"reverted": ids, "still_one": still_one}))
        return 0
    for key in still_one:
        print(f"merge {key}: its identities are still one, through other accepted merges", file=sys.stderr)
    print(f"{len(ids)} merges are reverted")
    return 0


def _chosen(options: argparse.Namespace, merges: "Merges", state: str) -> list[str]:
    """The merges that are named, each once; with --all, those in this state."""
    from curation.errors import ConfigError

    if options.all:
        return [key for key, entry in sorted(merges.entries.items()) if entry.state == state]
    if not options.merges:
        raise ConfigError(f"{options.index}: name merges, or give --all")
    return list(dict.fromkeys(options.merges))


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
