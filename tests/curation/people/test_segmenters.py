"""Masks by segment-anything and MobileSAM of random weights, and by GrabCut on drawn figures."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.live_tensors import LiveTensors
from curation.errors import ConfigError
from curation.people.segment_grabcut import Grabcut
from curation.people.segment_sam import SegmentAnything, build_sam
from curation.people.ultralytics_backends import UltralyticsSam, quiet_ultralytics
from curation.settings.people import GrabcutSettings, SegmentAnythingSettings, UltralyticsSamSettings
from tests.real_weights import model_at

TINY: dict[str, Any] = {
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "global_attn_indexes": [1],
    "image_px": 128,
    "out_chans": 32,
}
BOXES = np.array([[0, 0, 300, 200], [10, 20, 60, 120], [150, 5, 290, 195], [5, 5, 6, 6]])


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Coloured blocks, 200 px high and 300 wide; read-only as stages hand photos on."""
    blocks = np.random.default_rng(5).integers(0, 256, (10, 15, 3), dtype=np.uint8)
    picture = blocks.repeat(20, axis=0).repeat(20, axis=1)
    picture.flags.writeable = False
    return picture


def assert_one_mask_a_box(masks: list[np.ndarray], boxes: np.ndarray) -> None:
    assert [mask.shape for mask in masks] == [(y1 - y0, x1 - x0) for x0, y0, x1, y1 in boxes.tolist()]
    assert all(mask.dtype == bool for mask in masks)


# segment-anything


@pytest.fixture(scope="module")
def tiny_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(2)
    file = tmp_path_factory.mktemp("sam") / "tiny.pth"
    torch.save(build_sam(TINY).state_dict(), file)
    return file


def segment_anything(weights: Path, architecture: str | dict[str, Any]) -> SegmentAnything:
    settings = SegmentAnythingSettings(model="weights", architecture=architecture)  # type: ignore[arg-type]
    return SegmentAnything(settings, {"weights": model_at(weights)})


@pytest.fixture
def embedded() -> Iterator[list[tuple[int, ...]]]:
    """Shapes of what image encoders of segment-anything were given during the test."""
    from segment_anything.modeling import ImageEncoderViT
    from torch.nn.modules.module import register_module_forward_hook

    shapes: list[tuple[int, ...]] = []

    def count(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(module, ImageEncoderViT):
            shapes.append(tuple(inputs[0].shape))

    hook = register_module_forward_hook(count)
    yield shapes
    hook.remove()


def test_a_photo_is_embedded_once_for_all_its_boxes(
    tiny_sam: Path, photo: np.ndarray, embedded: list[tuple[int, ...]]
) -> None:
    sam = segment_anything(tiny_sam, TINY)
    masks = sam.segment(photo, BOXES)
    assert embedded == [(1, 3, 128, 128)]
    assert_one_mask_a_box(masks, BOXES)
    sam.segment(photo[:, ::-1], BOXES)
    assert len(embedded) == 2


def test_with_a_crop_margin_a_mask_depends_on_the_person_s_surroundings_only(
    tiny_sam: Path, photo: np.ndarray, embedded: list[tuple[int, ...]]
) -> None:
    settings = SegmentAnythingSettings(model="weights", architecture=TINY, crop_margin=0.1)
    sam = SegmentAnything(settings, {"weights": model_at(tiny_sam)})
    masks = sam.segment(photo, BOXES)
    assert len(embedded) == len(BOXES)
    assert_one_mask_a_box(masks, BOXES)
    elsewhere = photo.copy()
    elsewhere[:, 80:] = 0  # the second box, 50 × 100 px, is seen with 10 px around it
    np.testing.assert_array_equal(sam.segment(elsewhere, BOXES[1:2])[0], masks[1])
    elsewhere[:, 65:] = 0
    assert not np.array_equal(sam.segment(elsewhere, BOXES[1:2])[0], masks[1])


def test_segment_anything_gives_a_box_the_same_mask_alone_and_among_others(
    tiny_sam: Path, photo: np.ndarray
) -> None:
    sam = segment_anything(tiny_sam, TINY)
    together = sam.segment(photo, BOXES)
    assert 0 < together[0].mean() < 1  # random weights draw borders somewhere
    for box, mask in zip(BOXES, together, strict=True):
        np.testing.assert_array_equal(sam.segment(photo, box[None])[0], mask)


def test_a_crowd_on_a_large_photo_is_not_masked_at_once(tiny_sam: Path) -> None:
    # Before it is cut, a mask is a float32 of the photo's size: 60 of them are 1.7 GB here.
    photo = np.random.default_rng(3).integers(0, 256, (2400, 3000, 3), np.uint8)
    left = np.arange(60) * 20
    boxes = np.stack([left, left + 100, left + 400, left + 700], axis=1)
    segmenter = segment_anything(tiny_sam, TINY)
    with LiveTensors() as live:
        masks = segmenter.segment(photo, boxes)
    assert_one_mask_a_box(masks, boxes)
    assert live.peak < 0.9 * 2**30
    assert all(mask.base is None for mask in masks)  # none keeps the whole photo's alive


@pytest.mark.parametrize(
    "change",
    [{"embed_dim": 64}, {"depth": 3}, {"image_px": 256}, {"num_heads": 4}, {"out_chans": 64}],
    ids=str,
)
def test_weights_of_another_architecture_are_refused_in_one_line(
    tiny_sam: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"tiny\.pth does not fit architecture .*(size|key)") as error:
        segment_anything(tiny_sam, {**TINY, **change})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [{"embd_dim": 32}, {"num_heads": 0}, {"out_chans": 20}, {"image_px": "large"}, {"embed_dim": "32"}],
    ids=str,
)
def test_an_architecture_that_cannot_be_built_is_refused_in_one_line(
    tiny_sam: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"people\.segment\.by\.architecture") as error:
        segment_anything(tiny_sam, {**TINY, **change})
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"<html>not found</html>")
    with pytest.raises(ConfigError, match=r"broken\.pth") as error:
        segment_anything(broken, TINY)
    assert "\n" not in str(error.value)


