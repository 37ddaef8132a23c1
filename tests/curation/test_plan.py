"""`persona plan`: a sample that is really run says what the collection will give, and says how surely."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from curation.photos.sample import Sample
from curation.plan.cluster_sizes import draw_sizes
from curation.plan.commands import plan_lines
from curation.plan.compare import compare
from curation.plan.counts import Expected
from curation.plan.machines import read_table
from curation.plan.outfit_yield import JudgedPerson, PartitionYield
from curation.plan.step_times import makespan
from curation.run_folder import Run
from persona import main
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import ROOT, settings, write_config

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 photos of 4 people, and a run of all of them."""
    folder = tmp_path_factory.mktemp("planned")
    photos = write_folder(folder / "photos", collection(5, people=4, outfits=2, photos=6))
    config = write_config(folder / "pipelines.yaml", settings(photos))
    words = ["curate", "drawn", "--config", str(config), "--out", str(folder / "run")]
    assert main([*words, "--engine", "inline", "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def part(place: Path) -> dict[str, Any]:
    """The plan of a sample of half of them."""
    base = ["plan", "drawn", "--config", str(place / "pipelines.yaml"), "--out", str(place / "part")]
    assert main([*base, "--engine", "inline", "--quiet", "--photos", "24", "--seed", "3"]) == 0
    return dict(json.loads((place / "part/plan.json").read_text()))


def plan(place: Path, capsys: Said, out: str, *words: str, code: int = 0) -> Any:
    capsys.readouterr()
    base = ["plan", "drawn", "--config", str(place / "pipelines.yaml"), "--out", str(place / out)]
    assert main([*base, "--engine", "inline", "--quiet", "--json", *words]) == code
    said = capsys.readouterr()
    if code:
        return said.err
    (line,) = said.out.splitlines()
    return json.loads(line)


def test_a_sample_of_everything_expects_the_counts_of_the_run_exactly(place: Path, capsys: Said) -> None:
    plan(place, capsys, "all", "--photos", "48")
    found = plan(place, capsys, "all", "--compare", str(place))  # the folder that holds `run`
    assert found["worst_count_off"] == 0
    assert all(row["low"] == row["expected"] == row["high"] for row in found["counts"])
    assert all(row["off"] in (0, None) for row in found["stages"])
    assert found["seconds"]["real"] > 0


def test_a_run_that_was_given_its_server_is_not_expected_to_start_one(
    place: Path, part: dict[str, Any]
) -> None:
    own = compare(part, str(place / "run"))["seconds"]
    served = {**part, "seconds": {**part["seconds"], "startup": {"engine": 0.1, "vllm": 40.0}}}
    served["seconds"]["total"] = {name: value + 40 for name, value in part["seconds"]["total"].items()}
    found = compare(served, str(place / "run"))["seconds"]
    assert (own["name"], found["name"]) == ("total", "total (not to start: vllm)")
    assert found["expected"] == pytest.approx(own["expected"], abs=0.1)
    assert found["real"] == own["real"]


def test_a_part_expects_about_what_the_run_gives_and_says_so_with_bounds(part: dict[str, Any]) -> None:
    found = part
    assert found["photos"] == {"expected": 48, "low": 48, "high": 48}
    assert found["sample"]["photos"] == 24
    assert found["people"]["expected"] == pytest.approx(48, rel=0.1)
    assert found["identities"]["high"] >= 4
    for name in ("groups", "pairs", "photos_kept", "judge_calls"):
        assert 0 <= found[name]["low"] <= found[name]["expected"] <= found[name]["high"]
    assert {stage["stage"] for step in found["steps"] for stage in step["stages"]} >= {
        "read",
        "detect",
        "pack",
    }
    assert found["hours"]["expected"] * 3600 == pytest.approx(found["seconds"]["total"]["expected"], abs=0.5)
    assert found["bytes"]["total"]["expected"] > 0


def test_the_same_seed_draws_the_same_photos_and_another_seed_others(place: Path, tmp_path: Path) -> None:
    (listing,) = (place / "run/source").glob("*.parquet")
    listed = [(str(listing), group, "key") for group in range(3)]
    drawn = [
        pq.read_table(Sample(10, seed).draw(listed, 1, 16, Run(str(tmp_path)))[0][0])[
            "source_key"
        ].to_pylist()
        for seed in (4, 4, 5)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(set(keys)) for keys in drawn] == [10, 10, 10]


def test_a_plan_touches_no_run_and_a_run_no_plan(place: Path, part: dict[str, Any], capsys: Said) -> None:
    assert "holds something that is no plan" in plan(place, capsys, "run", code=2)
    words = ["curate", "drawn", "--config", str(place / "pipelines.yaml"), "--out", str(place / "part")]
    assert main([*words, "--engine", "inline", "--quiet"]) == 2
    assert "holds the sample of `persona plan`" in capsys.readouterr().err


def test_machines_are_told_of_only_where_a_table_of_them_is_given(part: dict[str, Any]) -> None:
    assert part["machines"] == []
    assert not [line for line in plan_lines(part) if "unknown" in line]


def test_a_plan_begins_with_the_money_where_the_price_of_an_hour_is_given(
    place: Path, capsys: Said, part: dict[str, Any]
) -> None:
    assert part["price"] is None
    found = plan(place, capsys, "priced", "--photos", "10", "--price-per-hour", "36")
    assert found["price"]["expected"] == pytest.approx(36 * found["hours"]["expected"], abs=2e-3)
    assert plan_lines(found)[1].startswith("costs ")
    assert "--price-per-hour" in plan(place, capsys, "priced", "--price-per-hour", "nan", code=2)


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (90, "90 (81 to 99) s"),
        (600, "10 (9 to 11) min"),
        (6000, "100 (90 to 110) min"),
        (36000, "10 (9 to 11) h"),
    ],
)
def test_a_plan_tells_time_in_the_unit_that_people_would_use(
    part: dict[str, Any], seconds: float, says: str
) -> None:
    total = {"expected": seconds, "low": 0.9 * seconds, "high": 1.1 * seconds}
    (line,) = [
        line
        for line in plan_lines({**part, "seconds": {**part["seconds"], "total": total}})
        if line.startswith("on this machine ")
    ]
    assert line.startswith(f"on this machine {says}, of these to start ")


