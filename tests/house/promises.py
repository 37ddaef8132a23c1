"""Writes docs/promises.md: what is promised, from the names of the tests that hold it.

python -m tests.house.promises            writes it
python -m tests.house.promises --check    exit code 1 where it is not what would be written
"""

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "promises.md"
_ABOUT = """# What it promises

Made by `make promises` from the names and first lines of the tests; a test says when it is out of date. Do
not edit it. Each line is a promise: the test of that name, in the file named above it, holds it, and
`make test` runs them all.

The central ones: rows in = rows out, and `in = kept + rejected + failed` for each stage; a committed fragment
of work is never repeated; a run that is killed at any moment goes on with the same command and ends in the
same bytes, with any number of workers; a moved threshold asks no model again; every photo has an answer, and
a broken one harms no other; what was forgotten comes back nowhere; the order of an epoch is one for any
number of ranks, workers and stops.

"The same bytes" is meant for one environment: encoders of PNG and Parquet may write other bytes in another
version, and models other last digits on another kind of processor or with another number of threads
([what was measured](reliability.md#processors)). Exceptions are listed under
[Known limits](operating.md#known-limits).
"""
_PARTS = {
    "curation": "Curation",
    "shards": "Datasets",
    "training": "Training",
    "demo": "The demo",
    "house": "The whole, and the repository itself",
}


def page(root: Path) -> str:
    """The whole page, of the tests below a folder."""
    parts = [_ABOUT]
    for part, title in _PARTS.items():
        parts.append(f"## {title}\n")
        for file in sorted((root / "tests" / part).rglob("test_*.py")):
            module = ast.parse(file.read_text())
            about = (ast.get_docstring(module) or "").partition("\n\n")[0].replace("\n", " ").rstrip(".:")
            parts.append(f"**{_plain(about)}** (`{file.relative_to(root).as_posix()}`)\n")
            parts.append("\n".join(f"- {_sentence(name)}" for name in _tests_of(module)) + "\n")
    return "\n".join(parts)


def _tests_of(module: ast.Module) -> list[str]:
    return [
        node.name
        for node in module.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def _sentence(name: str) -> str:
    words = name.removeprefix("test_").replace("_", " ")
    return words[0].upper() + words[1:]


def _plain(text: str) -> str:
    """Text of a docstring as Markdown that shows it: nothing of it is markup but code."""
    return text.replace("*", "\\*").replace("<", "&lt;").replace("[", "\\[")


def main() -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = page(ROOT)
    if not options.check:
        PAGE.write_text(text)
    elif PAGE.read_text() != text:
        print("docs/promises.md is out of date; run `make promises`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
