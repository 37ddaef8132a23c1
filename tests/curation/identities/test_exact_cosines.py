"""A pair of faces has one cosine: on every processor, with any threads, beside any other faces."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curation.identities.exact_cosines import mean_cosine, on_grid, sum_of
from curation.identities.vectors import write_vectors
from tests.drawn_pipeline import ROOT

# Kernels of processors that every x86-64 machine can stand in for, and whatever this one has.
KERNELS: list[dict[str, str]] = [
    {"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_NUM_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"},
    {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "4"},
    {"OPENBLAS_NUM_THREADS": "2"},
]
MULTIPLIES = """
import hashlib, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from curation.identities.cluster import agglomerate
from curation.identities.control import prototype_cosines
from curation.identities.exact_cosines import on_grid, sum_of
from curation.identities.false_match import same_photo_cosines
from curation.identities.vectors import write_vectors
rows = np.random.default_rng(0).normal(size=(700, 512)) + 0.2
rows = (rows / np.sqrt((rows * rows).sum(axis=1, keepdims=True))).astype(np.float32)
def said(*arrays):
    print(hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest())
said(rows @ rows.T)
laid = on_grid(rows)
whole = laid @ laid.T
assert all((laid[at:at + n] @ laid.T == whole[at:at + n]).all() for at, n in ((0, 1), (5, 77), (300, 400)))
sums = [sum_of(part) for part in np.split(laid, 7)]
vectors = write_vectors(sys.argv[1], iter([rows]), len(rows), 512)
said(laid, whole, [a @ b for a in sums for b in sums], same_photo_cosines(rows, np.arange(700) // 2),
     prototype_cosines(vectors, np.arange(700) // 70 * 70))
"""


def test_cosines_have_the_same_bits_on_other_processors_with_other_threads_and_in_other_blocks(
    tmp_path: Path,
) -> None:
    said = []
    for number, kernel in enumerate(KERNELS):
        done = subprocess.run(
            [sys.executable, "-c", MULTIPLIES, str(tmp_path / str(number))],
            cwd=ROOT, env={**os.environ, **kernel}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.split())
    plain, exact = zip(*said, strict=True)
    assert len(set(exact)) == 1
    assert len(set(plain)) > 1, "these kernels round alike, so they prove nothing: name others"


@pytest.mark.parametrize("dimension", [2, 64, 512])
def test_a_row_of_the_grid_is_near_its_embedding_no_longer_than_1_and_stays(dimension: int) -> None:
    rows = np.random.default_rng(dimension).normal(size=(500, dimension))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    laid = on_grid(rows)
    assert laid.dtype == np.float32
    assert ((laid * 4096) % 1 == 0).all()
    assert (np.square(laid, dtype=np.float64).sum(axis=1) <= 1).all()
    assert np.abs(laid @ laid.T - rows @ rows.T).max() < 1e-3
    assert (on_grid(laid) == laid).all()


def test_a_row_that_is_no_unit_vector_becomes_one() -> None:
    laid = on_grid(np.array([[3.0, 4.0], [0.0, 0.0], [-1.0, 0.0]], np.float32))
    assert laid[0] == pytest.approx([0.6, 0.8], abs=1e-3)
    assert laid[1:].tolist() == [[0, 0], [-1, 0]]


def test_the_mean_between_two_sets_is_that_of_their_pairs(tmp_path: Path) -> None:
    rows = np.random.default_rng(3).normal(size=(9, 32)) + 1
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = write_vectors(str(tmp_path), iter([rows]), 9, 32)
    one, other = vectors.take(np.arange(4)), vectors.take(np.arange(4, 9))
    assert mean_cosine(sum_of(one), 4, sum_of(other), 5) == round(float((one @ other.T).mean()), 5)
