"""`persona report`, `runs` and `diff` on the command line."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import Any

from edges.command_line import add_command


def mount(commands: Any) -> None:
    """Adds the commands; what they need is imported when they run."""
    report = add_command(
        commands,
        "report",
        _report,
        "what a run did, as a folder that a browser opens from disk",
        "persona report runs/first --sweep people.detect.min_score",
    )
    report.add_argument("folder", metavar="RUN")
    report.add_argument("--out", metavar="DIR", help="where to (default RUN/report)")
    report.add_argument("--truth", metavar="DIR", help="also measure against a truth, as `persona eval` does")
    report.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="KEY[=LOW:HIGH[:STEP]]",
        help="what if this threshold were elsewhere: from stored scores, no model is asked; may be repeated",
    )
    report.add_argument(
        "--thumbnails", type=int, default=2000, metavar="N", help="at most (default %(default)s)"
    )
    report.add_argument("--json", action="store_true", help="print what was written as JSON")

    runs = add_command(
        commands, "runs", _runs, "the runs below a folder, and what each came to", "persona runs runs --json"
    )
    runs.add_argument("folder", nargs="?", default="runs", metavar="DIR", help="default %(default)s")
    runs.add_argument("--json", action="store_true", help="one object")

    diff = add_command(
        commands,
        "diff",
        _diff,
        "which settings of two runs differ, which counts, and who ended elsewhere",
        "persona diff runs/first runs/second",
    )
    diff.add_argument("a", metavar="RUN")
    diff.add_argument("b", metavar="RUN")
    diff.add_argument("--json", action="store_true", help="one object")


def _report(options: argparse.Namespace) -> int:
    from curation.absolute import absolute_path
    from curation.errors import ConfigError
    from curation.report.sweep import sweep_lines
    from curation.report.write import write_report
    from curation.run_folder import Run, run_at

    if options.thumbnails < 0:
        raise ConfigError("--thumbnails: must be 0 or more")
    began = time.monotonic()
    run = absolute_path(run_at(options.folder))
    out = absolute_path(options.out) if options.out else Run(run).report
    found = write_report(run, out, options.truth, options.sweep, options.thumbnails)
    if options.json:
        print(json.dumps(asdict(found)))
        return 0
    for swept in found.sweeps:
        print("\n".join([*sweep_lines(swept), ""]))
    text = f"{found.photos} photos, {found.thumbnails} thumbnails, {found.bytes / 2**20:.1f} MiB"
    if found.excluded:
        text += f", {found.excluded} photos left out (opted out or forgotten)"
    print(f"{text}, {time.monotonic() - began:.1f} s", file=sys.stderr)
    print(found.page)
    return 0


def _runs(options: argparse.Namespace) -> int:
    from curation.report.runs import list_runs, run_lines

    found = list_runs(options.folder)
    print(
        json.dumps({"folder": options.folder, "runs": found}) if options.json else "\n".join(run_lines(found))
    )
    return 0


def _diff(options: argparse.Namespace) -> int:
    from curation.report.diff import diff_lines, diff_runs
    from curation.run_folder import run_at

    found = diff_runs(run_at(options.a), run_at(options.b))
    print(json.dumps(found) if options.json else "\n".join(diff_lines(found)))
    return 0
