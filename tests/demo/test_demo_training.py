"""The demo's training: people drawn from the truth, what is measured of references, the page."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.recipes import Learned, demo_config
from demo.recipes import main as measure
from demo.results_page import write_page
from demo.training.drawn_groups import DrawnGroups, write_groups
from demo.training.reference_losses import compare, reference_losses
from demo.training.short_run import ShortRun, train_shortly
from shards.tools.verify import verify
from tests.drawn_shards import bytes_of
from tests.drawn_training import built, samples, tiny
from training.generation.references import sample_photos

PEOPLE = 18


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "shards"
    write_groups(folder, DrawnGroups(seed=77, people=PEOPLE, photos=2, height_px=128), processes=1)
    return folder


def test_drawn_people_are_a_whole_dataset_and_the_same_each_time(drawn: Path, tmp_path: Path) -> None:
    assert verify(str(drawn)).problems == []
    few = DrawnGroups(seed=77, people=2, photos=2, height_px=128, first=3)
    write_groups(tmp_path / "a", few, processes=1)
    write_groups(tmp_path / "b", few, processes=1)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    key = f"{77:08x}{4:08x}-a"
    for ours, theirs in zip(
        sample_photos(str(drawn), key), sample_photos(str(tmp_path / "a"), key), strict=True
    ):
        assert np.array_equal(ours.photo, theirs.photo)
        assert 0.02 < (ours.labels > 0).mean() < 0.6


@pytest.mark.parametrize(
    ("name", "shown"), [("visual_persona", ["crops"]), ("flux2_reference", ["crops", "body", "body_size"])]
)
def test_people_who_look_alike_to_the_model_make_no_difference_and_others_do(
    name: str, shown: list[str]
) -> None:
    recipe = tiny(name)
    module = built(recipe).eval()
    batch = samples(recipe, [f"person-{number}" for number in range(6)])
    batch.fields["visible"][:] = True
    apart = compare(reference_losses(recipe, module, [batch], draws=2), "wrong")
    assert apart.standard_error > 0
    alike = dict(batch.fields)
    for field in shown:
        alike[field] = alike[field][:1].expand_as(alike[field])
    same = type(batch)(alike, batch.keys, batch.streams, batch.weight)
    losses = reference_losses(recipe, module, [same], draws=2)
    assert np.allclose(losses["wrong"], losses["true"], atol=1e-6)
    assert not np.allclose(losses["none"], losses["true"], atol=1e-6)


def test_a_sample_that_was_not_read_is_in_no_mean() -> None:
    recipe = tiny("visual_persona")
    batch = samples(recipe, ["a", "b", "c"])
    batch.weight[1] = 0
    losses = reference_losses(recipe, built(recipe).eval(), [batch], draws=1)
    assert all(len(found) == 2 for found in losses.values())


@pytest.fixture(scope="module")
def short(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ShortRun]:
    threads = torch.get_num_threads()
    out = tmp_path_factory.mktemp("short")
    found = train_shortly(drawn, out, 0.1, lambda text: None)
    torch.set_num_threads(threads)
    return out, found


def test_the_demo_trains_in_its_time_and_does_it_once(drawn: Path, short: tuple[Path, ShortRun]) -> None:
    out, found = short
    assert (found.groups, found.held_out) == (PEOPLE - 8, 8)
    assert found.steps == len(found.losses) >= 1
    with Image.open(found.grid) as grid:
        assert grid.height > 6 * 192
    again = train_shortly(drawn, out, 0.1, lambda text: pytest.fail("trained again"))
    assert again.losses == found.losses


def test_too_few_groups_are_said(tmp_path: Path) -> None:
    write_groups(tmp_path / "few", DrawnGroups(seed=78, people=9, photos=2, height_px=64), processes=1)
    with pytest.raises(ValueError, match="9 groups are too few"):
        train_shortly(tmp_path / "few", tmp_path / "out", 1, lambda text: None)


def test_the_page_shows_loss_throughput_and_pictures(short: tuple[Path, ShortRun], tmp_path: Path) -> None:
    status = {"groups": 1, "stages": []}
    write_page(tmp_path / "page.html", "demo", [], [], {}, status, [], [], short[1])
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Training</h2>" in page
    assert f"{short[1].steps} steps" in page
    assert "samples/s" in page
    assert "<svg" in page
    assert page.count("data:image/jpeg;base64,") == 1


def test_learns_says_what_it_cannot_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["learns", "--held-out", "17", "--out", str(tmp_path)])
    assert measure("visual_persona", "learns") == 2
    assert capsys.readouterr().err == "learns: --held-out 17: must be a multiple of the batch, 16\n"
    monkeypatch.setattr("sys.argv", ["recipes", "--recipe", "flux2_references"])
    assert measure() == 2
    told = capsys.readouterr().err
    assert told == "recipes: unknown recipe 'flux2_references'; did you mean flux2_reference?\n"
    assert demo_config("flux2_reference") == "flux2_demo"


def test_a_difference_is_told_in_standard_errors_over_people() -> None:
    random = np.random.default_rng(0)
    true = random.normal(1, 0.5, 400)
    losses = {"true": true, "wrong": true + random.normal(0.01, 0.1, 400), "none": true}
    found = compare(losses, "wrong")
    assert found.standard_error == pytest.approx(0.005, rel=0.1)
    assert found.sigma == pytest.approx(found.more / found.standard_error)
    assert compare(losses, "none").sigma == 0
    about = {"recipe": "visual_persona", "held_out_people": 400, "draws": 1}
    learned = Learned(
        float(true.mean()), found, compare(losses, "none"), compare(losses, "none", "wrong"), about
    )
    told = learned.to_json()
    assert told["true_vs_wrong_sigma"] == round(found.sigma, 2)
    assert told["visual_persona_true_vs_wrong_sigma"] == told["true_vs_wrong_sigma"]
    assert learned.lines()[-1].startswith("paired over 400 held-out people")
