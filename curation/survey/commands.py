"""`persona collection`: what a collection holds and states, before anything is chosen."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from edges.command_line import add_command


def mount(commands: Any, config_options: Callable[[argparse.ArgumentParser], None]) -> None:
    """Adds the command; `config_options` adds --config and --set."""
    collection = add_command(
        commands,
        "collection",
        _collection,
        "what a collection holds: photos, sizes, licences, marks of rights, columns that nobody uses",
        "persona collection photos --pipeline real-photos",
    )
    collection.add_argument("path", metavar="PATH", help="folder, file or pattern, path or URL")
    collection.add_argument(
        "--kind", choices=("folder", "webdataset", "parquet"), help="default: by what lies there"
    )
    collection.add_argument(
        "--pipeline", metavar="NAME", help="whose `source` and allow-list of licences are applied"
    )
    config_options(collection)
    collection.add_argument(
        "--look", type=int, default=1000, metavar="N",
        help="photos that are opened for size and marks of rights (default %(default)s)",
    )  # fmt: skip
    collection.add_argument("--json", action="store_true")


def _collection(options: argparse.Namespace) -> int:
    from curation.absolute import absolute_path
    from curation.errors import ConfigError
    from curation.pipeline_file import load_pipeline
    from curation.settings.source import SourceSettings
    from curation.sources.units import kind_at
    from curation.survey.survey import survey, survey_lines, unheard_licences

    if options.look < 0:
        raise ConfigError(f"--look {options.look}: at least 0")
    source, allowed = SourceSettings(path=""), None
    if options.pipeline is not None:
        pipeline = load_pipeline(options.config, options.pipeline, options.overrides)
        source, allowed = pipeline.source, pipeline.photos.screen.licences
    path = absolute_path(options.path)
    kind = options.kind or kind_at(path, choose="--kind ")
    found = survey(source.model_copy(update={"path": path, "kind": kind}), options.look, choose="--kind ")
    if options.json:
        unheard = unheard_licences(allowed or (), found.stated.get("licence", {}))
        result = {"kind": kind, **found.to_json(), "allowed": allowed, "allowed_unheard": unheard}
        print(json.dumps(result))
    else:
        print("\n".join([f"{options.path}: {kind}", *survey_lines(found, allowed)]))
    return 0
