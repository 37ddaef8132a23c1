"""Generation: the same picture for the same seed, cached or not, from a checkpoint or a published file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.drawn_pairs import drawn_photo
from tests.drawn_training import built, tiny
from tests.train_tiny import training
from training.export import adapter_of, last_checkpoint
from training.generation.pipeline import PLAIN_REGIONS, PersonaPipeline
from training.generation.references import LabelledPhoto, RegionChoice, reference_fields
from training.models.region_crops import REGION_LABELS
from training.ranks import Ranks
from training.recipes.recipe import Recipe
from training.run_settings import SamplingSettings

FAST = SamplingSettings(steps=3, guidance=4.0)


@pytest.fixture(scope="module")
def references() -> list[LabelledPhoto]:
    """Two photos of a person; the second shows no shoes."""
    random = np.random.default_rng(1)
    return [LabelledPhoto(*drawn_photo(random, number)) for number in range(2)]


@pytest.fixture(scope="module", params=["visual_persona", "ip_adapter", "flux2_reference"])
def pipeline(request: pytest.FixtureRequest) -> PersonaPipeline:
    recipe = tiny(request.param)
    return PersonaPipeline(recipe, built(recipe).eval())


@pytest.fixture(scope="module")
def persona() -> PersonaPipeline:
    recipe = tiny("visual_persona")
    return PersonaPipeline(recipe, built(recipe).eval())


def picture(pipeline: PersonaPipeline, references: list[LabelledPhoto], **changed) -> np.ndarray:
    arguments = {"height": 64, "width": 64, "sampling": FAST, "seeds": (7,), **changed}
    return np.stack([np.asarray(one) for one in pipeline("A woman waves.", references, **arguments)])


def test_cached_keys_and_values_give_the_same_picture(
    pipeline: PersonaPipeline, references: list[LabelledPhoto]
) -> None:
    cached = picture(pipeline, references, cache=True)
    assert cached.shape == (1, 64, 64, 3)
    assert np.array_equal(cached, picture(pipeline, references, cache=False))


def test_a_seed_gives_its_picture_alone_or_among_others(
    pipeline: PersonaPipeline, references: list[LabelledPhoto]
) -> None:
    both = picture(pipeline, references, seeds=(7, 8))
    again = picture(pipeline, references)
    assert np.array_equal(again, picture(pipeline, references))
    # Sums of a larger batch are rounded otherwise.
    assert np.abs(both[0].astype(int) - again[0]).max() <= 1
    assert np.abs(both[1].astype(int) - both[0]).max() > 1


def test_without_identity_scale_the_reference_does_not_matter(
    pipeline: PersonaPipeline, references: list[LabelledPhoto]
) -> None:
    without = FAST.model_copy(update={"identity_scale": 0.0})
    first, second = ([photo] for photo in references)
    assert np.array_equal(
        picture(pipeline, first, sampling=without), picture(pipeline, second, sampling=without)
    )
    assert not np.array_equal(picture(pipeline, first), picture(pipeline, second))


def test_a_generation_leaves_the_model_as_it_was(
    persona: PersonaPipeline, references: list[LabelledPhoto]
) -> None:
    def state() -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in persona.module.named_buffers()}

    before, names = state(), list(persona.module.state_dict())
    picture(persona, references)
    assert names == list(persona.module.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in state().items())


def test_regions_are_taken_from_the_photos_that_are_named(
    persona: PersonaPipeline, references: list[LabelledPhoto]
) -> None:
    assert not np.array_equal(
        picture(persona, references, regions=("head",)), picture(persona, references, regions=("legs",))
    )
    # Only the first photo shows shoes; both show legs.
    only = picture(persona, references[:1], regions=("shoes",))
    assert np.array_equal(only, picture(persona, references, regions=("shoes",)))
    assert np.array_equal(only, picture(persona, references[::-1], regions={"shoes": 1}))
    dressed = picture(persona, references, regions={"head": 0, "legs": 1})
    assert not np.array_equal(dressed, picture(persona, references, regions={"head": 0, "legs": 0}))


def test_a_model_that_reads_the_whole_person_is_shown_no_region_that_was_not_asked_for() -> None:
    recipe, random = tiny("flux2_reference"), np.random.default_rng(1)
    photo = LabelledPhoto(*drawn_photo(random, 0))
    # As other clothes below the head would be: nothing of them may reach the model.
    head = np.isin(photo.labels, REGION_LABELS["head"])
    other = LabelledPhoto(np.where(head[..., None], photo.photo, 255 - photo.photo), photo.labels)

    def body(regions: RegionChoice | Sequence[str], *photos: LabelledPhoto) -> np.ndarray:
        fields = reference_fields(recipe.reference_fields(), photos, regions)
        return fields["body"].numpy()

    assert np.array_equal(body(("head",), photo), body(("head",), other))
    assert np.array_equal(body({"head": 0, "legs": 1}, photo, photo), body({"head": 0}, other))
    assert not np.array_equal(body(("head",), photo), body(("torso",), photo))
    whole = body(PLAIN_REGIONS, photo)
    assert np.array_equal(whole, body(("full_body",), photo))
    assert not np.array_equal(whole, body(PLAIN_REGIONS, other))
    assert not np.array_equal(whole, body(("head", "torso"), photo))


@pytest.mark.parametrize(
    "recipe", [tiny("ip_adapter"), tiny("flux2_reference", whole_photo=1.0)], ids=["ip_adapter", "flux2"]
)
def test_regions_of_a_whole_photo_are_refused(recipe: Recipe, references: list[LabelledPhoto]) -> None:
    fields = recipe.reference_fields()
    reference_fields(fields, references, PLAIN_REGIONS)
    for regions in ({"head": None}, {**PLAIN_REGIONS, "head": 1}):
        with pytest.raises(ValueError, match="this model reads whole photos, of which none can be chosen"):
            reference_fields(fields, references, regions)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"regions": ("hands",)}, "unknown region 'hands': there are full_body, head"),
        ({"regions": {"shoes": 1}}, "region shoes: photo 1 does not show it"),
        ({"regions": {"head": 2}}, "region head: there is no photo 2"),
        ({"height": 100}, "100 × 64 px: height and width must be multiples of 16"),
    ],
)
def test_what_cannot_be_generated_is_said(
    changed: dict, message: str, persona: PersonaPipeline, references: list[LabelledPhoto]
) -> None:
    with pytest.raises(ValueError, match=message):
        picture(persona, references, **changed)


def test_a_negative_prompt_changes_where_guidance_leads(
    persona: PersonaPipeline, references: list[LabelledPhoto]
) -> None:
    plain = picture(persona, references)
    assert not np.array_equal(plain, picture(persona, references, negative_prompt="blurred"))


@pytest.mark.parametrize("recipe", ["visual_persona", "ip_adapter", "flux2_reference"])
def test_a_checkpoint_and_its_published_file_generate_the_same_picture(
    recipe: str, references: list[LabelledPhoto], tmp_path: Path
) -> None:
    run = training(tmp_path / "run", Ranks(), recipe=recipe, steps=2)
    run.run()
    weights = tmp_path / "weights.safetensors"
    run.recipe.export(adapter_of(last_checkpoint(tmp_path / "run"), averaged=True), weights)
    from_run = PersonaPipeline.from_pretrained(tmp_path / "run")
    torch.manual_seed(9)  # what is frozen is no matter of the generator's state
    method = run.recipe.settings.model_dump(mode="json")
    published = PersonaPipeline.from_pretrained(weights, recipe=recipe, method=method)
    assert np.array_equal(picture(from_run, references), picture(published, references))
