"""Shards → pairs → fields → steps: what a field holds, and that nothing depends on ranks or threads."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import training.pair_fields
from shards.format.contents import REGION_NAMES
from shards.reading.folder import DatasetFolder
from shards.reading.loader import Loader
from shards.reading.pairs import Pairs
from shards.reading.photo_batches import BatchMemory
from shards.reading.steps import Position
from tests.drawn_pairs import GROUPS, write_people
from tests.drawn_shards import write_dataset
from tests.drawn_training import TARGET_PX, TEXT, built, tiny
from training.batch import Batch, Field, check_fields
from training.captions import HashedWords
from training.data import Reconstructions, ShardBatches, check_dataset, open_data
from training.generation.references import LabelledPhoto, reference_fields
from training.loop import Training
from training.models.region_crops import GREY, cut_regions
from training.pair_fields import PairFields, members_for
from training.ranks import Ranks
from training.recipes.recipe import Recipe
from training.run_settings import DataSettings, LoopSettings

TOKENS = HashedWords(TEXT["vocabulary"], (2, 77))
SIZE = (TARGET_PX, TARGET_PX)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("dataset") / "shards")


def batches_of(
    recipe: Recipe, folder: Path, batch: int = 2, *, run_samples: int = 1000, **loader: Any
) -> ShardBatches:
    fields = recipe.fields(TARGET_PX, TARGET_PX)
    reconstruct = recipe.reconstruction_share(0) > 0
    pairs = Pairs(DatasetFolder(str(folder)), members=members_for(fields, reconstruct=reconstruct))
    source = Reconstructions(pairs, recipe.reconstruction_share, run_samples) if reconstruct else pairs
    loader.setdefault("position", Position(seed=3))
    return ShardBatches(Loader(source, PairFields(fields, recipe.tokeniser(), SIZE), batch, **loader))


def photo_of(folder: Path, key: str, number: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    opened = DatasetFolder(str(folder))
    sample = next(s for s in map(opened.read, range(len(opened))) if s.key == key)
    picture, labels = (
        np.asarray(Image.open(io.BytesIO(sample.members[f"{number:03d}.{kind}"])))
        for kind in ("png", "regions.png")
    )
    return picture, labels, json.loads(sample.members[f"{number:03d}.json"])


@pytest.mark.parametrize("name", ["visual_persona", "ip_adapter", "flux2_reference"])
def test_batches_have_the_fields_that_the_recipe_asks_for(name: str, dataset: Path) -> None:
    recipe = tiny(name, denoising={"person_weight": 2.0})
    check_fields(recipe.fields(TARGET_PX, TARGET_PX), next(batches_of(recipe, dataset)))


def test_fields_hold_the_reference_the_target_and_its_caption(dataset: Path) -> None:
    recipe = tiny("visual_persona", denoising={"person_weight": 2.0})
    opened = DatasetFolder(str(dataset))
    pairs, decoder = Pairs(opened), PairFields(recipe.fields(*SIZE), TOKENS, SIZE)
    arrays = decoder.allocate(GROUPS)
    for number in range(GROUPS):
        pair = pairs.read(number)
        decoder.decode(pair, arrays, number)
        reference, labels, _ = photo_of(dataset, pair.key, pair.reference)
        target, target_labels, record = photo_of(dataset, pair.key, pair.target)

        crops, visible = cut_regions(reference, labels, size_px=28)
        assert visible.tolist() == [True, True, True, True, pair.reference % 2 == 0]
        assert arrays["visible"][number].tolist() == visible.tolist()
        assert np.array_equal(arrays["crops"][number], crops)

        # 96 × 80 px fill 64 × 64 at a scale of 0.8: 76.8 rows, of which 6.4 are left out above and below.
        assert arrays["target_cut"][number].tolist() == pytest.approx([96, 80, 6.4, 0, 64, 64], abs=0.5)
        middle = Image.fromarray(target).resize((64, 64), Image.Resampling.BOX, box=(0, 8, 80, 88))
        assert np.abs(arrays["target"][number].astype(int) - np.asarray(middle)).mean() < 8
        assert np.array_equal(arrays["caption_ids"][number], TOKENS(record["caption"]))

        body = Image.fromarray((target_labels > 0).astype(np.uint8) * 255)
        share = np.asarray(body.resize((8, 8), Image.Resampling.BOX, box=(0, 8, 80, 88))) / 255
        assert arrays["person"][number, 0] == pytest.approx(share, abs=0.13)


def test_a_reference_of_the_shards_is_the_one_that_generation_makes_of_the_same_photo(dataset: Path) -> None:
    recipe = tiny("flux2_reference")
    opened = DatasetFolder(str(dataset))
    fields = recipe.reference_fields()
    decoder = PairFields(recipe.fields(*SIZE), recipe.tokeniser(), SIZE)
    pairs, arrays = Pairs(opened), decoder.allocate(1)
    pair = pairs.read(1)
    decoder.decode(pair, arrays, 0)
    photo, labels, _ = photo_of(dataset, pair.key, pair.reference)
    made = reference_fields(fields, [LabelledPhoto(photo, labels)], REGION_NAMES)
    assert made.keys() == {field.name for field in fields}
    for field in fields:
        assert np.array_equal(arrays[field.name][0], made[field.name][0].numpy()), field.name
    # The body, 76 (with shoes) or 70 × 26 px, fills 48 × 32 px from the upper left; beside it all is grey.
    height, width = arrays["body_size"][0].tolist()
    assert (height, width) == (48, round(26 * 48 / (76 if pair.reference % 2 == 0 else 70)))
    assert (arrays["body"][0, :, width:] == GREY).all()
    assert not (arrays["body"][0, :, :width] == GREY).all()
    assert arrays["photo_size"][0].tolist() == [38, 32]
    assert (arrays["photo"][0, 38:] == GREY).all()


def consumed(sources: list[ShardBatches], steps: int) -> list[tuple[str, int]]:
    """(key, random stream) of what all ranks read together, in the order of the steps."""
    read: list[tuple[str, int]] = []
    for _ in range(steps):
        for source in sources:
            batch = next(source)
            read += zip(batch.keys, batch.streams.tolist(), strict=True)
    return read


def test_any_ranks_and_threads_read_the_same_samples_with_the_same_draws(dataset: Path) -> None:
    recipe = tiny("visual_persona")
    one = consumed([batches_of(recipe, dataset, 4)], 6)
    two = consumed([batches_of(recipe, dataset, 2, rank=rank, world=2, threads=3) for rank in range(2)], 6)
    assert one == two
    assert len({key for key, _ in one[:GROUPS]}) == GROUPS  # an epoch has each group once
    assert len(set(one)) == 2 * GROUPS  # another epoch draws anew

    first = batches_of(recipe, dataset, 4)
    begun = consumed([first], 2)
    state = json.loads(json.dumps(first.state_dict()))
    resumed = [batches_of(recipe, dataset, 1, rank=rank, world=4) for rank in range(4)]
    for rank in resumed:
        rank.load_state_dict(state)
    assert begun + consumed(resumed, 4) == one


def test_a_sample_that_is_left_out_counts_for_nothing_and_moves_no_other(
    dataset: Path, tmp_path: Path
) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"# not finite\n{3:016x}-a  # twice\n\n{5:016x}-a\n")
    both = []
    for leave_out in (None, str(file)):
        settings = DataSettings(height_px=64, width_px=64, batch=4, leave_out=leave_out)
        data = open_data(settings, tiny("visual_persona"), Ranks(), str(dataset))
        batches = data.batches(1000)
        read = [next(batches) for _ in range(3)]
        both.append([(key, w) for b in read for key, w in zip(b.keys, b.weight.tolist(), strict=True)])
    left = {f"{number:016x}-a" for number in (3, 5)}
    assert {key for key, _ in both[0]} - {key for key, weight in both[1] if weight} == left
    assert [pair for pair in both[0] if pair[0] not in left] == [pair for pair in both[1] if pair[1]]


def test_a_url_that_looks_as_a_share_and_is_no_dataset_says_how_a_share_is_written(tmp_path: Path) -> None:
    for url, said in (("people=3", True), ("people=3/", False), ("people", False), ("year=now", False)):
        where = f"file://{tmp_path}/{url}"
        with pytest.raises(ValueError, match=re.escape(url.rstrip("/"))) as told:
            open_data(DataSettings(), tiny("visual_persona"), Ranks(), where)
        share = f" (a share of a URL: file://{tmp_path}/people/=3)"
        assert str(told.value).endswith(share) is said
        assert ("a share of a URL" in str(told.value)) is said


def test_half_the_ranks_validate_the_same_people_with_twice_the_batches(dataset: Path) -> None:
    def validated(ranks: int, batches: int) -> set[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        for rank in range(ranks):
            settings = DataSettings(height_px=64, width_px=64, batch=2, validation_batches=batches)
            of = Ranks(rank, ranks)
            data = open_data(settings, tiny("visual_persona"), of, str(dataset), str(dataset))
            for batch in data.validation():
                found += zip(batch.keys, batch.streams.tolist(), strict=True)
        assert len(found) == ranks * batches * 2 == len(set(found))
        return set(found)

    assert validated(2, 1) == validated(1, 2)


SIZES = ((64, 64), (64, 96), (96, 64))


def in_buckets(folder: Path, batch: int, *, rank: int = 0, world: int = 1, **changed: Any) -> ShardBatches:
    asked = {"buckets": SIZES, "bucket_run": 4, "batch": batch, "seed": 3, **changed}
    ranks = Ranks(rank, world)
    return open_data(DataSettings.model_validate(asked), tiny("visual_persona"), ranks, str(folder)).batches(
        1000
    )


def test_a_batch_in_buckets_has_one_size_that_fits_its_targets(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "shards", ((96, 80), (60, 80), (96, 56)))
    batches = in_buckets(folder, 2)
    sizes: set[tuple[int, int]] = set()
    seen: list[str] = []
    while len(seen) < GROUPS:
        batch = next(batches)
        height, width = batch.fields["target"].shape[1:3]
        sizes.add((height, width))
        check_fields(tiny("visual_persona").fields(height, width), batch)
        counted = [key for key, weight in zip(batch.keys, batch.weight.tolist(), strict=True) if weight]
        seen += counted
        for target_cut in batch.fields["target_cut"][: len(counted)].tolist():
            assert target_cut[4:] == [height, width]
            aspect = target_cut[1] / target_cut[0]
            assert (height, width) == min(SIZES, key=lambda size: abs(np.log(size[1] / size[0] / aspect)))
    assert len(set(seen)) == GROUPS  # each once
    assert len(sizes) == 3


def test_any_ranks_read_buckets_alike_and_go_on_where_others_stopped(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "shards", ((96, 80), (60, 80), (96, 56)))

    def counted(sources: list[ShardBatches], samples: int) -> list[tuple[str, int]]:
        read: list[tuple[str, int]] = []
        while len(read) < samples:
            for source in sources:
                batch = next(source)
                rows = zip(batch.keys, batch.streams.tolist(), batch.weight.tolist(), strict=True)
                read += [(key, stream) for key, stream, weight in rows if weight]
        return read

    one = counted([in_buckets(folder, 4)], 3 * GROUPS)
    ranks = [in_buckets(folder, 2, rank=rank, world=2, threads=3) for rank in range(2)]
    begun = counted(ranks, 8)
    state = json.loads(json.dumps(ranks[0].state_dict()))
    assert state == ranks[1].state_dict()
    resumed = [in_buckets(folder, 1, rank=rank, world=3) for rank in range(3)]
    for rank in resumed:
        rank.load_state_dict(state)
    assert (begun + counted(resumed, 2 * GROUPS))[: 2 * GROUPS] == one[: 2 * GROUPS]


def test_reconstructions_fall_to_none_and_no_photo_is_decoded_that_is_not_used(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("visual_persona", reconstruction=1.0, reconstruction_until=0.5)
    decoded: list[int] = []
    decode = training.pair_fields.decode_photo

    def counted(*words: Any) -> Any:
        decoded.append(1)
        return decode(*words)

    monkeypatch.setattr("training.pair_fields.decode_photo", counted)
    batches = batches_of(recipe, dataset, 12, run_samples=12 * 8)
    made = [next(batches) for _ in range(8)]
    # Of each pair a reference and a target, two photos or one; three batches are read ahead.
    assert 8 * 24 <= len(decoded) <= 11 * 24
    plain = batches_of(tiny("visual_persona"), dataset, 12)
    shares = []
    for batch in made:
        pairs = next(plain)
        assert batch.keys == pairs.keys
        check_fields(recipe.fields(TARGET_PX, TARGET_PX), batch)
        other = (batch.fields["crops"] != pairs.fields["crops"]).flatten(1).any(1)
        shares.append(other.float().mean().item())
    assert shares[0] > 0.4
    assert shares[4:] == [0, 0, 0, 0]


def test_fields_stay_in_the_memory_that_they_were_decoded_into(dataset: Path) -> None:
    taken: list[np.ndarray] = []

    class Noted(BatchMemory):
        """Pinned memory is one kind of this: what is copied out of it is copied to a GPU with a wait."""

        def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            taken.append(super().take(shape, dtype))
            return taken[-1]

    recipe = tiny("visual_persona", reconstruction=1.0)
    fields = recipe.fields(*SIZE)
    pairs = Pairs(DatasetFolder(str(dataset)), members=members_for(fields, reconstruct=True))
    source = Reconstructions(pairs, recipe.reconstruction_share, 1000)
    batch = next(ShardBatches(Loader(source, PairFields(fields, TOKENS, SIZE, memory=Noted()), 2)))
    places = {array.__array_interface__["data"][0] for array in taken}
    assert {tensor.data_ptr() for tensor in batch.fields.values()} <= places


def test_a_run_on_shards_resumes_to_the_same_curve_with_other_threads(dataset: Path, tmp_path: Path) -> None:
    recipe = tiny("visual_persona", reconstruction=0.5)

    def train(folder: Path, steps: int, threads: int) -> list[float]:
        settings = LoopSettings(steps=steps, precision="fp32", checkpoint_every=4)
        batches = batches_of(recipe, dataset, 2, threads=threads, run_samples=20)
        Training(recipe, built(recipe), batches, settings, folder).run()
        return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]

    whole = train(tmp_path / "whole", 10, threads=1)
    train(tmp_path / "parts", 4, threads=3)
    assert train(tmp_path / "parts", 10, threads=2) == whole


def test_a_broken_photo_counts_for_nothing_and_stops_nothing(dataset: Path, tmp_path: Path) -> None:
    groups = {s.key: dict(s.members) for s in map(DatasetFolder(str(dataset)).read, range(4))}
    first = next(iter(groups.values()))
    first["000.png"] = first["000.png"][:300]
    folder = write_dataset(tmp_path / "broken", groups)
    recipe = tiny("visual_persona")
    batch = next(batches_of(recipe, folder, 4))
    assert sorted(batch.weight.tolist()) == [0, 1, 1, 1]
    run = Training(
        recipe,
        built(recipe),
        batches_of(recipe, folder, 4),
        LoopSettings(steps=3, precision="fp32"),
        tmp_path / "run",
    )
    assert run.run() == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no maps", "no 000.regions.png, which the recipe's fields are made from"),
        ("one photo", "no group of the dataset has two photos"),
        ("too few", "has 1 samples; a step of 2 ranks × 4 needs 8"),
    ],
)
def test_a_dataset_that_cannot_serve_is_refused_in_one_line(
    change: str, message: str, dataset: Path, tmp_path: Path
) -> None:
    groups = {s.key: dict(s.members) for s in map(DatasetFolder(str(dataset)).read, range(GROUPS))}
    for key, members in list(groups.items()):
        if change == "no maps":
            groups[key] = {suffix: data for suffix, data in members.items() if "regions" not in suffix}
        elif change == "one photo":
            groups[key] = {suffix: data for suffix, data in members.items() if suffix[:3] in ("jso", "000")}
        elif len(groups) > 1:
            del groups[key]
    folder = DatasetFolder(str(write_dataset(tmp_path / "shards", groups)))
    fields = tiny("visual_persona").fields(TARGET_PX, TARGET_PX)
    with pytest.raises(ValueError, match=message) as caught:
        check_dataset(folder, fields, batch=4, world=2, tail="drop")
    assert "\n" not in str(caught.value)
    check_dataset(DatasetFolder(str(dataset)), fields, batch=4, world=2)


def test_a_field_that_photos_cannot_give_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="the field depth cannot be made from photos: crops, visible"):
        members_for([Field("depth", (1,), torch.float32)])


def test_too_few_samples_for_a_step_end_the_wait(dataset: Path) -> None:
    with pytest.raises(ValueError, match="12 samples has no whole step of 4 ranks × 4 samples"):
        next(batches_of(tiny("visual_persona"), dataset, 4, world=4))


def test_words_keep_their_ids_and_captions_end_with_the_largest() -> None:
    tokenise = HashedWords(1000, (2, 77))
    ids = tokenise("A woman waves. " + "word " * 100)
    assert ids.shape == (2, 77)
    assert ids[0, 0] == 1
    assert ids[0].argmax() == 76
    assert tokenise("waves")[0, 1] == tokenise("A woman waves")[0, 3]
    assert tokenise("")[0, :4].tolist() == [1, 999, 0, 0]


def test_batches_say_where_they_come_from(dataset: Path) -> None:
    batch = next(batches_of(tiny("ip_adapter"), dataset))
    assert isinstance(batch, Batch)
    assert all(key.endswith("-a") for key in batch.keys)