def test_weights_that_would_run_code_are_refused_without_running_it(tmp_path: Path) -> None:
    import torch

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "it-ran"),))

    torch.save({"weights": Payload()}, tmp_path / "trap.pth")
    with pytest.raises(ConfigError, match=r"trap\.pth"):
        segment_anything(tmp_path / "trap.pth", TINY)
    assert not (tmp_path / "it-ran").exists()


# MobileSAM by ultralytics


@pytest.fixture(scope="module")
def mobile_sam(tmp_path_factory: pytest.TempPathFactory, photo: np.ndarray) -> Path:
    """MobileSAM of random weights that trusts its masks of BOXES between 0.1 and 0.9."""
    quiet_ultralytics()
    import torch
    from ultralytics import SAM
    from ultralytics.models.sam.build import build_mobile_sam

    torch.set_num_threads(1)
    torch.manual_seed(4)
    file = tmp_path_factory.mktemp("mobile") / "mobile_sam.pt"
    torch.save(build_mobile_sam().state_dict(), file)
    sam = SAM(str(file))
    answers: list[Any] = []
    sam.model.mask_decoder.register_forward_hook(lambda module, inputs, output: answers.append(output))
    sam(np.ascontiguousarray(photo[..., ::-1]), bboxes=BOXES.tolist(), device="cpu", verbose=False)
    trust = answers[0][1]
    low, high = float(trust.min()), float(trust.max())
    with torch.no_grad():
        last = sam.model.mask_decoder.iou_prediction_head.layers[-1]
        last.weight.mul_(0.8 / (high - low))
        last.bias.sub_(low).mul_(0.8 / (high - low)).add_(0.1)
    torch.save(sam.model.state_dict(), file)
    return file


def ultralytics_sam(weights: Path) -> UltralyticsSam:
    return UltralyticsSam(UltralyticsSamSettings(model="weights"), {"weights": model_at(weights)})


def test_mobile_sam_gives_each_box_its_own_mask_however_little_it_trusts_some(
    mobile_sam: Path, photo: np.ndarray
) -> None:
    sam = ultralytics_sam(mobile_sam)
    together = sam.segment(photo, BOXES)
    assert_one_mask_a_box(together, BOXES)
    for box, mask in zip(BOXES[:3], together[:3], strict=True):
        assert 0 < mask.mean() < 1
        alone = sam.segment(photo, box[None])
        assert_one_mask_a_box(alone, box[None])
        assert (alone[0] == mask).mean() > 0.999


def test_ultralytics_sam_refuses_a_file_whose_name_tells_no_architecture(
    mobile_sam: Path, tmp_path: Path
) -> None:
    renamed = tmp_path / "segmenter.pt"
    renamed.symlink_to(mobile_sam)
    with pytest.raises(ConfigError, match=r"segmenter\.pt") as error:
        ultralytics_sam(renamed)
    assert "\n" not in str(error.value)


