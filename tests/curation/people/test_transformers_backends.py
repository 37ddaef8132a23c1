"""People, joints and masks by transformers of random weights, beside the plain calls of the library."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.errors import ConfigError
from curation.people.protocols import Detections
from curation.people.segment_sam import Sam2
from curation.people.transformers_backends import TransformersDetector, Vitpose
from curation.settings.people import Sam2Settings, TransformersDetectSettings, VitposeSettings
from tests.drawn_cards import card
from tests.drawn_pipeline import persona, photos_with_people, settings
from tests.real_weights import model_at

# As published configurations spell them.
COCO = [
    "Nose",
    *(f"{side}_{part}" for part in ("Eye", "Ear", "Shoulder", "Elbow", "Wrist") for side in "LR"),
    *(f"{side}_{part}" for part in ("Hip", "Knee", "Ankle") for side in "LR"),
]
SIZES = [(77, 131), (200, 90), (1, 1), (3, 50), (120, 160)]  # height, width


def blocks(height: int, width: int, seed: int) -> np.ndarray:
    """Coloured blocks of 10 px; read-only as stages hand photos on."""
    few = np.random.default_rng(seed).integers(0, 256, (-(-height // 10), -(-width // 10), 3), dtype=np.uint8)
    photo = np.ascontiguousarray(few.repeat(10, axis=0).repeat(10, axis=1)[:height, :width])
    photo.flags.writeable = False
    return photo


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return [blocks(*size, seed) for seed, size in enumerate(SIZES)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


# Detectors


def write_detector(folder: Path, kind: str) -> Path:
    """A detector of three labels, the second of them Person, with a processor of 128 px."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "num_queries": 30, "d_model": 32, "encoder_hidden_dim": 32, "encoder_ffn_dim": 32,
        "encoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "decoder_ffn_dim": 32, "decoder_layers": 2, "num_denoising": 0, "feat_strides": [8, 16, 32],
        "encoder_in_channels": [16, 16, 16], "decoder_in_channels": [32, 32, 32],
        "encode_proj_layers": [2], "eval_size": None,
        "id2label": {0: "cat", 1: "Person", 2: "bus"}, "label2id": {"cat": 0, "Person": 1, "bus": 2},
    }  # fmt: skip
    stages = ["stage2", "stage3", "stage4"]
    if kind == "d_fine":
        backbone: Any = hf.HGNetV2Config(
            stem_channels=[3, 8, 8], stage_in_channels=[8, 16, 16, 16], stage_mid_channels=[8] * 4,
            stage_out_channels=[16] * 4, stage_num_blocks=[1] * 4, stage_numb_of_layers=[1] * 4,
            depths=[1] * 4, embedding_size=8, hidden_sizes=[16] * 4, out_features=stages,
        )  # fmt: skip
        config: Any = hf.DFineConfig(backbone_config=backbone, decoder_n_points=[2, 2, 2], **sizes)
        network: Any = hf.DFineForObjectDetection(config)
    else:
        backbone = hf.RTDetrResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1] * 4, layer_type="basic",
            out_features=stages,
        )  # fmt: skip
        name = "RTDetrV2" if kind == "rt_detr_v2" else "RTDetr"
        config = getattr(hf, f"{name}Config")(backbone_config=backbone, decoder_n_points=2, **sizes)
        network = getattr(hf, f"{name}ForObjectDetection")(config)
    for parameter, values in network.named_parameters():
        if "class_embed" in parameter and parameter.endswith("bias"):
            values.data[1] += 2.0  # people among the best thirty, and not alone there
    network.save_pretrained(folder)
    hf.RTDetrImageProcessor(size={"height": 128, "width": 128}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["d_fine", "rt_detr_v2", "rt_detr"])
def detector_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector(tmp_path_factory.mktemp("detector") / request.param, request.param)


def detector(folder: Path, batch_size: int = 8, label: str = "person") -> TransformersDetector:
    settings = TransformersDetectSettings(model="weights", batch_size=batch_size, label=label)
    return TransformersDetector(settings, {"weights": model_at(folder)})


