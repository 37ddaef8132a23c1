"""Copies: no near pair is missed, the largest stays, the order of the photos decides nothing."""

import io
import time

import numpy as np
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from PIL import Image

from curation.photos.copies import EXACT, NEAR, find_copies
from curation.photos.decode import decode_rgb
from curation.photos.perceptual_hash import pairs_within, perceptual_hash
from tests.drawn_people import draw, jpeg_of


def ids_of(numbers: np.ndarray) -> np.ndarray:
    """A different 32-byte id for each different number."""
    return np.frombuffer(b"".join(int(n).to_bytes(32, "big") for n in numbers), "V32")


def planted(seed: int, count: int, flips: int) -> np.ndarray:
    """Random hashes, every second one a copy of the one before with up to `flips` bits flipped."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**63, count, dtype=np.uint64)
    for i in range(1, count, 2):
        value = int(hashes[i - 1])
        for bit in random.choice(64, random.integers(0, flips + 1), replace=False).tolist():
            value ^= 1 << bit
        hashes[i] = value
    return hashes


@given_settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 120), bits=st.integers(0, 8))
def test_the_search_finds_exactly_the_pairs_of_a_full_comparison(seed: int, count: int, bits: int) -> None:
    hashes = np.unique(planted(seed, count, 10))
    found = {
        (min(a, b), max(a, b))
        for left, right in pairs_within(hashes, bits)
        for a, b in zip(left.tolist(), right.tolist(), strict=True)
    }
    expected = {
        (a, b)
        for a in range(len(hashes))
        for b in range(a + 1, len(hashes))
        if (int(hashes[a]) ^ int(hashes[b])).bit_count() <= bits
    }
    assert found == expected


@given_settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
def test_every_copy_points_at_a_larger_photo_within_the_distance_that_stays(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    hashes = planted(seed, count, 8)
    ids = ids_of(random.integers(0, count, count))
    pixels, n_bytes = random.integers(1, 5, count), random.integers(1, 5, count)
    copies = find_copies(ids, hashes, pixels, n_bytes, 6)
    for row in range(count):
        original = int(copies.original[row])
        if copies.kind[row] == EXACT:
            assert ids[row].tobytes() == ids[original].tobytes()
            assert original < row
        elif copies.kind[row] == NEAR:
            assert copies.kind[original] == 0
            assert (int(hashes[row]) ^ int(hashes[original])).bit_count() == copies.bits[row] <= 6
            assert pixels[original] >= pixels[row]
        else:
            assert original == row
    stays = np.flatnonzero(copies.kind == 0)
    for a in stays.tolist():
        for b in stays.tolist():
            assert a == b or (int(hashes[a]) ^ int(hashes[b])).bit_count() > 6


def test_shuffled_photos_have_the_same_copies() -> None:
    random = np.random.default_rng(4)
    hashes, ids = planted(4, 200, 6), ids_of(np.arange(200))
    pixels, n_bytes = random.integers(1, 4, 200), random.integers(1, 4, 200)

    def stays(order: np.ndarray) -> set[bytes]:
        found = find_copies(ids[order], hashes[order], pixels[order], n_bytes[order], 6)
        return {ids[order][row].tobytes() for row in np.flatnonzero(found.kind == 0)}

    assert stays(np.arange(200)) == stays(random.permutation(200))


def test_resized_and_recompressed_copies_are_near_and_other_photos_are_not() -> None:
    pictures = [draw(8, person, 0, person) for person in range(30)]
    hashes = [perceptual_hash(picture) for picture in pictures]
    for picture, own in zip(pictures, hashes, strict=True):
        small = Image.fromarray(picture).resize((80, 120), Image.Resampling.LANCZOS)
        copy = perceptual_hash(decode_rgb(jpeg_of(np.array(small), quality=60)))
        assert (copy ^ own).bit_count() <= 6
    apart = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > 6


def test_a_hundred_thousand_blank_photos_are_no_billion_pairs() -> None:
    count = 100_000
    hashes = np.zeros(count, np.uint64)
    began = time.monotonic()
    copies = find_copies(ids_of(np.arange(count)), hashes, np.ones(count, int), np.ones(count, int), 6)
    assert (copies.kind == NEAR).sum() == count - 1
    assert time.monotonic() - began < 20  # a pair-wise comparison would take hours


def test_decoding_gives_upright_8_bit_rgb_of_every_mode() -> None:
    picture = draw(8, 1, 0, 1)
    for mode in ("L", "P", "CMYK", "RGBA", "1"):
        kind = "JPEG" if mode == "CMYK" else "PNG"
        sink = io.BytesIO()
        Image.fromarray(picture).convert(mode).save(sink, kind)
        rgb = decode_rgb(sink.getvalue())
        assert (rgb.shape, rgb.dtype) == (picture.shape, np.uint8)