def test_ultralytics_sam_refuses_weights_of_another_size(mobile_sam: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "sam_b.pt"
    renamed.symlink_to(mobile_sam)
    with pytest.raises(ConfigError, match=r"sam_b\.pt") as error:
        ultralytics_sam(renamed)
    assert "\n" not in str(error.value)


# GrabCut


def figure(width: int, height: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bright figure with head, torso and two legs before a dark wall: photo, its shape, its box."""
    shape = np.zeros((height, width), np.uint8)

    def block(x0: float, y0: float, x1: float, y1: float) -> None:
        shape[int(y0 * height) : int(y1 * height), int(x0 * width) : int(x1 * width)] = 1

    cv2.ellipse(
        shape, (width // 2, height // 5), (width // 10, int(height * 0.07)), 0, 0, 360, color=1, thickness=-1
    )
    block(0.33, 0.27, 0.67, 0.58)
    block(0.36, 0.58, 0.48, 0.9)
    block(0.52, 0.58, 0.64, 0.9)
    colours = np.where(shape[..., None] > 0, (230, 200, 120), (40, 70, 110))
    noise = np.random.default_rng(seed).normal(0, 8, colours.shape)
    photo = np.clip(colours + noise, 0, 255).astype(np.uint8)
    photo.flags.writeable = False
    ys, xs = np.nonzero(shape)
    return photo, shape > 0, np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture
def grabcut() -> Grabcut:
    return Grabcut(GrabcutSettings(), {})


@pytest.mark.parametrize("size", [(120, 200), (240, 400), (600, 1000)], ids=str)
def test_grabcut_cuts_a_figure_out_of_its_background(grabcut: Grabcut, size: tuple[int, int]) -> None:
    photo, shape, box = figure(*size)
    mask = grabcut.segment(photo, box[None])[0]
    x0, y0, x1, y1 = box
    assert mask.shape == (y1 - y0, x1 - x0)
    assert iou(mask, shape[y0:y1, x0:x1]) > 0.8


def test_grabcut_still_finds_a_figure_whose_box_is_the_whole_photo(grabcut: Grabcut) -> None:
    photo, shape, _ = figure(240, 400)
    mask = grabcut.segment(photo, np.array([[0, 0, 240, 400]]))[0]
    assert iou(mask, shape) > 0.8


def test_grabcut_still_gives_a_mask_of_a_person_who_fills_the_photo(grabcut: Grabcut) -> None:
    photo, _, (x0, y0, x1, y1) = figure(240, 400)
    close = photo[y0:y1, x0:x1]
    mask = grabcut.segment(close, np.array([[0, 0, x1 - x0, y1 - y0]]))[0]
    assert mask.shape == close.shape[:2]
    assert mask.mean() > 0.3


@pytest.mark.parametrize(
    "box", [(0, 0, 100, 150), (20, 30, 80, 120), (99, 149, 100, 150), (0, 40, 100, 41)], ids=str
)
def test_a_photo_of_one_colour_gives_a_mask_and_no_error(grabcut: Grabcut, box: tuple[int, ...]) -> None:
    photo = np.full((150, 100, 3), 90, np.uint8)
    x0, y0, x1, y1 = box
    assert grabcut.segment(photo, np.array([box]))[0].shape == (y1 - y0, x1 - x0)


def test_no_box_is_too_small_or_too_near_a_border_for_grabcut(grabcut: Grabcut) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    for width in (1, 2, 4, 40):
        for height in (1, 2, 4, 60):
            for x0, y0 in ((0, 0), (40 - width, 60 - height), ((40 - width) // 2, (60 - height) // 2)):
                box = np.array([[x0, y0, x0 + width, y0 + height]])
                assert grabcut.segment(photo, box)[0].shape == (height, width)


def test_grabcut_gives_the_same_bytes_twice_whatever_it_did_before_and_with_any_threads() -> None:
    figure_photo, _, box = figure(240, 400, seed=1)
    # On noise the random start of GrabCut's clusters shows.
    noise = np.random.default_rng(2).integers(0, 256, figure_photo.shape, dtype=np.uint8)
    boxes = np.stack([box, [0, 0, 240, 400], [30, 50, 200, 390]])
    threads = cv2.getNumThreads()
    try:
        for photo in (figure_photo, noise):
            cv2.setNumThreads(1)
            first = [mask.tobytes() for mask in Grabcut(GrabcutSettings(), {}).segment(photo, boxes)]
            for count in (1, 2):
                cv2.setNumThreads(count)
                again = Grabcut(GrabcutSettings(), {}).segment(photo, boxes[::-1])[::-1]
                assert [mask.tobytes() for mask in again] == first
    finally:
        cv2.setNumThreads(threads)


def test_ultralytics_masks_a_crowd_on_a_large_photo_some_boxes_at_a_time(mobile_sam: Path) -> None:
    photo = np.random.default_rng(3).integers(0, 256, (2400, 3000, 3), np.uint8)
    left = np.arange(30) * 20
    boxes = np.stack([left, left + 100, left + 400, left + 700], axis=1)
    sam = ultralytics_sam(mobile_sam)
    with LiveTensors() as live:
        masks = sam.segment(photo, boxes)
    assert_one_mask_a_box(masks, boxes)
    assert live.peak < 1.1 * 2**30
    (alone,) = sam.segment(photo, boxes[29:])
    assert (alone != masks[29]).mean() < 1e-3
