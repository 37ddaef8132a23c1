"""Sizes of targets, runs of one size, batches cut from them: each sample once, for any ranks and stops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.format.dataset_writer import DatasetWriter
from shards.format.sample import json_bytes
from shards.reading.buckets import BucketedPairs, Rest, Runs, nearest_sizes, sizes_around
from shards.reading.folder import DatasetFolder
from shards.reading.loader import Loader
from shards.reading.pairs import Pair, Pairs, draw_pair, draw_pairs
from shards.reading.steps import Position, RunSteps, Tail
from shards.tools.forget import forget
from shards.tools.forget_plan import IdsToForget

SIZES = [(64, 128), (96, 96), (128, 64)]
GROUPS = 75

kinds_of = st.lists(st.integers(-1, 3), min_size=1, max_size=120).map(lambda kinds: np.array(kinds, np.int64))


def test_sizes_at_1024_px_are_those_of_sdxl_from_flat_to_tall() -> None:
    sizes = sizes_around(1024, 1024)
    assert sizes[0] == (704, 1408)
    assert sizes[-1] == (1408, 704)
    assert {(1024, 1024), (896, 1152), (1152, 896), (832, 1216), (1216, 832), (768, 1344)} <= set(sizes)
    assert all(0.9 * 1024**2 <= height * width <= 1024**2 for height, width in sizes)


@given(height=st.integers(2, 40), width=st.integers(2, 40), step=st.sampled_from([32, 64]))
def test_a_size_is_never_larger_than_what_was_asked_for(height: int, width: int, step: int) -> None:
    sizes = sizes_around(height * step, width * step, step=step)
    assert all(h % step == w % step == 0 and h * w <= height * width * step * step for h, w in sizes)
    assert {(w, h) for h, w in sizes} == set(sizes)


def test_a_photo_has_the_size_of_the_nearest_proportions() -> None:
    aspects = np.array([2.0, 1.5, 1.0, 0.75, 0.4, 0.0], np.float32)
    assert nearest_sizes(aspects, SIZES).tolist() == [0, 0, 1, 1, 2, 0]


@given(kinds=kinds_of, length=st.integers(1, 9))
def test_runs_hold_every_sample_once_and_one_kind_each(kinds: np.ndarray, length: int) -> None:
    runs = Runs(kinds, length)
    assert sorted(runs.places.tolist()) == np.flatnonzero(kinds >= 0).tolist()
    begin, short = 0, []
    for end in runs.ends.tolist():
        run = runs.places[begin:end]
        assert len(set(kinds[run].tolist())) == 1
        assert (np.diff(run) > 0).all()
        assert end - begin <= length
        if end - begin < length:
            short.append(int(kinds[run[0]]))
        else:
            assert not short, "a short run stands at the end of the epoch"
        begin = end
    assert len(short) == len(set(short)), "at most one short run of each kind"
    assert begin == len(runs.places)


@given(kinds=kinds_of, length=st.integers(1, 9), stops=st.lists(st.integers(1, 50), max_size=5))
def test_what_is_left_of_runs_goes_on_as_if_nothing_had_stopped(
    kinds: np.ndarray, length: int, stops: list[int]
) -> None:
    whole = Runs(kinds, length).places.tolist()
    runs, read = Runs(kinds, length), []
    for stop in stops:
        places = runs.places[:stop].tolist()
        read += places
        runs = Runs(kinds, length, runs.rest(len(places)))
    assert read + runs.places.tolist() == whole


@given(
    kinds=kinds_of,
    other=st.lists(st.integers(0, 2), min_size=120, max_size=120),
    length=st.integers(1, 9),
    later=st.integers(1, 9),
    stop=st.integers(0, 120),
)
def test_other_kinds_and_lengths_leave_each_sample_once(
    kinds: np.ndarray, other: list[int], length: int, later: int, stop: int
) -> None:
    runs = Runs(kinds, length)
    stop = min(stop, len(runs.places))
    changed = np.where(kinds < 0, -1, np.array(other[: len(kinds)]))
    rest = Runs(changed, later, runs.rest(stop))
    both = runs.places[:stop].tolist() + rest.places.tolist()
    assert sorted(both) == np.flatnonzero(kinds >= 0).tolist()


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    batch=st.integers(1, 6),
    world=st.integers(1, 4),
    share=st.floats(0, 1),
    tail=st.sampled_from(["drop", "pad", "wrap"]),
)
def test_batches_lie_in_one_run_and_all_ranks_together_read_each_place_once(
    sizes: list[int], batch: int, world: int, share: float, tail: Tail
) -> None:
    ends = np.cumsum(sizes)
    consumed = int(share * ends[-1])
    position = Position(consumed=consumed)
    plans = [RunSteps(ends, position, batch, rank, world, tail) for rank in range(world)]
    assert len({len(plan) for plan in plans}) == 1
    read: list[int] = []
    for number in range(len(plans[0])):
        for plan in plans:
            step = plan[number]
            assert step.places.shape == step.weight.shape == (batch,)
            assert len(set(np.searchsorted(ends, step.places, side="right").tolist())) == 1
            read += step.places[step.weight > 0].tolist()
        assert len({plan[number].after for plan in plans}) == 1
        if number < len(plans[0]) - 1:
            assert tail == "drop" or plan[number].after.consumed == consumed + len(read)
    assert read == sorted(set(read))
    if tail == "drop":
        assert len(read) + plans[0].dropped == ends[-1] - consumed
    else:
        assert read == list(range(consumed, ends[-1]))
        assert plans[0].dropped == 0


@given(
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 10**6),
    groups=st.lists(st.tuples(st.text(min_size=1), st.integers(2, 999)), min_size=1, max_size=20),
)
def test_pairs_of_many_groups_are_those_of_each(seed: int, epoch: int, groups: list[tuple[str, int]]) -> None:
    hashes = np.array([xxhash.xxh3_64_intdigest(key.encode()) for key, _ in groups], np.uint64)
    reference, target = draw_pairs(seed, epoch, hashes, np.array([photos for _, photos in groups]))
    drawn = [draw_pair(seed, epoch, key, range(photos)) for key, photos in groups]
    assert list(zip(reference.tolist(), target.tolist(), strict=True)) == drawn


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("buckets") / "shards")


def _write(path: Path) -> Path:
    """Groups of 1 to 4 photos of many proportions; every third photo shows no shoes."""
    path.mkdir()
    random = np.random.default_rng(5)
    with DatasetWriter(str(path), max_samples=16) as writer:
        for group in range(GROUPS):
            photos = 1 + group % 4
            members = {"json": json_bytes({"photos": photos})}
            for photo in range(photos):
                width, height = (int(side) for side in random.integers(40, 200, 2))
                shown = ["full_body"] + ["shoes"] * (photo % 3 > 0)
                record = {"photo_id": f"{group:04d}{photo:060d}", "width": width, "height": height}
                record |= {"regions": shown, "caption": f"photo {photo}"}
                stem = f"{photo:03d}"
                members |= {f"{stem}.jpg": b"a picture", f"{stem}.json": json_bytes(record)}
            writer.add(f"{group:016x}-a", members)
        writer.close("buckets", {})
    return path


class Targets:
    """Takes (key, photo) of the target, and says which decoder took it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def allocate(self, batch: int) -> dict[str, Any]:
        return {"size": self.size, "value": [None] * batch}

    def decode(self, sample: Pair, arrays: dict[str, Any], slot: int) -> None:
        arrays["value"][slot] = (sample.key, sample.target)


