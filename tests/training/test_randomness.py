"""Draws depend on seed, epoch, sample, purpose and place, and on nothing else."""

import pytest
import torch

from training.randomness import Purpose, integers, normal, philox, streams, uniform

# Known answers that the authors of Philox publish with Random123 (philox4x32-10): counter, key, block.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
PEOPLE = [f"person-{number}-a" for number in range(512)]


@pytest.mark.parametrize(("counter", "key", "block"), KNOWN)
def test_the_generator_gives_the_published_answers(counter, key, block) -> None:
    word = key[1] << 32 | key[0]
    stream = torch.tensor(word - 2**64 if word >= 2**63 else word)
    assert philox(stream, torch.tensor(counter)).tolist() == list(block)


def test_a_sample_draws_the_same_in_any_batch_and_place() -> None:
    together = normal(streams(3, 1, PEOPLE[:8]), Purpose.NOISE, (4, 5, 3))
    alone = normal(streams(3, 1, [PEOPLE[5]]), Purpose.NOISE, (4, 5, 3))
    assert torch.equal(together[5], alone[0])
    assert torch.equal(together.flip(0), normal(streams(3, 1, PEOPLE[7::-1]), Purpose.NOISE, (4, 5, 3)))


def test_every_part_of_the_key_counts() -> None:
    drawn = {
        name: uniform(streams(seed, epoch, [key]), purpose, 6)
        for name, (seed, epoch, key, purpose) in {
            "base": (0, 0, "a", Purpose.CROP),
            "seed": (1, 0, "a", Purpose.CROP),
            "epoch": (0, 1, "a", Purpose.CROP),
            "sample": (0, 0, "b", Purpose.CROP),
            "purpose": (0, 0, "a", Purpose.FLIP),
        }.items()
    }
    values = torch.cat(list(drawn.values())).flatten().tolist()
    assert len(set(values)) == len(values)


def test_draws_have_the_distributions_that_they_promise() -> None:
    keys = streams(0, 0, PEOPLE)
    flat = uniform(keys, Purpose.CROP, 400)
    assert flat.min() >= 0
    assert flat.max() < 1
    # 204,800 draws: the standard error of the mean is 0.0006, that of a tenth's share 0.0007.
    assert flat.mean().item() == pytest.approx(0.5, abs=0.003)
    assert torch.histc(flat, 10, 0, 1).div(flat.numel()).sub(0.1).abs().max() < 0.003

    noise = normal(keys, Purpose.NOISE, (4, 100)).double()
    moments = [noise.mean(), noise.std(), (noise**3).mean(), (noise**4).mean()]
    assert [float(m) for m in moments] == pytest.approx([0, 1, 0, 3], abs=0.05)
    assert torch.isfinite(noise).all()
    neighbours = (noise[:, :, 1:] * noise[:, :, :-1]).mean()
    assert neighbours.item() == pytest.approx(0, abs=0.01)
    assert (noise[1:] * noise[:-1]).mean().item() == pytest.approx(0, abs=0.01)

    steps = integers(keys, Purpose.TIMESTEP, 1000)
    assert steps.min() >= 0
    assert steps.max() <= 999
    assert steps.float().mean().item() == pytest.approx(499.5, abs=50)  # four standard errors


def test_a_range_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        integers(streams(0, 0, ["a"]), Purpose.TIMESTEP, 0)
