"""`persona forget`: takes photos and people out of everything below some folders, and keeps them out."""

import argparse
import getpass
import json
import sys
from dataclasses import replace
from functools import partial
from typing import Any

from edges.command_line import add_command


def mount(commands: Any) -> None:
    """Adds the command."""
    forget = add_command(
        commands,
        "forget",
        _forget,
        "take people or photos out of runs, datasets, indices and reports, for good",
        "persona forget runs --url https://example.org/a.jpg --why 'request 17'",
    )
    forget.add_argument(
        "places", metavar="PLACE", nargs="*", default=["runs"],
        help="runs, datasets, identity indices, files of labels, or folders that hold some, by path or URL "
        "(default: runs)",
    )  # fmt: skip
    forget.add_argument(
        "--photo", metavar="ID", nargs="+", action="extend", default=[], help="sha256 of its bytes"
    )
    forget.add_argument(
        "--person", metavar="ID", nargs="+", action="extend", default=[],
        help="an identity or a person_id: all photos of that person",
    )  # fmt: skip
    forget.add_argument(
        "--url", metavar="URL", nargs="+", action="extend", default=[], help="of a photo or its page"
    )
    forget.add_argument(
        "--hash", metavar="FILE", nargs="+", action="extend", default=[],
        help="a photo that somebody sent: it goes in whatever encoding or size it is there",
    )  # fmt: skip
    forget.add_argument("--from", metavar="FILE", dest="file", help="a list: docs/forgetting.md")
    forget.add_argument(
        "--store", metavar="DIR", help="of tombstones and record (default: `forgotten` beside the runs)"
    )
    forget.add_argument("--by", metavar="NAME", help="who signs the record (default: this account)")
    forget.add_argument("--why", default="", metavar="WORDS", help="kept in the record; name nobody in it")
    forget.add_argument(
        "--with-query", action="store_true",
        help="what follows ? in an address counts: without it ?w=1024 and ?w=64 are one photo",
    )  # fmt: skip
    forget.add_argument(
        "--missing-ok",
        action="store_true",
        help="what is nowhere here is kept out too, and no error",
    )
    forget.add_argument(
        "--dry-run", action="store_true", help="list each photo that would go, and change nothing"
    )
    forget.add_argument(
        "--go-on", action="store_true", help="complete a request that was interrupted, and no more"
    )
    forget.add_argument(
        "--break-lock", action="store_true",
        help="take over the lock that a dead process left on a dataset in an object store",
    )  # fmt: skip
    forget.add_argument(
        "--records", action="store_true", help="check and print the record of what was forgotten"
    )
    forget.add_argument("--json", action="store_true")


def _forget(options: argparse.Namespace) -> int:
    from curation.absolute import absolute_path
    from curation.errors import ConfigError
    from curation.excluded.tombstone_store import TombstoneStore
    from curation.forgetting.everywhere import (
        SignedBy,
        complete,
        forget,
        require_known,
        require_nothing_pending,
    )
    from curation.forgetting.places import find_places, store_for, stores_of_runs
    from curation.forgetting.request import read_requests, request_of
    from curation.forgetting.resolve import list_photos, resolve

    paths = [absolute_path(path) for path in options.places]
    store = TombstoneStore(absolute_path(options.store) if options.store else store_for(paths))
    if options.records:
        return _records(store, options.json)
    say = partial(_say, options)
    if options.go_on:
        done = complete(store, say, break_lock=options.break_lock)
        return 0 if done is None else _tell(done.record, done.left, store.folder, options.json)
    request = request_of(options.photo, options.person, options.url, options.hash)
    if options.file is not None:
        request |= read_requests(options.file)
    request = replace(request, with_query=options.with_query)
    if not request:
        raise ConfigError("forget: name --photo, --person, --url, --hash or --from")
    places = find_places(paths)
    if options.dry_run:
        require_nothing_pending(store)
        resolved = resolve(request, places)
        photos = list(list_photos(resolved, places))
        print(json.dumps({"photos": photos}) if options.json else "\n".join(_plan(photos)))
        if not options.missing_ok:
            require_known(request, resolved, places, store)
        return 0
    signed = SignedBy(options.by or getpass.getuser(), options.why)
    obeyed = [TombstoneStore(folder) for folder in stores_of_runs(places)]
    done = forget(
        store,
        request,
        places,
        signed,
        obeyed=obeyed,
        missing_ok=options.missing_ok,
        break_lock=options.break_lock,
        say=say,
    )
    assert done is not None
    return _tell(done.record, done.left, store.folder, options.json)


def _say(options: argparse.Namespace, line: str) -> None:
    if not options.json and sys.stderr.isatty():
        print(line, file=sys.stderr)


def _plan(photos: list[dict[str, Any]]) -> list[str]:
    from curation.errors import printable

    lines = [f"{len(photos)} photos would be forgotten"]
    for place in dict.fromkeys(photo["place"] for photo in photos):
        lines.append(f"  {place}")
        for photo in photos:
            if photo["place"] == place:
                facts = [printable(photo["file"]), *(f"in group {group}" for group in photo["groups"])]
                facts += [f"copy of {photo['copy_of'][:12]}…"] if photo["copy_of"] else []
                lines.append(f"    {', '.join(facts)}")
    return lines


def _tell(record: dict[str, Any], left: list[str], store: str, as_json: bool) -> int:
    """Prints what was done; 1 where the search found something that is left."""
    if as_json:
        print(json.dumps({**record, "left": left, "store": store}))
        return 1 if left else 0
    print(
        f"{record['photos']} photos forgotten, {record['tombstones_added']} tombstones added, "
        f"entry {record['id']}"
    )
    for place in record["places"]:
        numbers = {name: value for name, value in place.items() if isinstance(value, int)}
        dataset = place.get("dataset")
        if dataset:
            numbers |= {"photos of its dataset": dataset["photos"], "revision": dataset["after"]["revision"]}
        counts = ", ".join(
            f"{value} {name}" if name != "revision" else f"revision {value}"
            for name, value in numbers.items()
        )
        print(f"  {place['kind']:<8} {place['place']}: {counts}")
    looked = record["searched"]
    print(
        f"searched {looked['files']} files, {looked['bytes']} bytes: {looked['left']} still name one of them"
    )
    for file in left:
        print(f"  {file}", file=sys.stderr)
    print(
        f"pipelines that do not obey this store yet: --set photos.screen.forgotten={store}, "
        f"or PERSONA_FORGOTTEN={store}"
    )
    return 1 if left else 0


def _records(store: Any, as_json: bool) -> int:
    """Prints the record; 1 where an entry is not as it was signed."""
    from curation.forgetting.record import first_broken, read_entries

    entries = read_entries(store.folder)
    broken = first_broken(entries, store.key()) if entries else None
    if as_json:
        print(json.dumps({"store": store.folder, "broken": broken, "entries": entries}))
    else:
        for entry in entries:
            who = f"by {entry['by']}  {entry['why']}".rstrip()
            print(f"{entry['at']}  {entry['id']}  {entry['photos']} photos  {who}")
        if broken is None:
            print(f"{len(entries)} entries, all as they were signed")
        else:
            print(f"persona: {store.folder}: entry {broken} is not as it was signed", file=sys.stderr)
    return 0 if broken is None else 1