def test_an_empty_table_of_machines_tells_what_it_lacks_and_no_hours(place: Path, capsys: Said) -> None:
    empty = str(ROOT / "curation/plan/machines.yaml")
    machines = plan(place, capsys, "asked", "--photos", "10", "--machines", empty)["machines"]
    assert machines
    for machine in machines:
        assert machine["hours"] is None
        assert {"relative_rate.vision", "price_per_hour"} <= set(machine["missing"])


def test_a_filled_table_gives_hours_and_a_price(place: Path, capsys: Said, tmp_path: Path) -> None:
    table = tmp_path / "machines.yaml"
    table.write_text(
        "machines: {fast: {source: a test, cores: 4, price_per_hour: 2.0,"
        " relative_rate: {files: 10.0, vision: 10.0, vlm: 10.0}}}\n"
    )
    found = plan(place, capsys, "fast", "--photos", "10", "--machines", str(table))
    (machine,) = found["machines"]
    assert machine["price"]["expected"] == pytest.approx(2 * machine["hours"]["expected"], abs=2e-3)
    table.write_text("machines: {fast: {source: a test, relativ_rate: {}}}\n")
    assert "relativ_rate" in plan(place, capsys, "fast", "--machines", str(table), code=2)


@pytest.mark.parametrize(
    "words",
    [
        ["--photos", "1"],
        ["--price-per-hour", "-1"],
        ["--seed", "-1"],
        ["--machines", "no-such.yaml"],
        ["--compare", "no-such-run"],
    ],
)
def test_bad_usage_is_one_line(place: Path, capsys: Said, words: list[str]) -> None:
    assert len(plan(place, capsys, "none", *words, code=2).splitlines()) == 1


def thinned(share: float, seed: int) -> Iterator[int]:
    """Sizes in a sample of 3,000 clusters of 6 photos on average."""
    random = np.random.default_rng(seed)
    sizes = random.negative_binomial(4, 4 / (4 + 6), 3000)
    yield from (size for size in random.binomial(sizes, share).tolist() if size)


def test_clusters_are_found_to_be_as_large_as_they_are_though_few_of_their_photos_are_drawn() -> None:
    sizes = np.array(list(thinned(0.1, 2)))
    drawn = draw_sizes(sizes, 0.1, 300, np.random.default_rng(0))
    per_photo = Expected.of(drawn.per_photo(lambda draws, m: np.ones(len(m)), 1.0))
    true = (1 - (4 / 10) ** 4) / 6
    assert per_photo.low <= true <= per_photo.high
    assert per_photo.expected == pytest.approx(true, rel=0.15)


def test_a_sample_in_which_nobody_meets_is_sure_of_nothing() -> None:
    drawn = draw_sizes(np.ones(100, int), 0.001, 300, np.random.default_rng(0))
    per_photo = Expected.of(drawn.per_photo(lambda draws, m: np.ones(len(m)), 1.0))
    assert per_photo.high > 3 * per_photo.low


def test_outfits_of_more_photos_are_more_and_larger() -> None:
    people = [JudgedPerson(6, 7, (3, 2)) for _ in range(40)]
    found = PartitionYield(people, 2, 50, np.random.default_rng(0))
    sizes = np.array([1, 6, 30])
    groups, kept = found.groups(slice(0, 1), sizes)[0], found.kept(slice(0, 1), sizes)[0]
    assert groups[0] == kept[0] == 0
    assert groups[1] < groups[2] < 30
    assert kept[1] < 6 < kept[2] < 30


def test_time_on_the_clock_is_that_of_the_last_worker() -> None:
    assert makespan([4, 1, 1, 1], 2) == 4
    assert makespan([1, 1, 1, 4], 2) == 5
    assert makespan([], 3) == 0


def test_the_table_that_comes_along_is_valid_and_invents_nothing() -> None:
    table = read_table(str(ROOT / "curation/plan/machines.yaml"))
    assert table.machines
    assert all(machine.price_per_hour is None for machine in table.machines.values())


def test_a_plan_may_lie_in_an_object_store(place: Path, s3: str, capsys: Said) -> None:
    words = ["plan", "drawn", "--config", str(place / "pipelines.yaml"), "--out", f"{s3}/planned"]
    assert main([*words, "--engine", "inline", "--quiet", "--json", "--photos", "6"]) == 0
    assert json.loads(capsys.readouterr().out)["sample"]["photos"] == 6
