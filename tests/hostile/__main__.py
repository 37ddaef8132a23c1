"""`python -m tests.hostile --n 5000`: the last line is JSON with files, crashes, lost_neighbours, undecided.

Exit code 1 where any of the last three is not 0.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.hostile.corpus import run_corpus


def main() -> int:
    """Draws the corpus in a temporary folder, which is removed at the end."""
    parser = argparse.ArgumentParser(description="Curate a drawn corpus of files that break readers.")
    parser.add_argument("--n", type=int, default=500, help="bad pictures (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", metavar="DIR", help="write the corpus here and keep it")
    options = parser.parse_args()
    if options.n < 1:
        parser.error("--n: at least 1")
    if options.keep:
        found = run_corpus(Path(options.keep), options.n, options.seed)
    else:
        with tempfile.TemporaryDirectory(prefix="persona-hostile-") as folder:
            found = run_corpus(Path(folder), options.n, options.seed)
    print(json.dumps(found))
    return 1 if found["crashes"] or found["lost_neighbours"] or found["undecided"] else 0


if __name__ == "__main__":
    sys.exit(main())