def assert_same_people(one: Detections, other: Detections) -> None:
    """The same boxes and scores; boxes of equal scores, as on a photo of one colour, in any order."""
    assert len(one.scores) == len(other.scores)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    rows, others = (np.column_stack([found.boxes, 100 * found.scores]) for found in (one, other))
    apart = np.abs(rows[:, None] - others[None]).max(axis=-1)
    assert apart.size == 0 or max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 0.05


def test_people_are_the_boxes_that_the_library_itself_gives_the_label_in_px_of_the_photo(
    detector_folder: Path, photos: list[np.ndarray]
) -> None:
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    processor = AutoImageProcessor.from_pretrained(detector_folder)
    model = AutoModelForObjectDetection.from_pretrained(detector_folder).eval()
    found = detector(detector_folder).detect(photos)
    people = others = 0
    for photo, ours in zip(photos, found, strict=True):
        height, width = photo.shape[:2]
        inputs = processor(images=Image.fromarray(photo), return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        theirs = processor.post_process_object_detection(
            outputs, threshold=0.0, target_sizes=[(height, width)]
        )[0]
        boxes = theirs["boxes"][theirs["labels"] == 1].numpy().clip(0, (width, height, width, height))
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        scores = theirs["scores"][theirs["labels"] == 1].numpy()[inside]
        assert_same_people(ours, Detections(boxes[inside], scores))
        assert (np.diff(ours.scores) <= 0).all()
        assert ours.keypoints is None
        people += len(ours.scores)
        others += int((theirs["labels"] != 1).sum())
    assert min(people, others) > 5


def test_a_photo_is_answered_the_same_alone_and_in_any_batch(
    detector_folder: Path, photos: list[np.ndarray]
) -> None:
    together = detector(detector_folder).detect(photos)
    pairs = detector(detector_folder, batch_size=2).detect(photos[::-1])[::-1]
    for photo, one, other in zip(photos, together, pairs, strict=True):
        alone = detector(detector_folder).detect([photo])[0]
        for answer in (one, other):
            assert_same_people(answer, alone)


def test_no_photos_are_no_answers(detector_folder: Path) -> None:
    assert detector(detector_folder).detect([]) == []


def test_a_detector_without_the_label_is_refused_in_one_line_that_has_its_labels(
    detector_folder: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"knows no label 'human' \(it has, among 3: Person, bus, cat\)"):
        detector(detector_folder, label="human")


def test_answers_that_are_no_numbers_are_an_error_and_not_an_empty_street(
    detector_folder: Path, photos: list[np.ndarray], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(detector_folder, tmp_path / "spoilt"))
    weights = load_file(folder / "model.safetensors")
    for name, values in weights.items():
        if "class_embed" in name or "enc_score_head" in name:
            values.fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="not finite"):
        detector(folder).detect(photos[:1])


@pytest.mark.parametrize("spoil", ["weights", "config.json", "preprocessor_config.json"])
def test_a_folder_that_is_no_detector_is_refused_in_one_line(
    detector_folder: Path, tmp_path: Path, spoil: str
) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(detector_folder, tmp_path / "broken"))
    if spoil == "weights":
        weights = load_file(folder / "model.safetensors")
        left = {name: values for name, values in weights.items() if "encoder_input_proj" not in name}
        save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        (folder / spoil).write_text("<html>not found</html>")
    with pytest.raises(ConfigError, match="model weights: ") as error:
        detector(folder)
    assert "\n" not in str(error.value)


def test_a_detector_that_keeps_proportions_answers_photos_of_two_shapes_as_alone(
    tmp_path: Path, photos: list[np.ndarray]
) -> None:
    import transformers as hf

    config = hf.YolosConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=[64, 64],
        num_detection_tokens=8, id2label={0: "person", 1: "car"}, label2id={"person": 0, "car": 1},
    )  # fmt: skip
    network = hf.YolosForObjectDetection(config)
    network.class_labels_classifier.layers[-1].bias.data[0] = 2.0  # so that some queries are people
    network.save_pretrained(tmp_path)
    hf.YolosImageProcessor(size={"shortest_edge": 48, "longest_edge": 96}).save_pretrained(tmp_path)
    two = [photos[0], photos[1]]
    yolos = detector(tmp_path)
    for photo, among_others in zip(two, yolos.detect(two), strict=True):
        alone = yolos.detect([photo])[0]
        assert len(alone.scores) > 0
        assert_same_people(among_others, alone)


