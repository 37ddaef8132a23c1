"""The model's parts: any batch size, the two kinds of nothing, identity attention, compilation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.trainer_ratios import graphs_counted
from shards.format.contents import REGION_NAMES
from tests.drawn_training import DECODER, DINO, built, samples, tiny
from training.batch import random_batch
from training.method_settings import DecoderSettings, DinoSettings
from training.models.identity_attention import cross_attentions, set_identity_scale
from training.models.local_weights import WeightsError, cast, from_folder, same_random_weights
from training.models.region_crops import MEAN, STD, Normalise, cut_regions
from training.models.region_decoder import RegionDecoder
from training.models.region_encoder import RegionEncoder
from training.randomness import streams
from training.recipes import recipe_of
from training.recipes.visual_persona import regions_there
from training.start import compile_blocks


@pytest.fixture(scope="module")
def decoder() -> RegionDecoder:
    torch.manual_seed(0)
    made = RegionDecoder(DecoderSettings(**DECODER))
    torch.nn.init.normal_(made.new_pos_embed)
    return made


def test_decoder_takes_any_batch_and_treats_samples_alone(decoder: RegionDecoder) -> None:
    features = torch.randn(3, 5, 9, DECODER["feature_width"])
    together = decoder(features)
    assert together.shape == (3, 5 * DECODER["queries"], DECODER["width"])
    alone = torch.cat([decoder(sample[None]) for sample in features])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_regions_do_not_see_one_another(decoder: RegionDecoder) -> None:
    features = torch.randn(1, 5, 9, DECODER["feature_width"])
    changed = features.clone()
    changed[:, 3] += 1
    before, after = (decoder(x).unflatten(1, (5, -1)) for x in (features, changed))
    same = [torch.allclose(before[:, region], after[:, region]) for region in range(5)]
    assert same == [True, True, True, False, True]


def test_shared_queries_are_five_equal_sets(decoder: RegionDecoder) -> None:
    features = torch.randn(2, 5, 9, DECODER["feature_width"])
    shared = decoder(features, shared_queries=True)
    assert not torch.allclose(shared, decoder(features))
    copied = RegionDecoder(DecoderSettings(**DECODER))
    copied.load_state_dict(decoder.state_dict())
    with torch.no_grad():
        copied.new_pos_embed.copy_(copied.pos_embed.expand_as(copied.new_pos_embed))
    assert torch.equal(copied(features), shared)


def test_black_and_missing_are_different() -> None:
    pixels = Normalise()(torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8), torch.tensor([[True, False]]))
    black = [-mean / std for mean, std in zip(MEAN, STD, strict=True)]
    torch.testing.assert_close(pixels[0, 0], torch.tensor(black).view(3, 1, 1).expand(3, 4, 4))
    assert torch.equal(pixels[0, 1], torch.zeros(3, 4, 4))


def test_a_missing_region_is_the_zero_image_whatever_its_crop_holds() -> None:
    torch.manual_seed(0)
    encoder = RegionEncoder(DinoSettings.model_validate(DINO))
    crops = torch.randint(0, 256, (2, 5, 28, 28, 3), dtype=torch.uint8)
    visible = torch.ones(2, 5, dtype=torch.bool)
    visible[1, 2:] = False
    features = encoder(crops, visible)
    assert features.shape == (2, 5, 4, DINO["width"])
    nobody = encoder.of_nobody(5)
    torch.testing.assert_close(features[1, 2:], nobody[0, 2:], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(features[1, 1], nobody[0, 1])


def test_a_dropped_identity_is_the_unconditional_tokens() -> None:
    module = built(tiny("visual_persona"))
    crops = torch.randint(0, 256, (1, 5, 28, 28, 3), dtype=torch.uint8)
    dropped = module.tokens(crops, torch.zeros(1, 5, dtype=torch.bool))
    torch.testing.assert_close(dropped, module.unconditional_tokens(), rtol=1e-5, atol=1e-6)


# Shares of photos that show each region: 3.57 regions of a photo, as the corpus has them.
SHOWN = torch.tensor([0.97, 0.8, 0.8, 0.6, 0.4])


@pytest.mark.parametrize("stage", ["shared_queries", "region_queries"])
def test_tokens_are_the_same_where_missing_regions_are_not_computed(stage: str) -> None:
    module = built(tiny("visual_persona", stage=stage))
    torch.nn.init.normal_(module.identity.new_pos_embed)
    crops = torch.randint(0, 256, (6, 5, 28, 28, 3), dtype=torch.uint8)
    visible = torch.rand(6, 5) < SHOWN
    visible[2] = False
    trained = [parameter for parameter in module.identity.parameters() if parameter.requires_grad]

    def made(seen: int | None) -> list[torch.Tensor]:
        tokens = module.tokens(crops, visible, seen)
        return [tokens, *torch.autograd.grad(tokens.square().sum(), trained)]

    expected, there = made(None), int(visible.sum())
    for seen in (there, there + 3, 30):
        for one, other in zip(expected, made(seen), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)
    # A count that is too low is no silent loss of regions.
    assert module.tokens(crops, visible, there - 1).isnan().any()


@pytest.mark.parametrize(
    ("stage", "batch", "of_decoder"), [("shared_queries", 16, 0.59), ("region_queries", 8, 0.70)]
)
def test_missing_and_dropped_regions_are_not_computed(stage: str, batch: int, of_decoder: float) -> None:
    recipe = tiny("visual_persona", stage=stage)
    module = built(recipe)
    crops = torch.zeros(batch, 5, 28, 28, 3, dtype=torch.uint8)

    def spent(visible: torch.Tensor, **counts: int) -> torch.Tensor:
        """FLOPs of DINOv2, and of the decoder."""
        with FlopCounterMode(display=False) as counted:
            tokens = module.tokens(crops, visible, **counts)
        assert tokens.isfinite().all()
        dino = sum(counted.get_flop_counts()["RegionEncoder"].values())
        return torch.tensor([dino, counted.get_total_flops() - dino])

    whole = spent(torch.ones(batch, 5, dtype=torch.bool))
    module.encoder.nothing()  # once in a training
    shares = []
    for number in range(40):
        visible = torch.rand(batch, 5, generator=torch.Generator().manual_seed(number)) < SHOWN
        drawn = streams(0, number, [str(sample) for sample in range(batch)])
        assert recipe.counts({"visible": visible}, drawn, drop=False)["seen"] == visible.sum()
        counts = recipe.counts({"visible": visible}, drawn, drop=True)
        shares.append(spent(regions_there(recipe.settings.dropout, visible, drawn), **counts) / whole)
    dino, decoder = torch.stack(shares).mean(0).tolist()
    assert dino <= 0.58, (dino, decoder)
    assert decoder <= of_decoder, (dino, decoder)


@pytest.mark.parametrize("sizes", [[(64, 96), (64, 128), (96, 64), (80, 80)], [(64, 64)]])
def test_blocks_are_compiled_for_all_sizes_of_targets_and_all_counts_of_regions_at_once(
    sizes: list[tuple[int, int]],
) -> None:
    recipe = tiny("visual_persona", denoising={"cached_latents": True})
    module = built(recipe)
    made = graphs_counted(recipe, module, len(sizes))
    after_two = None
    for number, (height, width) in enumerate(sizes * 4):
        batch = random_batch(recipe.fields(height, width), 3)
        batch.fields["visible"][0, : number % 5] = False
        counts = recipe.counts(batch.fields, batch.streams, drop=True)
        assert module(batch.fields, batch.streams, **counts).isfinite().all()
        after_two = made.copy() if number == 1 else after_two
    assert made == after_two
    # DINOv2 besides for the one zero image; of one size, decoder and DINOv2 once more for any count.
    assert max(made.values()) <= 3, made
    torch._dynamo.reset()


def test_weights_in_another_precision_leave_constants_as_they_were() -> None:
    module = cast(built(tiny("visual_persona")), torch.bfloat16)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert module.encoder.normalise.mean.flatten().tolist() == torch.tensor(MEAN).tolist()
    assert module.encoder.normalise.std.flatten().tolist() == torch.tensor(STD).tolist()
    assert module.denoiser.schedule.signal.dtype == torch.float32


def test_weights_of_a_folder_lie_on_the_default_device_and_random_ones_are_drawn_on_the_cpu(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").write_text("{}")
    loaded_on = []

    def load(folder: str, **options: Any) -> torch.nn.Module:
        loaded_on.append(torch.empty(0).device.type)
        return torch.nn.Linear(2, 2)

    # meta stands in for a GPU: it is another device than the one that files are read to.
    with torch.device("meta"):
        module = from_folder(load, str(tmp_path))
    assert loaded_on == ["cpu"]
    assert module.weight.is_meta
    drawn = []
    for device in ("cpu", "meta"):
        with torch.device(device), same_random_weights():
            drawn.append(torch.rand(3).device.type)
    assert drawn == ["cpu", "meta"]


def test_crops_are_bounding_boxes_on_black_squares() -> None:
    labels = np.zeros((60, 40), np.uint8)
    labels[4:10, 18:22] = 11  # face
    labels[10:30, 10:30] = 4  # upper clothes
    labels[12:16, 19:21] = 2  # hair that falls over them
    labels[30:50, 12:28] = 6  # pants
    labels[20:40, 30:38] = 16  # a bag
    photo = np.full((60, 40, 3), 200, np.uint8)
    photo[labels == 11] = (255, 0, 0)
    photo[labels == 4] = (0, 255, 0)
    crops, visible = cut_regions(photo, labels, size_px=48)
    assert dict(zip(REGION_NAMES, visible.tolist(), strict=True)) == {
        "full_body": True,
        "head": True,
        "torso": True,
        "legs": True,
        "shoes": False,
    }
    assert not crops[4].any()

    # The head's box is rows 4 to 15, columns 18 to 21: 12 high, 4 wide, in the middle of the square.
    head = crops[1].astype(int)
    assert head[24, :14].max() < 30
    assert head[8, 24].tolist() == pytest.approx([255, 0, 0], abs=12)
    # Clothes beside the hair are inside the head's box, and stay.
    assert head[28, 17, 1] > 200

    # The bag belongs to nobody: the body's box ends at column 29 and 46 rows are 48 px.
    body = Image.fromarray(crops[0]).crop((12, 0, 36, 48))
    assert np.asarray(body).max() == 255
    assert (crops[0][:, 40:] == 0).all()


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="label map of shape"):
        cut_regions(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8))


def test_scale_zero_leaves_the_text_alone_and_needs_no_new_module() -> None:
    module = built(tiny("visual_persona"))
    unet = module.denoiser.unet
    noised, steps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    text, pooled, size = torch.randn(1, 77, 32), torch.randn(1, 16), torch.zeros(1, 6)
    someone, other = torch.randn(2, 1, 20, 32)

    def epsilon(identity: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return module.denoiser.predict(noised, steps, (text, pooled, size), identity)

    assert not torch.allclose(epsilon(someone), epsilon(other))
    set_identity_scale(unet, 0)
    assert torch.equal(epsilon(someone), epsilon(other))
    set_identity_scale(unet, 1)
    assert not torch.allclose(epsilon(someone), epsilon(other))


def test_identity_attention_needs_text_before_it() -> None:
    module = built(tiny("visual_persona"))
    _, attn = next(iter(cross_attentions(module.denoiser.unet)))
    with pytest.raises(ValueError, match="text must come before 20"):
        attn(torch.randn(1, 16, 32), encoder_hidden_states=torch.randn(1, 20, 32))


def test_a_folder_that_holds_no_model_is_named(tmp_path) -> None:
    dino = {**DINO, "folder": str(tmp_path / "nothing")}
    with pytest.raises(WeightsError, match=r"nothing: no config.json"):
        tiny("visual_persona", dino=dino).build(torch.float32)


def test_weights_come_back_from_local_folders(tmp_path) -> None:
    recipe = tiny("visual_persona")
    module = built(recipe)
    module.encoder.dino.save_pretrained(tmp_path / "dino")
    module.denoiser.texts.first.save_pretrained(tmp_path / "sdxl" / "text_encoder")
    module.denoiser.texts.second.save_pretrained(tmp_path / "sdxl" / "text_encoder_2")
    module.denoiser.vae.save_pretrained(tmp_path / "sdxl" / "vae")
    torch.manual_seed(0)
    unet = built(recipe).denoiser.unet
    unet.set_attn_processor(AttnProcessor2_0())
    unet.save_pretrained(tmp_path / "sdxl" / "unet")
    again = built(
        recipe_of(
            "visual_persona",
            {
                "sdxl": {"folder": str(tmp_path / "sdxl")},
                "dino": {**DINO, "folder": str(tmp_path / "dino")},
                "decoder": DECODER,
            },
        ),
        seed=7,
    )
    batch = samples(recipe, ["a", "b"])
    again.load_state_dict({n: p for n, p in module.state_dict().items() if "identity" in n}, strict=False)
    with torch.no_grad():
        torch.testing.assert_close(
            again(batch.fields, batch.streams), module(batch.fields, batch.streams), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", ["visual_persona", "ip_adapter"])
def test_compiled_blocks_have_no_graph_break_and_equal_eager(name: str) -> None:
    # What inductor's kernels differ by is measured by benchmarks/train_step.py --compile: they need a C++
    # compiler, and the smallest block alone takes it 25 s of processor time.
    recipe = tiny(name)
    module = built(recipe, dtype=torch.bfloat16)
    paths = list(module.state_dict())
    batch = samples(recipe, ["a", "b"])

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            losses = module(batch.fields, batch.streams)
        losses.mean().backward()
        gradients = [p.grad.flatten() for p in module.parameters() if p.requires_grad]
        return losses.detach(), torch.cat(gradients)

    eager = step()
    compile_blocks(recipe.blocks(module), backend="aot_eager")
    compiled = step()
    torch.testing.assert_close(compiled[0], eager[0], rtol=0.01, atol=0)
    assert (compiled[1] - eager[1]).norm() < 0.02 * eager[1].norm()
    assert list(module.state_dict()) == paths
