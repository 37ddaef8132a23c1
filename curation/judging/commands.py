"""`persona judge …`: label pairs, calibrate the judge, see how it did, on the command line."""

import argparse
import json

from curation.errors import ConfigError
from edges.command_line import add_command


def mount(parser: argparse.ArgumentParser) -> None:
    """Adds the actions. Each sets `run`, which returns 0 or 1 (it ran, the result is bad)."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    calibrate = add_command(
        actions,
        "calibrate",
        _calibrate,
        "fit cuts and probabilities of a run's judge from labelled pairs",
        "persona judge calibrate runs/first --pairs labels.csv --precision 0.97",
    )
    calibrate.add_argument("folder", metavar="RUN")
    calibrate.add_argument(
        "--pairs",
        metavar="FILE",
        help="CSV or Parquet with columns a, b (person_id or file name) and same (1, 0 or unknown)",
    )
    calibrate.add_argument("--truth", metavar="DIR", help="instead: the truth of the run's collection")
    calibrate.add_argument(
        "--limit", type=int, default=2000, help="pairs drawn from --truth (default %(default)s)"
    )
    calibrate.add_argument("--precision", type=float, default=0.95, help="wanted among accepted pairs")
    calibrate.add_argument("--endpoint", metavar="URL", help="a running server of the judge's model")
    calibrate.add_argument("--out", metavar="FILE", help="default: a file in the run")
    calibrate.add_argument("--json", action="store_true")

    label = add_command(
        actions,
        "label",
        _label,
        "serve a page of this machine on which people say which pairs show the same clothes",
        "persona judge label runs/first --out labels.csv",
    )
    label.add_argument("folder", metavar="RUN")
    label.add_argument(
        "--out", metavar="FILE", default="labels.csv", help="goes on where it is (default %(default)s)"
    )
    label.add_argument("--pairs", type=int, default=200, help="how many to ask for (default %(default)s)")
    label.add_argument("--port", type=int, default=8765, help="0: any that is free (default %(default)s)")

    quality = add_command(
        actions,
        "quality",
        _quality,
        "swap flips, triangles, group sizes, calls and suspected merges of a run, without a truth",
        "persona judge quality runs/first --audit 20 --sheet sheet.html",
    )
    quality.add_argument("folder", metavar="RUN")
    quality.add_argument(
        "--audit", type=int, default=0, metavar="N", help="list N kept and N refused pairs to look at"
    )
    quality.add_argument(
        "--sheet", metavar="FILE", help="show them too, on one HTML page with the people in it"
    )
    quality.add_argument("--seed", type=int, default=0, help="of the draw (default %(default)s)")
    quality.add_argument("--json", action="store_true")


def _quality(options: argparse.Namespace) -> int:
    from curation.judging.quality import outfit_quality, quality_lines

    for option in ("audit", "seed"):
        if getattr(options, option) < 0:
            raise ConfigError(f"--{option} {getattr(options, option)}: must not be negative")
    if options.sheet is not None and options.audit == 0:
        raise ConfigError(f"--sheet {options.sheet}: needs --audit N, the pairs of each kind to show")
    found = outfit_quality(options.folder, options.audit, options.seed)
    if options.sheet is not None:
        from curation.judging.audit_sheet import write_audit_sheet

        pairs = found["audit"]
        found["sheet"] = write_audit_sheet(
            options.folder, pairs["kept"], pairs["refused"], options.seed, options.sheet
        )
    print(json.dumps(found) if options.json else "\n".join(quality_lines(found)))
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from curation.judging.calibrate import calibrate_run, calibration_lines

    if options.limit < 2:
        raise ConfigError(f"--limit {options.limit}: must be at least 2")
    result = calibrate_run(
        options.folder,
        options.precision,
        options.pairs,
        options.truth,
        options.limit,
        options.endpoint,
        options.out,
    )
    if not options.json:
        print("\n".join(calibration_lines(result)))
    print(json.dumps(result))
    return 0 if result["cut"] is not None or result["accept"] is not None else 1


def _label(options: argparse.Namespace) -> int:
    from curation.judging.label_server import serve_labels

    return serve_labels(options.folder, options.out, options.pairs, options.port)
