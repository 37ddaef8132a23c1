"""What recipes promise: losses of single samples, dropout at its rates, checked settings."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.drawn_training import SDXL, TARGET_PX, built, samples, tiny
from training.batch import Batch, check_fields
from training.method_settings import DropoutSettings
from training.randomness import streams
from training.recipes import CATALOGUE, recipe_of
from training.recipes.ip_adapter import IpAdapter
from training.recipes.recipe import Recipe, keep_conditions, keep_regions

PEOPLE = ["ann-a", "bob-a", "cy-b", "dee-a"]
EVERY_RECIPE = pytest.mark.parametrize("name", sorted(CATALOGUE))
ALL_LEVERS = {"min_snr": 5.0, "noise_offset": 0.05, "person_weight": 3.0}
LEVERS_OF_FLOW = {"noise_offset": 0.05, "person_weight": 3.0}


def gradients(recipe: Recipe, seed: int, *groups: list[str]) -> tuple[float, dict[str, torch.Tensor]]:
    """Mean loss and mean gradients of batches of these people."""
    module = built(recipe, seed)
    total = 0.0
    for keys in groups:
        batch = samples(recipe, keys)
        loss = module(batch.fields, batch.streams).mean() / len(groups)
        loss.backward()
        total += loss.item()
    return total, {name: p.grad for name, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("visual_persona", {"denoising": ALL_LEVERS}),
        ("visual_persona", {"stage": "shared_queries", "denoising": {"cached_latents": True}}),
        ("visual_persona", {"denoising": {"tune_unet": True}}),
        ("ip_adapter", {}),
        ("flux2_reference", {"denoising": LEVERS_OF_FLOW}),
        ("flux2_reference", {"denoising": {"references_apart": True}}),
        ("flux2_reference", {"denoising": {"lora": None, "tune_transformer": True}, "references": "body"}),
        ("flux2_reference", {"denoising": {"cached_latents": True}, "references": "parts"}),
    ],
)
def test_a_batch_of_four_is_the_mean_of_four_batches_of_one(name: str, changed: dict[str, Any]) -> None:
    recipe = tiny(name, **changed)
    loss, together = gradients(recipe, 1, PEOPLE)
    mean, alone = gradients(recipe, 1, *[[key] for key in PEOPLE])
    assert loss == pytest.approx(mean, rel=1e-5)
    for parameter, gradient in together.items():
        difference = (gradient - alone[parameter]).norm() / gradient.norm()
        assert difference < 1e-5, parameter


@EVERY_RECIPE
def test_what_is_trained_is_in_the_adapter_and_gets_gradients(name: str) -> None:
    recipe = tiny(name)
    module = built(recipe)
    batch = samples(recipe, PEOPLE)
    module(batch.fields, batch.streams).mean().backward()
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert trained <= set(recipe.adapter(module))
    assert {name for name, p in module.named_parameters() if p.grad is not None} == trained
    assert all(p.grad.abs().sum() > 0 for name, p in module.named_parameters() if name in trained)


@EVERY_RECIPE
def test_activations_computed_twice_give_the_same_gradients(name: str) -> None:
    plain, twice = (
        gradients(tiny(name, denoising={"checkpoint_activations": often}), 1, PEOPLE)
        for often in (False, True)
    )
    assert plain[0] == twice[0]
    for parameter, gradient in plain[1].items():
        torch.testing.assert_close(twice[1][parameter], gradient)


@EVERY_RECIPE
def test_a_batch_without_a_field_is_one_clear_line(name: str) -> None:
    recipe = tiny(name)
    wanted = recipe.fields(TARGET_PX, TARGET_PX)
    batch = samples(recipe, PEOPLE)
    check_fields(wanted, batch)
    for field in wanted:
        rest = {key: tensor for key, tensor in batch.fields.items() if key != field.name}
        with pytest.raises(ValueError, match=f"needs the field {field.name}; the batch has"):
            check_fields(wanted, Batch.of(rest, PEOPLE, seed=0, epoch=0))
    wrong = {**batch.fields, "caption_ids": batch.fields["caption_ids"].double()}
    with pytest.raises(ValueError, match=r"caption_ids is .*float64"):
        check_fields(wanted, Batch.of(wrong, PEOPLE, seed=0, epoch=0))


@EVERY_RECIPE
def test_a_step_reads_nothing_back_from_the_device(name: str) -> None:
    # A tensor without data cannot be read: whatever waited for a value would raise here.
    recipe = tiny(name, denoising=LEVERS_OF_FLOW if name == "flux2_reference" else ALL_LEVERS)
    module = recipe.build(torch.bfloat16).to("meta")
    batch = samples(recipe, PEOPLE).to(torch.device("meta"))
    loss = module(batch.fields, batch.streams)
    loss.mean().backward()
    assert loss.shape == (4,)
    assert loss.dtype == torch.float32


def test_conditions_are_dropped_at_their_rates() -> None:
    settings = DropoutSettings(identity=0.1, text=0.05, both=0.05, region=0.2)
    drawn = streams(0, 0, [f"person-{number}" for number in range(4000)])
    identity, text = keep_conditions(settings, drawn)
    shares = [
        (~identity & text).float().mean().item(),
        (identity & ~text).float().mean().item(),
        (~identity & ~text).float().mean().item(),
    ]
    assert shares == pytest.approx([0.1, 0.05, 0.05], abs=0.02)  # four standard errors
    regions = keep_regions(settings, drawn, 5).float()
    assert regions.mean(0).tolist() == pytest.approx([0.8] * 5, abs=0.03)
    assert torch.corrcoef(regions.T).fill_diagonal_(0).abs().max() < 0.08


def test_dropped_text_and_dropped_identity_do_not_reach_the_loss() -> None:
    def losses(dropout: dict[str, float], **fields: torch.Tensor) -> torch.Tensor:
        recipe = tiny("visual_persona", dropout=dropout)
        batch = samples(recipe, PEOPLE)
        with torch.no_grad():
            return built(recipe)({**batch.fields, **fields}, batch.streams)

    nothing = {"identity": 0.0, "text": 0.0, "both": 0.0, "region": 0.0}
    other_text = torch.ones(4, 2, 77, dtype=torch.int64)
    other_person = torch.full((4, 5, 28, 28, 3), 99, dtype=torch.uint8)
    assert not torch.equal(losses(nothing), losses(nothing, caption_ids=other_text))
    assert not torch.equal(losses(nothing), losses(nothing, crops=other_person))
    no_text, no_person, no_region = ({**nothing, name: 1.0} for name in ("text", "identity", "region"))
    assert torch.equal(losses(no_text), losses(no_text, caption_ids=other_text))
    assert torch.equal(losses(no_person), losses(no_person, crops=other_person))
    assert torch.equal(losses(no_region), losses(no_person))


def test_a_weight_on_the_person_counts_errors_there() -> None:
    def loss(weight: float, person: torch.Tensor | None) -> float:
        recipe = tiny("visual_persona", denoising={"person_weight": weight})
        batch = samples(recipe, ["ann-a"])
        fields = dict(batch.fields) if person is None else {**batch.fields, "person": person}
        with torch.no_grad():
            return built(recipe)(fields, batch.streams).item()

    whole, left = torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1
    plain = loss(1.0, None)
    assert loss(3.0, whole) == pytest.approx(plain, rel=1e-5)
    only_left, only_right = loss(0.0, 1 - left), loss(0.0, left)
    assert (only_left + only_right) / 2 == pytest.approx(plain, rel=1e-5)
    assert loss(3.0, left) == pytest.approx((3 * only_left + only_right) / 4, rel=1e-5)


def test_min_snr_lowers_the_weight_of_easy_timesteps_alone() -> None:
    def losses(**denoising: float) -> torch.Tensor:
        recipe = tiny("visual_persona", denoising=denoising)
        batch = samples(recipe, [f"person-{number}" for number in range(16)])
        with torch.no_grad():
            return built(recipe)(batch.fields, batch.streams)

    ratio = losses(min_snr=5.0) / losses()
    assert ratio.max().item() == pytest.approx(1)
    assert ratio.min() < 0.5


def test_the_second_stage_starts_from_the_shared_queries() -> None:
    first, second = (tiny("visual_persona", stage=stage) for stage in ("shared_queries", "region_queries"))
    before = built(first, seed=3)
    adapter = {name: p.detach().clone() for name, p in first.adapter(before).items()}
    assert "identity.new_pos_embed" not in adapter
    after = built(second, seed=3)
    torch.nn.init.normal_(after.identity.new_pos_embed)
    second.load_adapter(after, adapter)
    batch = samples(first, PEOPLE)
    with torch.no_grad():
        torch.testing.assert_close(
            after(batch.fields, batch.streams), before(batch.fields, batch.streams), rtol=1e-5, atol=1e-6
        )
    assert not after.identity.pos_embed.requires_grad
    assert after.identity.new_pos_embed.requires_grad


def test_reconstruction_falls_to_zero() -> None:
    recipe = tiny("visual_persona", reconstruction=0.4, reconstruction_until=0.5)
    shares = [recipe.reconstruction_share(progress) for progress in (0, 0.25, 0.5, 1)]
    assert shares == pytest.approx([0.4, 0.2, 0, 0])


def test_frozen_parts_take_the_dtype_and_trained_parts_stay_float32() -> None:
    recipe = tiny("visual_persona")
    module = built(recipe, dtype=torch.bfloat16)
    dtypes: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for name, parameter in module.named_parameters():
        if not name.startswith("identity."):
            dtypes[parameter.requires_grad].add(parameter.dtype)
    assert dtypes == {True: {torch.float32}, False: {torch.bfloat16}}
    batch = samples(recipe, PEOPLE)
    with torch.autocast("cpu", torch.bfloat16):
        low = module(batch.fields, batch.streams)
    high = built(recipe)(batch.fields, batch.streams)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, high, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "dreambooth",
            {},
            "unknown recipe 'dreambooth': there are flux2_reference, ip_adapter, visual_persona",
        ),
        (
            "visual_persona",
            {"stages": 1},
            "recipe visual_persona: stages: unknown key; did you mean 'stage'",
        ),
        ("visual_persona", {"decoder": {"width": 64}}, "decoder.width 64 is not the width of a text token"),
        ("visual_persona", {"decoder": {"regions": 4}}, "decoder.regions must be 5: full_body"),
        ("visual_persona", {"dropout": {"identity": 0.9, "text": 0.2}}, "more than 1 together"),
        ("ip_adapter", {"sdxl": {**SDXL, "channels": [16]}}, "one number for each block"),
        ("ip_adapter", {"tokens": "four"}, "tokens: 'four': input should be a valid integer"),
    ],
)
def test_wrong_settings_are_one_clear_line(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        recipe_of(name, settings)
    assert "\n" not in str(caught.value)


class OwnAdapter(IpAdapter):
    """A recipe that is in no catalogue."""


class HalfWritten(Recipe):
    kind = IpAdapter.kind


OWN = f"{__name__}:OwnAdapter"


def test_a_recipe_of_ones_own_is_named_by_its_import_path_in_checkpoints_too() -> None:
    recipe = recipe_of(OWN, {"sdxl": SDXL})
    cached = recipe.with_denoising(cached_latents=True)
    assert type(recipe) is type(cached) is OwnAdapter
    assert recipe.name == cached.name == OWN
    again = recipe_of(cached.name, cached.settings.model_dump(mode="json"))
    assert again.settings == cached.settings


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_package.own:Own", "cannot be imported: ModuleNotFoundError: "),
        (f"{__name__}:NoSuch", "cannot be imported: AttributeError: "),
        ("recipe_with_slip:Own", r"cannot be imported: SyntaxError: .*recipe_with_slip\.py:2"),
        ("recipe_that_raises:Own", "cannot be imported: RuntimeError: no licence found"),
        ("json:JSONEncoder", "is no class derived from"),
        ("training.recipes.recipe:Recipe", "has no `kind`"),
        (f"{__name__}:HalfWritten", "lacks .*build"),
    ],
)
def test_an_import_path_that_leads_to_no_recipe_is_one_clear_line(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe_with_slip.py").write_text("import torch\nclass Own(:\n")
    (tmp_path / "recipe_that_raises.py").write_text("raise RuntimeError('no licence\\nfound')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=says) as caught:
        recipe_of(name, {})
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
