"""How alike clothes look by their stored colours: to order photos and to skip pairs, never to accept one.

Descriptors of colour and texture cannot tell outfits apart (published clustering of clothes by embeddings
reaches an F of 25 to 42), but they tell cheaply which outfit a photo most likely shows.
"""

from collections.abc import Sequence

import numpy as np

from curation.outfits.appearance_judge import region_similarities, vector_of


def similarities(appearances: Sequence[bytes | None]) -> np.ndarray:
    """float64 [n, n], 0 to 1: the mean over the regions that both photos show of their similarity.

    appearances  as the stage `appearance` stores them; None where a photo could not be described

    NaN where two photos share no described region: nothing is known of them.
    """
    vectors = [None if data is None else vector_of(data) for data in appearances]
    found = np.full((len(vectors), len(vectors)), np.nan)
    for i, a in enumerate(vectors):
        found[i, i] = 1.0
        for j, b in enumerate(vectors[:i]):
            if a is None or b is None:
                continue
            regions = region_similarities(a, b)
            if regions:
                # Rounded, so that no order depends on how a machine adds floats.
                found[i, j] = found[j, i] = round(sum(regions.values()) / len(regions), 5)
    return found
