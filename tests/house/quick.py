"""`make quick`: what a developer runs after each change; it ends within a minute on two cores.

    python -m tests.house.quick [--since REF]

Format, lint and types of everything; beside them the tests of the changed packages, the nearest first. Tests
that start a heavy engine (a cluster of Ray, vLLM, an object store, training of the demo's models, other
processes in number) are left out, and so are those for which no time is left; it says which. `make test` runs
all of them.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from tests.conftest import is_heavy

ROOT = Path(__file__).resolve().parents[2]
BUDGET_S = 45.0  # for tests; format, lint and types run beside them
_ALWAYS = "tests/house/test_import_direction.py"
_CHECKS = (("ruff", "format", "--check", "-q", "."), ("ruff", "check", "-q", "."), ("mypy",))


def changed_files(since: str) -> list[str]:
    """Files that differ from a commit, and files that git does not know yet; relative to the root."""
    differing = _git("diff", "--name-only", "--relative", since)
    return sorted({*differing, *_git("ls-files", "--others", "--exclude-standard")})


def _git(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def files_near(changed: Iterable[str], root: Path) -> list[str]:
    """Test files of the packages of changed files: those that bear a changed file's name come first."""
    near: list[str] = []
    rest: list[str] = []
    for name in changed:
        path = Path(name)
        if path.suffix not in (".py", ".yaml", ".html", ".js", ".css"):
            continue
        if path.name.startswith("test_") and (root / path).exists():
            near.append(name)
            continue
        folder = (
            root / "tests" / (path.parent if path.parts[0] != "tests" else path.parent.relative_to("tests"))
        )
        while not folder.is_dir():
            folder = folder.parent
        found = sorted(folder.glob("test_*.py")) if folder != root / "tests" else []
        named = [file for file in found if path.stem.removeprefix("_") in file.stem]
        near += [file.relative_to(root).as_posix() for file in named]
        rest += [file.relative_to(root).as_posix() for file in found]
    return list(dict.fromkeys([*near, _ALWAYS, *rest]))


class WithinBudget:
    """A plugin of pytest: runs tests in the given order until the time is over; heavy ones are left out."""

    def __init__(self, files: Sequence[str], budget_s: float) -> None:
        self._turn = {name: place for place, name in enumerate(files)}
        self._until = time.monotonic() + budget_s
        self.left_out: Counter[str] = Counter()
        """`file: reason` → tests."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in filter(is_heavy, items):
            self.left_out[f"{_file_of(item)}: a heavy engine"] += 1
        items[:] = sorted(
            (item for item in items if not is_heavy(item)), key=lambda item: self._turn[_file_of(item)]
        )

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if time.monotonic() < self._until:
            return None
        self.left_out[f"{_file_of(item)}: no time left"] += 1
        return True  # done with: it is not run


def _file_of(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT).as_posix()


def main() -> int:
    """Runs the checks and the tests. Exit code 1 where one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--since", help="commit to compare with (default: HEAD, and its parent where nothing has changed)"
    )
    options = parser.parse_args()
    began = time.monotonic()
    changed = (
        changed_files(options.since) if options.since else changed_files("HEAD") or changed_files("HEAD~1")
    )
    files = files_near(changed, ROOT)
    checks = [
        subprocess.Popen(
            [str(Path(sys.executable).parent / words[0]), *words[1:]],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for words in _CHECKS
    ]  # fmt: skip
    plugin = WithinBudget(files, BUDGET_S)
    code = pytest.main(["-x", *files], plugins=[plugin])
    bad = code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    for words, check in zip(_CHECKS, checks, strict=True):
        output, _ = check.communicate()
        if check.returncode != 0:
            bad = True
            print(f"{' '.join(words)}:\n{output}")
    for reason, count in sorted(plugin.left_out.items()):
        print(f"left out: {count} of {reason}")
    print(f"{len(changed)} changed files, {len(files)} files of tests, {time.monotonic() - began:.0f} s")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
