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

`draw_weak_faces` draws after a small network (MobileFaceNet) on photos of the street: half of one person's
pairs lie below 0.48, one pair of strangers in 1,000 above 0.52, in a tail that does not fall as a normal law
does. People resemble each other in 16 groups of unequal size, photos in 24 conditions, and both people and
photos differ in how well they are seen. Ours; its figures are those of docs/identities.md.
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
        block = person[at : at + 65_536]
        quality = np.clip(random.normal(own, spread, len(block)), 0.15, 0.98)[:, None]
        noise = _directions(random, len(block), spectrum)
        faces = np.sqrt(quality) * centres[block] + np.sqrt(1 - quality) * noise
        faces /= np.linalg.norm(faces, axis=1, keepdims=True)
        vectors[at : at + 65_536] = shared + np.sqrt(1 - SHARED) * faces
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = random.permutation(len(person))
    return Faces(vectors[order], person[order], _photos(random, person[order]))


WEAK_DIMENSION, _WEAK_SHARED, _WEAK_SPREAD = 257, 0.10, 0.085
_GROUPS, _GROUP_SHARE = 16, 0.5  # of a person's direction that the group shares
_CONDITIONS, _CONDITION_SHARE = 24, 0.22  # of a photo's direction that its condition shares
_SEEN, _SEEN_BY_PERSON, _SEEN_BY_PHOTO = (
    0.45,
    0.10,
    0.16,
)  # share of a face that is the person's, and its spreads


def draw_weak_faces(
    sizes: np.ndarray, seed: int = 0, seen: float = _SEEN, shared: float = _WEAK_SHARED
) -> Faces:
    """Faces of people with so many photos each, every face on a photo of its own.

    seen    share of a face that is the person's, on average
    shared  mean cosine of strangers, nearly. 0.55 and 0.15 give the figures of MobileFaceNet on labelled
            public photos (one person's median 0.62, strangers' 99th percentile 0.51)
    """
    random = np.random.Generator(np.random.Philox(key=seed))
    people, person = len(sizes), np.repeat(np.arange(len(sizes)), sizes)
    spectrum = _spectrum(WEAK_DIMENSION, 1 / _WEAK_SPREAD**2)

    def drawn(count: int) -> np.ndarray:
        return _directions(random, count, spectrum, WEAK_DIMENSION)

    def mixed(shared: np.ndarray, share: float, spread: float, own: np.ndarray) -> np.ndarray:
        weight = np.clip(random.normal(share, spread, len(own)), 0, 0.8)[:, None]
        both = np.sqrt(weight) * shared + np.sqrt(1 - weight) * own
        return np.asarray(both / np.linalg.norm(both, axis=1, keepdims=True))

    often = 1 / np.arange(1, _GROUPS + 1)
    among = random.choice(_GROUPS, people, p=often / often.sum())
    centres = mixed(drawn(_GROUPS)[among], _GROUP_SHARE, 0.12, drawn(people))
    condition = random.integers(0, _CONDITIONS, len(person))
    noise = mixed(drawn(_CONDITIONS)[condition], _CONDITION_SHARE, 0.1, drawn(len(person)))
    own = random.normal(seen, _SEEN_BY_PERSON, people)[person]
    own = np.clip(own + random.normal(0, _SEEN_BY_PHOTO, len(person)), 0.08, 0.95)[:, None]
    faces = np.sqrt(own) * centres[person] + np.sqrt(1 - own) * noise
    faces *= np.sqrt(1 - shared) / np.linalg.norm(faces, axis=1, keepdims=True)
    faces[:, -1] += np.sqrt(shared)
    vectors = (faces / np.linalg.norm(faces, axis=1, keepdims=True)).astype(np.float32)
    order = random.permutation(len(person))
    return Faces(vectors[order], person[order], np.arange(len(person)))


def _spectrum(
    dimension: int = DIMENSION, wanted: float = (1 - SHARED) ** 2 / STRANGERS_SPREAD**2
) -> np.ndarray:
    """Standard deviations along all axes but one, so that so many directions count."""
    axes = np.arange(1, dimension)
    low, high = 0.0, 2.0
    for _ in range(60):
        decay = (low + high) / 2
        variances = axes**-decay
        low, high = (decay, high) if variances.sum() ** 2 / (variances**2).sum() > wanted else (low, decay)
    return np.sqrt(variances / variances.sum())


def _directions(
    random: np.random.Generator, count: int, spectrum: np.ndarray, dimension: int = DIMENSION
) -> np.ndarray:
    drawn = np.zeros((count, dimension), np.float32)
    drawn[:, :-1] = random.standard_normal((count, dimension - 1), np.float32) * spectrum.astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _photos(random: np.random.Generator, person: np.ndarray) -> np.ndarray:
    """Number of the photo of each face; `TWO_FACES` of them are in pairs of different people."""
    photo = np.arange(len(person))
    paired = random.permutation(len(person))[: 2 * int(len(person) * TWO_FACES / 2)]
    first, second = paired[::2], paired[1::2]
    apart = person[first] != person[second]
    photo[second[apart]] = photo[first[apart]]
    return photo