# Joints

BOXES = np.array(
    [[10, 20, 60, 110], [0, 0, 160, 120], [100, 30, 100, 90], [150.5, 0, 160, 119.25], [5, 5, 6, 6]],
    np.float32,
)  # the third has no inside


def write_vitpose(folder: Path, labels: list[str] | None = None, **backbone: Any) -> Path:
    import torch
    import transformers as hf

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    body = hf.VitPoseBackboneConfig(
        image_size=[64, 48], patch_size=[16, 16], part_features=8, out_indices=[2], **sizes, **backbone
    )
    names = COCO if labels is None else labels
    config = hf.VitPoseConfig(
        backbone_config=body,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
        use_simple_decoder=not backbone,
    )
    hf.VitPoseForPoseEstimation(config).save_pretrained(folder)
    hf.VitPoseImageProcessor(size={"height": 64, "width": 48}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[1, 6], ids=["vitpose", "vitpose++"])
def vitpose_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of the published sizes, and of ViTPose++ with an expert for each of six data sets."""
    experts = {"num_experts": request.param} if request.param > 1 else {}
    return write_vitpose(tmp_path_factory.mktemp("vitpose") / "tiny", **experts)


def vitpose(folder: Path, batch_size: int = 16) -> Vitpose:
    settings = VitposeSettings(model="weights", batch_size=batch_size)
    return Vitpose(settings, {"weights": model_at(folder)})


def test_joints_are_those_of_the_library_s_own_decoding_in_px_of_the_photo(
    vitpose_folder: Path, photos: list[np.ndarray]
) -> None:
    import torch
    from PIL import Image
    from transformers import VitPoseForPoseEstimation, VitPoseImageProcessor

    processor = VitPoseImageProcessor.from_pretrained(vitpose_folder)
    model = VitPoseForPoseEstimation.from_pretrained(vitpose_folder).eval()
    inside = BOXES[[0, 1, 3, 4]]
    prompts = [np.concatenate([inside[:, :2], inside[:, 2:] - inside[:, :2]], axis=1).tolist()]
    inputs = processor(images=Image.fromarray(photos[4]), boxes=prompts, return_tensors="pt")
    with torch.no_grad():
        experts = torch.zeros(len(inside), dtype=torch.int64)
        outputs = model(**inputs, dataset_index=experts)
    theirs = processor.post_process_pose_estimation(outputs, boxes=prompts)[0]
    ours = vitpose(vitpose_folder).joints(photos[4], BOXES)
    assert ours.shape == (5, 17, 3)
    assert ours.dtype == np.float32
    for person, expected in zip(ours[[0, 1, 3, 4]], theirs, strict=True):
        np.testing.assert_allclose(person[:, :2], expected["keypoints"], atol=0.05)
        np.testing.assert_allclose(person[:, 2], expected["scores"].clip(0, 1), atol=1e-5)
    assert np.ptp(ours[..., 2]) > 0.01


def test_joints_are_the_same_alone_and_in_any_batch(vitpose_folder: Path, photos: list[np.ndarray]) -> None:
    together = vitpose(vitpose_folder).joints(photos[4], BOXES)
    pairs = vitpose(vitpose_folder, batch_size=2).joints(photos[4], BOXES[::-1])[::-1]
    alone = np.concatenate([vitpose(vitpose_folder).joints(photos[4], box[None]) for box in BOXES])
    for other in (pairs, alone):
        same = (np.abs(other - together) < 0.05).all(axis=-1)
        # Heatmaps of random weights can have two peaks of one height to the last digit.
        assert same.mean() > 0.96


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 50)], ids=str)
def test_joints_of_a_photo_of_few_pixels_are_numbers(vitpose_folder: Path, size: tuple[int, int]) -> None:
    whole = np.array([[0, 0, size[1], size[0]]], np.float32)
    found = vitpose(vitpose_folder).joints(blocks(*size, seed=1), whole)
    assert found.shape == (1, 17, 3)
    assert np.isfinite(found).all()


def test_a_pose_model_of_other_points_is_refused_in_one_line(tmp_path: Path) -> None:
    animal = ["L_Eye", "R_Eye", "Nose", "Neck", *COCO[4:]]  # AP-10K has 17 points too
    with pytest.raises(ConfigError, match="not COCO's 17 in their order"):
        vitpose(write_vitpose(tmp_path / "animal", animal))
    with pytest.raises(ConfigError, match="its 16 points"):
        vitpose(write_vitpose(tmp_path / "mpii", COCO[:16]))


# Masks by SAM 2


def write_sam2(folder: Path, kind: str) -> Path:
    """SAM 2 of 128 px; published weights are those of the video model, of which pictures need a part."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    hiera = hf.Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[128, 128], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 1, 1, 1],
        window_size_per_stage=[8, 4, 4, 4], global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = hf.Sam2VisionConfig(
        backbone_config=hiera, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=32,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )  # fmt: skip
    prompts = {"hidden_size": 32, "image_size": 128, "mask_input_channels": 8}
    masks = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    if kind == "sam2":
        config: Any = hf.Sam2Config(
            vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=masks
        )
        hf.Sam2Model(config).save_pretrained(folder)
    else:
        config = hf.Sam2VideoConfig(
            vision_config=vision, image_size=128,
            prompt_encoder_config=hf.Sam2VideoPromptEncoderConfig(**prompts),
            mask_decoder_config=hf.Sam2VideoMaskDecoderConfig(**masks),
            memory_attention_hidden_size=32, memory_attention_feed_forward_hidden_size=32,
            memory_attention_num_layers=1, memory_encoder_hidden_size=32, memory_encoder_output_channels=16,
            memory_fuser_embed_dim=32, memory_fuser_intermediate_dim=32, mask_downsampler_embed_dim=32,
            memory_attention_rope_feat_sizes=[8, 8],
        )  # fmt: skip
        hf.Sam2VideoModel(config).save_pretrained(folder)
    sizes = {"height": 128, "width": 128}
    pictures = hf.Sam2ImageProcessor(size=sizes, mask_size={"height": 32, "width": 32})
    hf.Sam2Processor(pictures, target_size=128).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["sam2", "sam2_video"])
