"""The demo's small models: their training goes on after a kill, and the stored weights know their world.

Photos and people are of seeds that no training script uses.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from curation.evaluation.answers import match_boxes
from curation.models import find_models
from curation.people.atr import REGIONS, encode_map
from curation.people.face import align_face
from curation.people.face_keypoints import KeypointsFaceFinder
from curation.people.face_onnx import OnnxFaceEmbedder
from curation.people.protocols import Detections, PersonView
from curation.people.segment_sam import SegmentAnything, build_sam
from curation.people.transformers_backends import SegformerParser
from curation.pipeline_file import load_pipeline
from curation.settings.people import (
    KeypointsFaceSettings,
    OnnxEmbedderSettings,
    SegformerSettings,
    SegmentAnythingSettings,
)
from demo.train import sam as sam_training
from demo.train import segformer as segformer_training
from demo.train import yolo as yolo_training
from demo.train.command import WEIGHTS
from demo.train.data import Photo, jpeg_of, people_of_faces
from demo.train.face import Embedder, export, traits_of
from demo.train.loop import train
from demo.train.unseen import card, certain, detector, seen_people, true_labels
from demo.world import make_identity, make_outfits, make_world, render, snapshot
from demo.world.render import Rendered

UNSEEN = 990_000
OURS = ("yolo_pose.pt", "sam.pth", "segformer", "face.onnx", "vae")


def as_photo(rendered: Rendered, seed: int) -> Photo:
    people = rendered.people
    return Photo(
        jpeg_of(rendered.image, seed),
        np.array([person.box for person in people], np.float32).reshape(-1, 4),
        np.array([person.keypoints for person in people], np.float32).reshape(-1, 17, 3),
        [encode_map(person.labels) for person in people],
        [person.identity for person in people],
        np.array([person.visible_share for person in people], np.float32),
    )


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    plans = make_world(UNSEEN, 60).photos[::3]
    return [as_photo(render(plan), number) for number, plan in enumerate(plans)]


@pytest.fixture(scope="module")
def found(photos: list[Photo]) -> list[Detections]:
    yolo = detector(WEIGHTS / "yolo_pose.pt", yolo_training.IMAGE_PX)
    return [certain(people) for people in yolo.detect([photo.pixels() for photo in photos])]


def with_people(
    photos: list[Photo], found: list[Detections]
) -> Iterator[tuple[Photo, np.ndarray, list[int]]]:
    """(photo, boxes of the detections that are right, whose they are)."""
    for photo, people in zip(photos, found, strict=True):
        boxes, who = seen_people(photo, people)
        if len(boxes):
            yield photo, boxes, who


# The weights


def test_all_weights_of_the_demo_together_are_at_most_25_mib() -> None:
    assert all((WEIGHTS / name).exists() for name in OURS)
    size = sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file())
    assert size <= 25 * 2**20


@pytest.mark.parametrize("name", OURS)
def test_the_card_of_a_model_is_that_of_the_stored_weights(name: str) -> None:
    import hashlib

    weights = WEIGHTS / name
    text = (WEIGHTS / f"{weights.stem}.md").read_text()
    files = sorted(p for p in weights.rglob("*") if p.is_file()) if weights.is_dir() else [weights]
    hashes = re.findall(r"`([^`]+)` ([0-9a-f]{64})", text)
    assert hashes == [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
    assert "never trained on" in text


def test_the_pipeline_pins_the_stored_weights() -> None:
    pipeline = load_pipeline(str(WEIGHTS.parents[1] / "pipelines.yaml"), "demo", [f"models.path={WEIGHTS}"])
    assert pipeline.models is not None
    assert all(card.sha256 for card in pipeline.models.cards.values())
    find_models(pipeline)  # raises where one differs


def test_the_detector_finds_people_of_an_unseen_world_and_no_posters(
    photos: list[Photo], found: list[Detections]
) -> None:
    matches = [match_boxes(people.boxes, photo.boxes) for photo, people in zip(photos, found, strict=True)]
    wanted = sum(int((photo.visible >= 0.25).sum()) for photo in photos)
    right = sum(person is not None for matched in matches for person in matched)
    assert right >= 0.9 * wanted
    assert right >= 0.9 * sum(len(matched) for matched in matches)


def test_masks_by_the_detector_s_boxes_are_those_of_the_people(
    photos: list[Photo], found: list[Detections]
) -> None:
    settings = SegmentAnythingSettings(
        model="sam", architecture=sam_training.ARCHITECTURE, crop_margin=sam_training.CROP_MARGIN
    )
    sam = SegmentAnything(settings, card(WEIGHTS / "sam.pth", "sam"))
    ious = []
    for photo, boxes, who in with_people(photos, found):
        for box, person, mask in zip(boxes, who, sam.segment(photo.pixels(), boxes), strict=True):
            true = true_labels(photo, person, box) > 0
            ious.append((mask & true).sum() / (mask | true).sum())
    assert np.mean(ious) > 0.85


def test_the_parser_tells_the_five_regions_of_unseen_people(
    photos: list[Photo], found: list[Detections]
) -> None:
    parser = SegformerParser(SegformerSettings(model="segformer"), card(WEIGHTS / "segformer", "segformer"))
    both, either = np.zeros(len(REGIONS)), np.zeros(len(REGIONS))
    for photo, boxes, who in with_people(photos, found):
        truths = [true_labels(photo, person, box) for box, person in zip(boxes, who, strict=True)]
        views = [PersonView(box, true > 0, None, None) for box, true in zip(boxes, truths, strict=True)]
        for true, labels in zip(truths, parser.parse(photo.pixels(), views), strict=True):
            for number, members in enumerate(REGIONS.values()):
                here, there = np.isin(labels, members), np.isin(true, members)
                both[number] += (here & there).sum()
                either[number] += (here | there).sum()
    assert (both / either).mean() > 0.75


def test_faces_by_the_detector_s_keypoints_tell_unseen_people_apart() -> None:
    yolo = detector(WEIGHTS / "yolo_pose.pt", yolo_training.IMAGE_PX)
    finder = KeypointsFaceFinder(KeypointsFaceSettings(), {})
    embedder = OnnxFaceEmbedder(OnnxEmbedderSettings(model="face"), card(WEIGHTS / "face.onnx", "face"))
    aligned, who = [], []
    for number in range(8):
        identity = make_identity(UNSEEN + 1, number)
        for shot, outfit in enumerate(make_outfits(identity, 3)):
            plan = snapshot(identity, outfit, shot, view="front", framing="full")
            pixels = as_photo(render(plan), shot).pixels()
            faces = finder.find(pixels, certain(yolo.detect([pixels])[0]))
            if faces:
                aligned.append(align_face(pixels, faces[0].points))
                who.append(number)
    assert len(who) >= 20
    vectors = embedder.embed(np.stack(aligned))
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    nearest = np.array(who)[cosines.argmax(axis=1)]
    several = np.bincount(who, minlength=8)[who] > 1
    assert (nearest == who)[several].mean() > 0.9


# Their training


def test_a_killed_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def start(until: int | None, minutes: float = 1.0) -> tuple[list[int], torch.nn.Module, int]:
        torch.manual_seed(1)
        model = torch.nn.Linear(3, 1)
        seen: list[int] = []

        def loss_of(step: int, share: float) -> tuple[torch.Tensor, dict[str, float]]:
            if step == until:
                raise KeyboardInterrupt
            seen.append(step)
            batch = torch.from_numpy(np.random.default_rng(step).normal(size=(4, 3))).float()
            return (model(batch) - batch.sum(1, keepdim=True)).square().mean(), {}

        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        averaged, steps = train(tmp_path, minutes, model, optimizer, loss_of, save_every_s=0.0)
        return seen, averaged, steps

    with pytest.raises(KeyboardInterrupt):
        start(until=5)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 5
    seen, averaged, steps = start(until=None, minutes=state["used_s"] / 60 + 0.002)
    assert seen[0] == 5
    assert steps == seen[-1] + 1
    # A budget that is used up takes no step more.
    seen, same, again = start(until=None, minutes=0.0)
    assert (seen, again) == ([], steps)
    assert torch.equal(same.weight, averaged.weight)


def test_the_batch_of_a_step_depends_on_the_step_and_the_seed_only(photos: list[Photo]) -> None:
    one, again = (yolo_training.batch_of(photos, 3, 0, 96) for _ in range(2))
    other = yolo_training.batch_of(photos, 4, 0, 96)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["img"], other["img"])


def test_joints_and_boxes_of_a_training_batch_lie_on_their_person(photos: list[Photo]) -> None:
    alone = [photo for photo in photos if len(photo.boxes) == 1]
    for step in range(4):
        batch = yolo_training.batch_of(alone, step, 0, 128)
        centre, sides = batch["bboxes"][:, None, :2], batch["bboxes"][:, None, 2:]
        inside = ((batch["keypoints"][..., :2] - centre).abs() <= 0.6 * sides).all(-1)
        assert inside[batch["keypoints"][..., 2] > 0].float().mean() > 0.98


def test_a_mirrored_photo_has_left_and_right_exchanged_once() -> None:
    order = np.array(yolo_training.MIRRORED)
    assert (order[order] == np.arange(17)).all()
    labels = np.array([[9, 10, 12], [13, 14, 15]], np.uint8)
    assert segformer_training.mirrored(labels).tolist() == [[13, 9, 10], [14, 15, 12]]


def test_a_segmenter_is_trained_by_what_the_library_computes(photos: list[Photo]) -> None:
    torch.manual_seed(0)
    model = sam_training.Asked().eval()
    batch = sam_training.batch_of(photos[:4], 0, 0, int(sam_training.ARCHITECTURE["image_px"]))
    library = build_sam(sam_training.ARCHITECTURE)
    library.load_state_dict(model.sam.state_dict())
    with torch.inference_mode():
        masks, ious, _ = model(batch["images"], batch["boxes"])
        for crop in range(4):
            mine = slice(crop, crop + 1)
            sparse, dense = library.prompt_encoder(points=None, boxes=batch["boxes"][mine], masks=None)
            expected, expected_ious = library.mask_decoder(
                image_embeddings=library.image_encoder(batch["images"][mine]),
                image_pe=library.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            torch.testing.assert_close(masks[mine], expected, atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(ious[mine], expected_ious[:, 0], atol=1e-4, rtol=1e-3)


def test_a_segmenter_is_trained_on_the_crops_that_the_backend_cuts(photos: list[Photo]) -> None:
    batch = sam_training.batch_of(photos, 3, 0, 256)
    for box, mask in zip(batch["boxes"], batch["masks"], strict=True):
        x0, y0, x1, y1 = box.tolist()
        assert 0 <= x0 < x1 <= 256
        assert 0 <= y0 < y1 <= 256
        assert max(x1 - x0, y1 - y0) > 256 / 1.25  # a box fills its crop but for the margin
        assert mask.mean() > 0.1


def test_the_traits_that_an_embedder_must_tell_are_those_of_the_face_that_was_drawn() -> None:
    people = people_of_faces(UNSEEN, 16)
    traits = np.stack([traits_of(who) for who in people])
    assert np.abs(traits).max() <= 1.2
    apart = np.linalg.norm(traits[:, None] - traits[None], axis=2)
    assert (apart[~np.eye(len(people), dtype=bool)] > 0.5).all()
    # The last of a file resemble its first.
    assert (apart[-4:, :4].argmin(axis=1) == np.arange(4)).all()


def test_an_exported_embedder_computes_what_the_trained_one_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Embedder()
    faces = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    values = (torch.from_numpy(faces.transpose(0, 3, 1, 2)).float() - 127.5) / 127.5
    model.train()
    model(torch.cat([values, -values]))  # batch norms that are not at their start
    model.eval()
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model(values)).numpy()
    export(model, tmp_path / "face.onnx")
    settings = OnnxEmbedderSettings(model="face", flip=False)
    found = OnnxFaceEmbedder(settings, card(tmp_path / "face.onnx", "face")).embed(faces)
    np.testing.assert_allclose(found, expected, atol=2e-3)
