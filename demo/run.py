"""`make demo`, or `python -m demo`: the whole product on a rendered world, and how right it was.

A world of about 400 photos → the six phases on Ray with the small models and vLLM → shards → a training
of the small configuration on them → a page of results and a table against the truth. The same command
goes on where it stopped.
"""

import argparse
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from curation.errors import PersonaError
from curation.evaluation.evaluate import measure_lines, to_json
from curation.report.write import write_report
from curation.status import read_status, summary_lines
from demo.gallery import packed_groups, ruled_out
from demo.results_page import write_page
from demo.training.short_run import ShortRun, train_shortly
from demo.whole_run import ROOT, TARGETS, WorldRun, run_world

SEED = 20261121  # no model was trained on it
PHOTOS = 400
JUDGE_PAIRS = 300
TRAIN_S = 90.0


def main() -> int:
    """Runs the demo; 0, or 1 with a line that says why not."""
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description=(__doc__ or "").split("\n\n")[1],
        epilog="example: python -m demo --photos 100 --out runs/small",
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of the world")
    parser.add_argument("--photos", type=int, default=PHOTOS)
    parser.add_argument("--judge-pairs", type=int, default=JUDGE_PAIRS, help="balanced pairs asked besides")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "demo")
    parser.add_argument("--train-s", type=float, default=TRAIN_S, help="seconds of training; 0 for none")
    given = parser.parse_args()
    began = time.monotonic()
    try:
        done = run_world(given.seed, given.photos, given.out, given.judge_pairs, say)
        report = write_report(str(done.run), str(done.run / "report"), str(done.truth))
        page = write_results(done, given.out, _trained(done, given.out, given.train_s))
        _link(given.out / "shards", Path("run", "shards"))
    except PersonaError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("demo: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print("\n".join(summary_lines(read_status(str(done.run)))))
    print()
    print("\n".join(measure_lines(done.measures, TARGETS)))
    print()
    for what, path in (
        ("collection", done.world / "collection"),
        ("truth", done.truth),
        ("run folder", done.run),
        ("shards", done.run / "shards"),
        ("results", page),
        ("report", report.page),
    ):
        print(f"{what:<11} {path}")
    print(f"\n{time.monotonic() - began:.0f} s, the model ran in {done.vlm}")
    print(f"ask about any photo or person: persona why {done.run} ID")
    return 0


def _link(place: Path, target: Path) -> None:
    """The dataset under a shorter name, where links can be made."""
    with suppress(OSError):
        place.symlink_to(target)


def _trained(done: WorldRun, out: Path, seconds: float) -> ShortRun | None:
    """None where no training was asked for, and, with a line, where a small world has too few groups."""
    if seconds <= 0:
        return None
    try:
        return train_shortly(done.run / "shards", out.absolute() / "training", seconds, say)
    except ValueError as error:
        say(f"no training: {error}")
        return None


def write_results(done: WorldRun, out: Path, trained: ShortRun | None = None) -> Path:
    """results.html and results.json; returns the page."""
    status = read_status(str(done.run))
    about = [
        f"{status['collection']} photos, {status['groups']} groups of {status['photos']} photos in "
        f"{status['shards']} shards. The vision-language model ran in {done.vlm}.",
        "Everything here is drawn: a rendered world whose truth is known, and small models that were "
        "trained on other worlds.",
        f"Run folder: {done.run}",
    ]
    page = out.absolute() / "results.html"
    groups, reasons = packed_groups(done.run, 12, 6), ruled_out(done.run, 6)
    write_page(page, "persona demo", about, done.measures, TARGETS, status, groups, reasons, trained)
    record = {"measures": to_json(done.measures), "vlm": done.vlm, "seconds": done.seconds}
    if trained is not None:
        record["training"] = asdict(trained)
    (out / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    return page


def say(text: str) -> None:
    """A line of progress."""
    print(f"demo: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
