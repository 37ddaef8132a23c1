"""Fuzzes a parser, led by coverage (atheris); the last line is one line of JSON.

    python -m tests.fuzz tar --minutes 30
    python -m tests.fuzz tar --input FILE       # one input again, with its traceback

A finding is an exception that the parser does not document, an input of more than 10 s, or more than
2 GiB of memory. The input is kept under --found, and the search for this parser ends with it.
"""

import argparse
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.drawn_pipeline import ROOT, environment
from tests.fuzz import parsers

_INPUT_S = 10
_MEMORY_MIB = 2048


def main() -> int:
    """Returns 0, 1 (something was found) or 2 (bad usage)."""
    known = sorted(module.name for module in pkgutil.iter_modules(parsers.__path__))
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parser", choices=[*known, "all"], help="'all' shares the minutes among them")
    parser.add_argument("--minutes", type=float, default=1.0, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", type=Path, help="give this file to the parser and end")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"), help="default %(default)s/")
    options = parser.parse_args()
    if options.input is not None:
        importlib.import_module(f"{parsers.__name__}.{options.parser}").parse(options.input.read_bytes())
        return 0
    names = known if options.parser == "all" else [options.parser]
    results: dict[str, Result] = {}
    for name in names:
        results[name] = _fuzz(name, options.minutes * 60 / len(names), options.seed, options.found)
        print(f"{name}: {json.dumps(asdict(results[name]))}", flush=True)
    found = sum(result.found is not None for result in results.values())
    executions = sum(result.executions for result in results.values())
    parts = {name: asdict(result) for name, result in results.items()}
    print(json.dumps({"parsers": parts, "executions": executions, "found": found}))
    return 1 if found else 0


@dataclass(frozen=True)
class Result:
    """Of one parser. `found`: the file of the input, None where there was none; `says`: the error."""

    executions: int
    seconds: float
    found: str | None
    says: str | None


def _fuzz(name: str, seconds: float, seed: int, found: Path) -> Result:
    found.mkdir(parents=True, exist_ok=True)
    prefix = found / f"{name}-"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        words = [
            *(sys.executable, "-m", "tests.fuzz.one", name, str(corpus), f"-seed={seed}"),
            *(f"-max_total_time={max(1, round(seconds))}", f"-timeout={_INPUT_S}"),
            *(f"-rss_limit_mb={_MEMORY_MIB}", f"-artifact_prefix={prefix}", "-print_final_stats=1"),
        ]
        where = {**environment(), "TMPDIR": folder}
        done = subprocess.run(words, cwd=ROOT, env=where, capture_output=True, text=True, errors="replace")
    said = done.stderr + done.stdout
    counted = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
    kept = re.search(r"Test unit written to (\S+)", said)
    errors = re.findall(
        r"^(?: === Uncaught Python exception: ===\n)?(\w+(?:\.\w+)*(?:Error|Exception)\b.*)$", said, re.M
    )
    if done.returncode and kept is None:
        raise RuntimeError(f"the fuzzer of {name} did not run: {said[-600:]}")
    return Result(
        int(counted[1]) if counted else 0,
        round(time.monotonic() - began, 1),
        kept[1] if kept else None,
        errors[0][:200] if kept and errors else None,
    )


if __name__ == "__main__":
    sys.exit(main())