def sam2_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sam2(tmp_path_factory.mktemp("sam2") / request.param, request.param)


def sam2(folder: Path, **wanted: Any) -> Sam2:
    return Sam2(Sam2Settings(model="weights", **wanted), {"weights": model_at(folder)})


WHOLE = np.array([[0, 0, 160, 120], [10, 20, 60, 110], [150, 5, 160, 115], [5, 5, 6, 6]])


def test_masks_are_those_of_the_library_s_own_calls_cut_to_the_boxes(
    sam2_folder: Path, photos: list[np.ndarray]
) -> None:
    import torch
    from PIL import Image
    from transformers import Sam2Model, Sam2Processor

    processor = Sam2Processor.from_pretrained(sam2_folder)
    model = Sam2Model.from_pretrained(sam2_folder).eval()
    boxes = [WHOLE.astype(float).tolist()]
    inputs = processor(images=Image.fromarray(photos[4]), input_boxes=boxes, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs, multimask_output=False)
    theirs = processor.post_process_masks(outputs.pred_masks, inputs["original_sizes"])[0][:, 0].numpy()
    ours = sam2(sam2_folder).segment(photos[4], WHOLE)
    for mask, whole, (x0, y0, x1, y1) in zip(ours, theirs, WHOLE.tolist(), strict=True):
        assert mask.dtype == bool
        assert mask.shape == (y1 - y0, x1 - x0)
        assert (mask == whole[y0:y1, x0:x1]).mean() > 0.999
    assert 0 < ours[0].mean() < 1


def test_a_box_has_the_same_mask_alone_and_among_others(sam2_folder: Path, photos: list[np.ndarray]) -> None:
    segmenter = sam2(sam2_folder)
    for box, mask in zip(WHOLE, segmenter.segment(photos[4], WHOLE), strict=True):
        assert (segmenter.segment(photos[4], box[None])[0] == mask).mean() > 0.999


