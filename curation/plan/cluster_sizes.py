"""How large the clusters of a collection are, from their sizes in a sample: identities, families of copies.

A sample that holds a share q of the photos holds about a share q of each cluster, and of most clusters of a
large collection one photo or none. So the clusters of a sample cannot be scaled up; their sizes are modelled:
negative binomial with mean λ and shape r in the collection, with mean qλ and the same r in the sample
(a gamma mixture of Poisson sizes, thinned). Clusters without a photo are not seen: sizes are truncated at 0.
λ and r are drawn from the likelihood of the sizes seen, flat in their logarithms, so that a sample in which
hardly anybody meets gives wide bounds and no wrong certainty.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

_SHAPES = np.geomspace(0.2, 500, 28)  # from most uneven to all about equal
_LEAST_MEAN = 0.02  # below it practically every cluster is one photo
_MEANS = 160
_MOST_MEAN = 400.0  # photos of a cluster
_AT_ONCE = 100  # draws, so that little memory is used


@dataclass(frozen=True)
class ClusterSizes:
    """Draws of (λ, r), and the share of the photos that the sample holds (0 to 1)."""

    mean: np.ndarray
    shape: np.ndarray
    share: float

    def per_photo(self, value: "Value", share: float) -> np.ndarray:
        """For each draw: E[value(size)] / E[size] in a sample with this share; 1.0 for the collection.

        `value(draws, sizes)` gives [draws, sizes]: of clusters of these sizes (1, 2, …) under these draws.
        """
        sizes = np.arange(1, self._largest(share) + 1)
        found = np.empty(len(self.mean))
        for start in range(0, len(found), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            weights = np.exp(_log_pmf(sizes, self.mean[some, None] * share, self.shape[some, None]))
            found[some] = (weights * value(some, sizes)).sum(1) / (weights @ sizes)
        return found

    def _largest(self, share: float) -> int:
        mean = self.mean * share
        spread = np.sqrt(mean + mean**2 / self.shape)
        return int(np.ceil((mean + 8 * spread).max())) + 4


Value = Callable[[slice, np.ndarray], np.ndarray]


def draw_sizes(sizes: np.ndarray, share: float, draws: int, random: np.random.Generator) -> ClusterSizes:
    """Sizes (each ≥ 1) of the clusters in a sample → draws of what they are in the collection."""
    share = min(max(share, 1e-9), 1.0)
    means = np.geomspace(_LEAST_MEAN, _MOST_MEAN, _MEANS)
    seen, counts = np.unique(np.asarray(sizes, int), return_counts=True)
    grid_mean, grid_shape = (grid.ravel() for grid in np.meshgrid(means, _SHAPES, indexing="ij"))
    likelihood = np.zeros(len(grid_mean))
    if len(seen):
        scaled = grid_mean[:, None] * share
        logs = _log_pmf(seen[None, :], scaled, grid_shape[:, None]) - _log_seen(scaled, grid_shape[:, None])
        likelihood = logs @ counts
    weights = np.exp(likelihood - likelihood.max())
    chosen = random.choice(len(weights), draws, p=weights / weights.sum())
    return ClusterSizes(grid_mean[chosen], grid_shape[chosen], share)


def _log_pmf(sizes: np.ndarray, mean: np.ndarray | float, shape: np.ndarray | float) -> np.ndarray:
    """Of the negative binomial."""
    logs = gammaln(sizes + shape) - gammaln(shape) - gammaln(sizes + 1)
    return np.asarray(logs + shape * np.log(shape / (shape + mean)) + sizes * np.log(mean / (shape + mean)))


def _log_seen(mean: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """log(1 − P(0))."""
    return np.asarray(np.log(-np.expm1(shape * np.log(shape / (shape + mean)))))
