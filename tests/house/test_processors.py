"""What `python -m tests.processors` measures with: the switches of the libraries, and the comparison."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pytest

from tests.drawn_pipeline import ROOT
from tests.processors.instruction_sets import SETS
from tests.processors.leaves import difference


@pytest.mark.parametrize(("name", "gone"), [("avx2", {"AVX512F"}), ("sse", {"AVX512F", "AVX2", "FMA3"})])
def test_a_command_runs_without_the_instructions(name: str, gone: set[str]) -> None:
    words = ["tests.processors.under", name, "json.tool", "--help"]
    assert subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True).returncode == 0
    seen = (
        "import json; from numpy._core._multiarray_umath import __cpu_features__ as f; print(json.dumps(f))"
    )
    done = subprocess.run(
        [sys.executable, "-c", seen], env={**os.environ, **SETS[name]}, capture_output=True, text=True
    )
    features = json.loads(done.stdout)
    assert features["SSE42"]
    assert not {feature for feature in gone if features[feature]}


@pytest.mark.parametrize(
    ("a", "b", "how"),
    [
        ([1.0, None], [1.0, None], None),
        ([1.0, 2.0], [1.0, 2.5], "1 of 2, up to 0.5"),
        ([1.0, 2.0], [1.0, None], "other gaps"),
        ([b"a", b"b"], [b"a", b"c"], "1 of 2"),
        ([1, 2], [1], "2 and 1 values"),
    ],
)
def test_a_difference_is_said_in_numbers(a: list, b: list, how: str | None) -> None:
    assert difference(pa.array(a), pa.array(b)) == how
