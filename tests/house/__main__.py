"""`python -m tests.house`: size and shape of the tree; the last line is JSON.

Product files and lines are those of persona.py, edges, curation, shards, training and demo; the others are
counted beside them. A circle is a group of product files that reach one another by imports.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.house.import_graph import ROOT, circles, edges, longest_chain

_PARTS = ("edges", "curation", "shards", "training", "demo", "benchmarks", "tests")
_PRODUCT = ("edges", "curation", "shards", "training")


def lines_of(*files: Path) -> int:
    """Lines of all of the files together."""
    return sum(file.read_bytes().count(b"\n") for file in files)


def figures() -> dict[str, Any]:
    """What is printed, by name."""
    by_part = {part: sorted((ROOT / part).rglob("*.py")) for part in _PARTS}
    entry = ROOT / "persona.py"
    product = [file for part in _PRODUCT for file in by_part[part]] + [entry]
    graph = edges()
    found = circles(graph)
    return {
        "product_files": len(product),
        "product_lines": lines_of(*product),
        "files_by_part": {part: len(files) for part, files in by_part.items()},
        "lines_by_part": {part: lines_of(*files) for part, files in by_part.items()},
        "files_of_100_lines_or_fewer": sum(lines_of(file) <= 100 for file in product),
        "circles": len(found),
        "files_in_circles": sum(map(len, found)),
        "longest_chain": [] if found else longest_chain(graph),
        "docs_pages": len(list((ROOT / "docs").glob("*.md"))),
        "docs_lines": lines_of(*(ROOT / "docs").glob("*.md")),
        "readme_lines": lines_of(ROOT / "README.md"),
    }


def main() -> int:
    """Prints the figures."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    found = figures()
    print(f"product     {found['product_files']:>5} files {found['product_lines']:>7,} lines")
    for part in _PARTS:
        files, lines = found["files_by_part"][part], found["lines_by_part"][part]
        print(f"{part:<12}{files:>5} files {lines:>7,} lines")
    print(f"docs        {found['docs_pages']:>5} pages {found['docs_lines']:>7,} lines")
    print(f"README      {found['readme_lines']:>19} lines")
    print(f"circles     {found['circles']:>5}")
    chain = found["longest_chain"]
    print(f"longest chain of imports: {len(chain)} files\n  " + "\n  ".join(chain))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