def loader_of(dataset: Path, batch: int, position: Position | None = None, **settings: Any) -> Loader:
    chosen: dict[str, Any] = {"length": 8, "regions": ["full_body"], "sizes": SIZES}
    chosen |= {name: settings.pop(name) for name in ("length", "regions", "sizes") if name in settings}
    source = BucketedPairs(DatasetFolder(str(dataset)), kinds=("json",), **chosen)
    decoders = [Targets(size) for size in range(len(source.sizes))]
    return Loader(source, decoders, batch, position or Position(seed=3), tail="pad", **settings)


def read(loaders: list[Loader], steps: int = 10**6) -> list[Any]:
    """(key, target, size) that all ranks read in so many steps, in the order of steps and ranks."""
    readers, found = [iter(loader) for loader in loaders], []
    for _ in range(steps):
        batches = [next(reader, None) for reader in readers]
        if None in batches:
            break
        for batch in batches:
            assert batch is not None
            values = zip(batch.arrays["value"], batch.weight.tolist(), strict=True)
            found += [(*value, batch.arrays["size"]) for value, weight in values if weight]
    for reader in readers:
        reader.close()  # type: ignore[attr-defined]
    return found


def pairs_there_are(dataset: Path, seed: int = 3, epoch: int = 0) -> dict[str, int]:
    """{key: target} of an epoch, as the plain order draws them."""
    folder = DatasetFolder(str(dataset))
    pairs, found = Pairs(folder, regions=["full_body"], kinds=("json",)), {}
    for number in range(len(folder)):
        if folder.index.people(number) > 1:
            pair = pairs.read_in(number, Position(seed, epoch))
            found[pair.key] = pair.target
    return found


