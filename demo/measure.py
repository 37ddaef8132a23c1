"""`python -m demo.measure --seed 424242 --photos 400`: a world of any seed, measured against its truth.

Draws the world, runs the pipeline `demo` on it, prints the table and, as its last line, one object of
JSON with every measure. Without --out nothing is left behind.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from curation.errors import PersonaError
from curation.evaluation.evaluate import measure_lines, to_json
from demo.run import say
from demo.whole_run import TARGETS, WorldRun, run_world

SEED = 424242  # no model was trained on it
JUDGE_PAIRS = 600


def main() -> int:
    """Measures; 0, or 1 with a line that says why not. Missed targets are said, and are no error."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.measure",
        description="Draws a world, runs the pipeline `demo` on it, and measures what came out.",
        epilog="example: python -m demo.measure --seed 424242 --photos 400 --out runs/measured",
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of the world")
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument(
        "--judge-pairs", type=int, default=JUDGE_PAIRS, help="balanced pairs, half of each kind"
    )
    parser.add_argument("--out", type=Path, help="keep world and run here, and go on from what is there")
    given = parser.parse_args()
    try:
        if given.out is not None:
            done = run_world(given.seed, given.photos, given.out, given.judge_pairs, say)
        else:
            with tempfile.TemporaryDirectory(prefix="persona-measure-") as folder:
                done = run_world(given.seed, given.photos, Path(folder), given.judge_pairs, say)
    except PersonaError as error:
        print(f"measure: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("measure: interrupted", file=sys.stderr)
        return 130
    print_measures(given.seed, given.photos, done)
    return 0


def print_measures(seed: int, photos: int, done: WorldRun) -> None:
    """The table, and the line of JSON."""
    print("\n".join(measure_lines(done.measures, TARGETS)))
    record = {"seed": seed, "photos": photos, "vlm": done.vlm, "seconds": done.seconds}
    print(json.dumps({**record, **to_json(done.measures)}))


if __name__ == "__main__":
    sys.exit(main())
