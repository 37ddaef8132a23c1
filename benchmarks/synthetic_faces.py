"""Embeddings of people who do not exist, distributed as a published face model distributes real ones.

The model is ArcFace (ResNet-100, Deng et al., CVPR 2019), 512 numbers. Its published points:

    strangers   cosine ≥ 0.28 at a false-accept rate of 1e-3 (on LFW, by the authors of AdvFaces,
                github.com/ronny3050/AdvFaces/issues/7), ≥ 0.408 at 1e-6 (../shared/people-pairs.md)
    one person  98.60 % of pairs accepted at 2.8e-7, 96.41 % at 2e-8 (the MegaFace curve in
                github.com/deepinsight/insightface/issues/409)

On normal-deviate axes the first two lie on N(0.042, 0.077); with it the others give N(0.638, 0.096). A face
is the sum of a direction that all faces share, its person's direction and a direction of its own photo,
weighed by the quality of the photo. Persons and photos share one spectrum, so nothing tells them apart but
the cosine; its decay makes 1 / 0.077² directions count, as measured above.
"""

from dataclasses import dataclass

import numpy as np

DIMENSION = 512
SHARED = 0.042  # mean cosine of strangers
STRANGERS_SPREAD = 0.077
SAME_MEAN, SAME_SPREAD = 0.638, 0.096
LOOK_ALIKES = 0.01  # share of people who have a double …
LOOK_ALIKE_COSINE = 0.6  # … whose direction is so near to theirs
TWO_FACES = 0.1  # share of faces that lie on a photo with another one
_SIZE_EXPONENT, _MOST_PHOTOS = 1.7, 200


@dataclass(frozen=True)
class Faces:
    """`vectors` float32 [n, 512] of length 1, `person` and `photo` int [n]."""

    vectors: np.ndarray
    person: np.ndarray
    photo: np.ndarray


def draw_faces(count: int, seed: int = 0, distractors: int = 0) -> Faces:
    """`count` faces of people with long-tailed numbers of photos, and `distractors` people with one each.

    P(a person has s photos) is in proportion to s^-1.7, from 1 to 200: half have one, the mean is 6.7.
    """
    random = np.random.Generator(np.random.Philox(key=seed))
    sizes = np.arange(1, _MOST_PHOTOS + 1)
    weights = sizes**-_SIZE_EXPONENT
    drawn = random.choice(sizes, size=count, p=weights / weights.sum())
    people = int(np.searchsorted(np.cumsum(drawn), count)) + 1
    drawn = np.concatenate([drawn[:people], np.ones(distractors, np.int64)])
    drawn[people - 1] -= int(drawn[:people].sum()) - count
    person = np.repeat(np.arange(len(drawn)), drawn)
    spectrum = _spectrum()
    centres = _directions(random, len(drawn), spectrum)
    doubles = random.permutation(len(drawn))[: 2 * int(len(drawn) * LOOK_ALIKES / 2)]
    first, second = doubles[::2], doubles[1::2]
    mixed = LOOK_ALIKE_COSINE * centres[first] + np.sqrt(1 - LOOK_ALIKE_COSINE**2) * centres[second]
    centres[second] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    own = (SAME_MEAN - SHARED) / (1 - SHARED)  # of what is not shared
    # A pair's cosine is the geometric mean of two qualities, whose spread is smaller by the root of two.
    spread = SAME_SPREAD / (1 - SHARED) * np.sqrt(2)
    shared = np.zeros(DIMENSION, np.float32)
    shared[-1] = np.sqrt(SHARED)
    vectors = np.empty((len(person), DIMENSION), np.float32)
    for at in range(0, len(person), 65_536):
        mine = person[at : at + 65_536]
        quality = np.clip(random.normal(own, spread, len(mine)), 0.15, 0.98)[:, None]
        noise = _directions(random, len(mine), spectrum)
        faces = np.sqrt(quality) * centres[mine] + np.sqrt(1 - quality) * noise
        faces /= np.linalg.norm(faces, axis=1, keepdims=True)
        vectors[at : at + 65_536] = shared + np.sqrt(1 - SHARED) * faces
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = random.permutation(len(person))
    return Faces(vectors[order], person[order], _photos(random, person[order]))


def _spectrum() -> np.ndarray:
    """Standard deviations along 511 axes, so that two random directions have cosines N(0, 0.077²)."""
    axes = np.arange(1, DIMENSION)
    low, high = 0.0, 2.0
    wanted = (1 - SHARED) ** 2 / STRANGERS_SPREAD**2
    for _ in range(60):
        decay = (low + high) / 2
        variances = axes**-decay
        low, high = (decay, high) if variances.sum() ** 2 / (variances**2).sum() > wanted else (low, decay)
    return np.sqrt(variances / variances.sum())


def _directions(random: np.random.Generator, count: int, spectrum: np.ndarray) -> np.ndarray:
    drawn = np.zeros((count, DIMENSION), np.float32)
    drawn[:, :-1] = random.standard_normal((count, DIMENSION - 1), np.float32) * spectrum.astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _photos(random: np.random.Generator, person: np.ndarray) -> np.ndarray:
    """Number of the photo of each face; `TWO_FACES` of them are in pairs of different people."""
    photo = np.arange(len(person))
    paired = random.permutation(len(person))[: 2 * int(len(person) * TWO_FACES / 2)]
    first, second = paired[::2], paired[1::2]
    apart = person[first] != person[second]
    photo[second[apart]] = photo[first[apart]]
    return photo
