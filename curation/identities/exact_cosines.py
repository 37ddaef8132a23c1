"""A pair of faces has one cosine, whatever is multiplied beside it, by how many threads, on which processor.

A matrix product adds in an order that depends on its size, on the threads and on the processor, so the last
bits of a cosine of any two embeddings do too, and with them a decision at a threshold. Embeddings are
therefore laid on a grid of multiples of 1/4096 before anything is compared. A product of two such numbers is
a multiple of 2^-24, and no part of the sum of a cosine exceeds 1 (Cauchy and Schwarz, for rows no longer
than 1): float32 holds every such number, so nothing is ever rounded and the order is of no account. In
float64 the same holds for sums of rows: the product of two is exact while their numbers of faces, multiplied,
stay below 2^29.

The grid moves a cosine by 1e-4 (standard deviation), a hundredth of what saving a photo as JPEG again does.
"""

import numpy as np

STEPS = 4096  # of the grid, from 0 to 1: 2^12, so that products have 24 bits
_BLOCK = 8192  # rows at a time
_ROUNDED = 1.01  # squared length from which a row was not one of length 1 before it was laid on the grid


def on_grid(rows: np.ndarray) -> np.ndarray:
    """float32 [n, d]: the nearest rows of the grid that are no longer than 1, for rows of length 1.

    A row that rounding makes longer loses steps of its largest numbers. Rows that are on the grid stay.
    """
    laid = np.empty(rows.shape, np.float32)
    for at in range(0, len(rows), _BLOCK):
        steps = np.rint(rows[at : at + _BLOCK].astype(np.float64) * STEPS)
        squares = np.einsum("ij,ij->i", steps, steps)
        long = squares > _ROUNDED * STEPS**2
        steps[long] = np.trunc(steps[long] * (STEPS / np.sqrt(squares[long]))[:, None])
        over = np.flatnonzero((squares > STEPS**2) & ~long)
        while len(over):
            largest = np.abs(steps[over]).argmax(axis=1)
            value = steps[over, largest]
            steps[over, largest] = value - np.sign(value)
            squares[over] -= 2 * np.abs(value) - 1
            over = over[squares[over] > STEPS**2]
        laid[at : at + _BLOCK] = steps / STEPS
    return laid


def sum_of(rows: np.ndarray) -> np.ndarray:
    """float64 [d]: the exact sum of rows of the grid."""
    total: np.ndarray = rows.sum(axis=0, dtype=np.float64)
    return total


def mean_cosine(one: np.ndarray, count: int, other: np.ndarray, other_count: int) -> float:
    """The mean over all pairs between two sets of faces, from the sums of their rows, to five digits."""
    return round(float(one @ other) / (count * other_count), 5)