def test_with_a_crop_margin_sam2_sees_a_person_s_surroundings_only(
    sam2_folder: Path, photos: list[np.ndarray]
) -> None:
    segmenter = sam2(sam2_folder, crop_margin=0.1)
    masks = segmenter.segment(photos[4], WHOLE)
    elsewhere = photos[4].copy()
    elsewhere[:, 80:] = 0
    np.testing.assert_array_equal(segmenter.segment(elsewhere, WHOLE[1:2])[0], masks[1])


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 3)], ids=str)
def test_a_photo_of_few_pixels_has_a_mask(sam2_folder: Path, size: tuple[int, int]) -> None:
    box = np.array([[0, 0, size[1], size[0]]])
    assert sam2(sam2_folder).segment(blocks(*size, seed=2), box)[0].shape == size


# The three in a pipeline


def test_photos_of_every_colour_space_pass_through_detector_joints_and_masks_of_a_pipeline(
    tmp_path: Path,
) -> None:
    import yaml
    from PIL import Image

    photos = tmp_path / "photos"
    photos.mkdir()
    picture = Image.fromarray(blocks(150, 110, seed=7))
    for mode, ending in (
        ("RGB", "jpg"),
        ("L", "jpg"),
        ("CMYK", "jpg"),
        ("P", "png"),
        ("RGBA", "png"),
        ("1", "png"),
    ):
        picture.convert(mode).save(photos / f"{mode}.{ending}")
    picture.resize((1, 1)).save(photos / "pixel.png")
    kinds = {"person": "d_fine", "pose": "vitpose", "mask": "sam2_video"}
    write_detector(tmp_path / "d_fine", "d_fine")
    write_vitpose(tmp_path / "vitpose")
    write_sam2(tmp_path / "sam2_video", "sam2_video")
    pipeline = settings(photos)
    pipeline["models"] = {
        "path": str(tmp_path),
        "cards": {name: card(source="tests", file=file) for name, file in kinds.items()},
    }
    pipeline["photos"]["screen"] = {"min_side_px": 1}
    pipeline["photos"]["duplicates"] = {"near": False}
    people = pipeline["people"]
    people["measure"] = "all"
    people["full_body"] = {"min_box_px": 1}
    people["detect"] = {
        "by": {"backend": "transformers_detect", "model": "person", "batch_size": 3},
        "joints": {"backend": "vitpose", "model": "pose"},
        "floor": 0.05, "min_score": 0.05, "max_people": 100,
    }  # fmt: skip
    people["segment"] = {"by": {"backend": "sam2", "model": "mask"}}
    config = tmp_path / "pipelines.yaml"
    config.write_text(yaml.safe_dump({"pipelines": {"drawn": pipeline}}))
    done = persona(
        "curate", "drawn", "--config", config, "--out", tmp_path / "run", "--engine", "inline", "--quiet",
        "--allow-empty",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = photos_with_people(tmp_path / "run")
    assert len(found) == 7
    for name, photo in found.items():
        assert photo["detect_error"] is None, name
        assert len(photo["people"]) > 0 or name == "pixel.png"
        for person in photo["people"]:
            assert person["segment_error"] is None, name
            assert len(person["keypoints"]) == 51
            assert person["mask"] is not None


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_folders_that_store_halves_answer_as_those_of_float32(
    photos: list[np.ndarray], tmp_path: Path, stored: str
) -> None:
    import torch
    from transformers import AutoModelForObjectDetection, VitPoseForPoseEstimation

    box = np.array([[5, 5, 60, 70]], np.float32)
    write_detector(tmp_path / "detector", "d_fine")
    write_vitpose(tmp_path / "vitpose")
    people, joints = (
        detector(tmp_path / "detector").detect(photos[:1])[0],
        vitpose(tmp_path / "vitpose").joints(photos[1], box),
    )
    for name, network in (("detector", AutoModelForObjectDetection), ("vitpose", VitPoseForPoseEstimation)):
        halves = network.from_pretrained(tmp_path / name).to(getattr(torch, stored))
        halves.save_pretrained(tmp_path / name)
    found = detector(tmp_path / "detector").detect(photos[:1])[0]
    np.testing.assert_allclose(found.scores.max(), people.scores.max(), atol=0.05)
    found_joints = vitpose(tmp_path / "vitpose").joints(photos[1], box)
    np.testing.assert_allclose(found_joints[..., 2], joints[..., 2], atol=0.05)
