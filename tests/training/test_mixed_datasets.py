"""Several datasets, each in its share: exact, the same for any ranks, and after a resume."""

from collections import Counter
from typing import Any

import pytest
import torch

from tests.drawn_pairs import write_people
from tests.drawn_training import tiny
from training.data import ShardBatches, open_data
from training.ranks import Ranks
from training.run_settings import DataSettings

SETTINGS: dict[str, Any] = {"height_px": 64, "width_px": 64, "batch": 2}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two datasets of twelve people, of one size and of another: keys are the same in both."""
    folder = tmp_path_factory.mktemp("mixed")
    return [str(write_people(folder / name, [shape])) for name, shape in (("a", (96, 80)), ("b", (80, 80)))]


def batches(places: list[str], rank: int = 0, world: int = 1) -> ShardBatches:
    settings = DataSettings.model_validate({**SETTINGS, "batch": 2 // world})
    recipe = tiny("visual_persona")
    data = open_data(settings, recipe, Ranks(rank, world), [(places[0], 3), (places[1], 1)])
    return data.batches(480)


def samples(found: ShardBatches, count: int) -> list[tuple[str, str, int]]:
    """Dataset, key and stream of so many samples."""
    made: list[tuple[str, str, int]] = []
    while len(made) < count:
        batch = next(found)
        of = ["a" if height == 96 else "b" for height in batch.fields["target_cut"][:, 0].tolist()]
        made += list(zip(of, batch.keys, batch.streams.tolist(), strict=True))
    return made


def test_each_dataset_has_its_share_and_all_that_is_drawn_is_new_each_time_it_comes_round(
    places: list[str],
) -> None:
    found = samples(batches(places), 96)
    assert Counter(of for of, _, _ in found) == {"a": 72, "b": 24}
    assert all(Counter(of for of, _, _ in found[n : n + 4])["b"] == 1 for n in range(0, 96, 4))
    # Twelve samples: six rounds of the one, two of the other, each key once a round.
    assert set(Counter((of, key) for of, key, _ in found).values()) == {6, 2}
    assert len({stream for _, _, stream in found}) == 96


def test_the_order_is_that_of_one_rank_on_two_and_goes_on_where_it_stopped(places: list[str]) -> None:
    whole = samples(batches(places), 40)
    two = [samples(batches(places, rank=rank, world=2), 20) for rank in (0, 1)]
    assert [sample for both in zip(*two, strict=True) for sample in both] == whole

    begun = batches(places)
    assert samples(begun, 26) == whole[:26]
    resumed = batches(places, rank=0, world=1)
    resumed.load_state_dict(begun.state_dict())
    assert samples(resumed, 14) == whole[26:]


def test_what_was_begun_on_one_dataset_does_not_go_on_with_two(places: list[str]) -> None:
    data = open_data(DataSettings.model_validate(SETTINGS), tiny("visual_persona"), Ranks(), places[0])
    one = data.batches(480)
    next(one)
    with pytest.raises(ValueError, match="of one dataset or several"):
        batches(places).load_state_dict(one.state_dict())


def test_stage_a_reconstructs_its_share_of_a_mixture(places: list[str]) -> None:
    shared = [(places[0], 3), (places[1], 1)]

    def first(share: float) -> list[torch.Tensor]:
        recipe = tiny(
            "visual_persona", stage="shared_queries", reconstruction=share, reconstruction_until=1.0
        )
        data = open_data(DataSettings.model_validate(SETTINGS), recipe, Ranks(), shared)
        found = data.batches(48_000)  # the share has hardly fallen
        made = [next(found) for _ in range(12)]
        return [torch.cat([batch.fields[name] for batch in made]) for name in ("target", "crops", "visible")]

    plain, reconstructed = first(0.0), first(1.0)
    assert torch.equal(plain[0], reconstructed[0])
    # The crops are of the target's own photo, and no longer of another one.
    differ = [not torch.equal(one, other) for one, other in zip(plain[1], reconstructed[1], strict=True)]
    assert all(differ)