def test_a_batch_has_one_size_and_it_is_the_one_of_its_targets(dataset: Path) -> None:
    found = read([loader_of(dataset, 4)])
    aspects = DatasetFolder(str(dataset)).index.photos
    for key, target, size in found:
        photo = aspects.starts[int(key[:16], 16)] + target
        assert nearest_sizes(aspects.aspects[[photo]], SIZES)[0] == size
    assert {(key, target) for key, target, _ in found} == set(pairs_there_are(dataset).items())
    assert len({size for *_, size in found}) == len(SIZES)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.sampled_from([1, 2, 4, 8]),
    world=st.integers(1, 3),
    threads=st.integers(1, 3),
    seed=st.integers(0, 5),
    stop=st.integers(0, 30),
    after=st.tuples(st.sampled_from([1, 2, 3, 4, 8]), st.integers(1, 3)),
)
def test_any_ranks_threads_and_a_stop_read_the_same_samples_in_the_same_order(
    dataset: Path, batch: int, world: int, threads: int, seed: int, stop: int, after: tuple[int, int]
) -> None:
    start = Position(seed=seed, epoch=seed)
    one = read([loader_of(dataset, 8, start)])
    ranks = [
        loader_of(dataset, batch, start, rank=rank, world=world, threads=threads) for rank in range(world)
    ]
    begun = read(ranks, stop)
    states = [loader.state_dict() for loader in ranks]
    assert all(state == states[0] for state in states)
    if states[0]["epoch"] != start.epoch:
        assert begun == one
        return
    assert states[0]["consumed"] == len(begun)
    resumed = [loader_of(dataset, after[0], rank=rank, world=after[1]) for rank in range(after[1])]
    for loader in resumed:
        loader.load_state_dict(states[0])
    assert begun + read(resumed) == one
    # The next epoch has the same groups, and draws and orders them anew.
    following = read(resumed)
    assert sorted(key for key, *_ in following) == sorted(key for key, *_ in one)
    assert following != one


def test_sizes_and_regions_may_change_in_the_middle_of_an_epoch(dataset: Path) -> None:
    first = loader_of(dataset, 4)
    begun = read([first], 7)
    changed = loader_of(dataset, 3, sizes=[(64, 64), (64, 96)], length=6)
    changed.load_state_dict(first.state_dict())
    both = begun + read([changed])
    assert sorted((key, target) for key, target, _ in both) == sorted(pairs_there_are(dataset).items())


@pytest.mark.parametrize("steps", [1, 5, 11])
def test_people_forgotten_in_the_middle_of_an_epoch_leave_the_rest_read_once(
    steps: int, tmp_path: Path
) -> None:
    folder = _write(tmp_path / "shards")
    first = loader_of(folder, 4)
    begun = read([first], steps)
    state = first.state_dict()
    before = pairs_there_are(folder)
    gone = {key for number, key in enumerate(before) if number % 7 == 0}
    forget(str(folder), IdsToForget(keys=frozenset(gone)))
    second = loader_of(folder, 4)
    second.load_state_dict(state)
    half = read([second], 2)
    third = loader_of(folder, 2, rank=0)
    third.load_state_dict(second.state_dict())
    after = half + read([third])
    seen = {key for key, *_ in begun}
    assert sorted(key for key, *_ in after) == sorted(before.keys() - seen - gone)
    assert read([third]) != []  # the next epoch begins in the new revision
    assert third.state_dict()["revision"] == 1


def test_a_state_of_data_without_buckets_is_refused_in_one_line(dataset: Path) -> None:
    plain = Loader(Pairs(DatasetFolder(str(dataset)), kinds=("json",)), Targets(0), 4)
    next(iter(plain))
    with pytest.raises(ValueError, match="data in another order"):
        loader_of(dataset, 4).load_state_dict(plain.state_dict())
    bucketed = loader_of(dataset, 4)
    next(iter(bucketed))
    with pytest.raises(ValueError, match="data in another order"):
        plain.load_state_dict(bucketed.state_dict())


def test_what_drop_leaves_out_is_counted_and_said(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader = loader_of(dataset, 8)
    loader.tail = "drop"
    found = read([loader])
    assert loader.dropped == len(pairs_there_are(dataset)) - len(found) > 0
    assert "are left out" in caplog.text


def test_nothing_is_left_of_an_epoch_that_has_not_begun() -> None:
    assert Runs(np.array([0, 1, 0]), 2).rest(0) == Rest()
