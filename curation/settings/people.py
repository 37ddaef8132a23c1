"""Settings of the phase `people`: who is on a photo, how much of them, which regions and face."""

from typing import Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator

from curation.settings.base import (
    Resources,
    Settings,
    backend_choice,
    resource,
    threshold,
)


class TransformersClassifierSettings(Settings):
    """An image classification model of transformers, as a folder with safetensors."""

    backend: Literal["transformers"] = "transformers"
    model: str = Field(description="name of a model card")
    labels: list[str] = Field(
        min_length=1, description="labels of the model that count; their probabilities are added"
    )
    batch_size: int = Field(8, ge=1, le=1024, description="pictures in one call")


class NsfwSettings(Settings):
    """Rejects photos by a score of the whole photo."""

    by: backend_choice("classifier", TransformersClassifierSettings)  # type: ignore[valid-type]
    max_score: float = threshold(0.3, ge=0, le=1, description="probability of the labels that count")


class AgeSettings(Settings):
    """Rejects every person of an identity of which a photo votes that they are a minor."""

    by: backend_choice("classifier", TransformersClassifierSettings)  # type: ignore[valid-type]
    margin: float = Field(0.4, ge=0, le=2, description="share of the face's sides by which its box is grown")
    vote_from: float = threshold(
        0.3, ge=0, le=1, description="least probability of the labels that count for a vote"
    )


class UltralyticsSettings(Settings):
    """Any weights that `ultralytics.YOLO()` loads; boxes, or boxes with 17 COCO keypoints."""

    backend: Literal["ultralytics"] = "ultralytics"
    model: str = Field(description="name of a model card")
    image_px: int = Field(640, ge=64, le=4096, multiple_of=32, description="longer side for the model")
    nms_iou: float = Field(0.7, gt=0, le=1, description="overlap from which two boxes are one person")
    batch_size: int = Field(
        16, ge=1, le=1024, description="photos in one call; exported models (not .pt) are asked one by one"
    )


class TransformersDetectSettings(Settings):
    """D-FINE, RT-DETR or another detector of transformers, as a folder with safetensors; boxes only."""

    backend: Literal["transformers_detect"] = "transformers_detect"
    model: str = Field(description="name of a model card")
    label: str = Field("person", description="label of the model that is a person, in any case")
    batch_size: int = Field(8, ge=1, le=1024, description="photos in one call")


class VitposeSettings(Settings):
    """ViTPose of transformers, as a folder with safetensors; asked about each person's box by itself."""

    backend: Literal["vitpose"] = "vitpose"
    model: str = Field(description="name of a model card")
    batch_size: int = Field(16, ge=1, le=1024, description="people in one call")


class WeightsSettings(Settings):
    """One of several weights that a backend needs."""

    model: str = Field(description="name of a model card")


class BlazePoseSettings(Settings):
    """MediaPipe's small networks for one body at a time, run by LiteRT: boxes, joints and masks, no GPU."""

    backend: Literal["blazepose"] = "blazepose"
    finder: WeightsSettings = Field(description="of the network that finds heads, pose_detection.tflite")
    landmarks: WeightsSettings = Field(description="of pose_landmark_full.tflite, or its lite or heavy kin")


class DetectSettings(Settings):
    """People are stored from `floor` on and kept from `min_score` on."""

    by: backend_choice(  # type: ignore[valid-type]
        "detector", UltralyticsSettings, TransformersDetectSettings, BlazePoseSettings
    )
    joints: backend_choice("joints", VitposeSettings, BlazePoseSettings) | None = Field(  # type: ignore[valid-type]
        None,
        description="finds keypoints of everyone stored where the detector gives none; unset: nobody has any",
    )
    floor: float = Field(0.25, gt=0, le=1, description="detections below are not even stored")
    min_score: float = threshold(
        0.25, gt=0, le=1, description="people whose detection is below are rejected; not below floor"
    )
    max_people: int = threshold(12, ge=1, description="photos with more people from min_score on are crowds")


class LoneFacesSettings(Settings):
    """A person for each face that lies in nobody's box, for pipelines that let portraits in."""

    min_score: float = threshold(0.8, ge=0, le=1, description="of the face; people below are rejected")


class FullBodySettings(Settings):
    """How much of a person must be on the photo. A preset fills what is not set.

    `any` lets portraits in; `paper` composes published filters (see docs/pipelines.md): one
    dominant person, detection > 0.9, box > 300 px, 4 to 90 % of the photo, head, shoulders, hips
    and a knee or ankle visible, at most one border cut.
    """

    preset: Literal["any", "paper"] = threshold(
        "any", description="fills every key that is not set; its name alone is a value of full_body too"
    )
    min_score: float | None = threshold(None, ge=0, le=1, description="detection score")
    min_box_px: int | None = threshold(None, ge=1, description="longer side of the box")
    min_share: float | None = threshold(None, ge=0, le=1, description="box area / photo area")
    max_share: float | None = threshold(None, ge=0, le=1, description="box area / photo area at most")
    joints: bool | None = threshold(
        None,
        description="where there are keypoints: any of nose, eyes, ears; shoulders; hips; a knee or an ankle",
    )
    min_joint_score: float | None = threshold(None, ge=0, le=1, description="a joint is visible from")
    min_face_heights: float | None = threshold(
        None, ge=0, description="without keypoints: box height / face height; knees are at about 7"
    )
    max_cut_borders: int | None = threshold(
        None, ge=0, le=4, description="borders that the box touches at most, within 1 % of the side"
    )
    min_dominance: float | None = threshold(
        None, ge=0, description="box area / area of the largest other person still in; 0 is no demand"
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_by_name(cls, value: Any) -> Any:
        return {"preset": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """For editors: the name of a preset is a value too."""
        settings = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [{"enum": sorted(FULL_BODY_PRESETS)}, settings]}

    def resolved(self) -> "FullBodyRules":
        """The settings with every unset one filled from the preset."""
        given = {k: v for k, v in self.model_dump().items() if v is not None}
        return FullBodyRules(**{**FULL_BODY_PRESETS[self.preset], **given})


class FullBodyRules(Settings):
    """FullBodySettings of which every key is set."""

    preset: Literal["any", "paper"] = threshold()
    min_score: float = threshold()
    min_box_px: int = threshold()
    min_share: float = threshold()
    max_share: float = threshold()
    joints: bool = threshold()
    min_joint_score: float = threshold()
    min_face_heights: float = threshold()
    max_cut_borders: int = threshold()
    min_dominance: float = threshold()


FULL_BODY_PRESETS: dict[str, dict[str, Any]] = {
    "any": {
        "min_score": 0.0,
        "min_box_px": 64,
        "min_share": 0.0,
        "max_share": 1.0,
        "joints": False,
        "min_joint_score": 0.5,
        "min_face_heights": 0.0,
        "max_cut_borders": 4,
        "min_dominance": 0.0,
    },
    "paper": {
        "min_score": 0.9,
        "min_box_px": 300,
        "min_share": 0.04,
        "max_share": 0.9,
        "joints": True,
        "min_joint_score": 0.5,
        "min_face_heights": 6.5,
        "max_cut_borders": 1,
        "min_dominance": 1.5,
    },
}


class YunetSettings(Settings):
    """OpenCV's YuNet: box, five points, score."""

    backend: Literal["yunet"] = "yunet"
    model: str = Field(description="name of a model card")
    scales_px: list[int] = Field(
        [320, 640],
        min_length=1,
        description="longer sides searched; the network finds faces of 10 to 300 px at each",
    )
    floor: float = Field(0.5, gt=0, lt=1, description="faces below are not even stored")


class KeypointsFaceSettings(Settings):
    """Faces where the pose detector sees a nose and both eyes; no weights."""

    backend: Literal["keypoints"] = "keypoints"
    floor: float = Field(0.5, gt=0, lt=1, description="faces below are not even stored")
    min_eye_px: float = Field(
        4.0, gt=0, description="distance of the eyes; faces with nearer ones are not stored"
    )


class OnnxEmbedderSettings(Settings):
    """Any ArcFace-type ONNX model: a 112 px aligned face in, one vector out."""

    backend: Literal["onnx"] = "onnx"
    model: str = Field(description="name of a model card")
    mean: float = Field(127.5, description="input = (pixel − mean) / scale, pixels 0 to 255")
    scale: float = Field(127.5, gt=0, description="the divisor in it")
    colour: Literal["rgb", "bgr"] = Field("rgb", description="order of the channels of the input")
    flip: bool = Field(True, description="add the embedding of the mirrored face")
    batch_size: int = Field(32, ge=1, le=4096, description="faces in one call")


class SfaceSettings(Settings):
    """OpenCV's SFace: aligned faces of 112 px in, 128 numbers out."""

    backend: Literal["sface"] = "sface"
    model: str = Field(description="name of a model card")
    flip: bool = Field(False, description="add the embedding of the mirrored face; not how it is published")


class FaceSettings(Settings):
    """The face of each person, and when it is good enough to link photos by."""

    find: backend_choice("face_finder", YunetSettings, KeypointsFaceSettings)  # type: ignore[valid-type]
    embed: backend_choice("face_embedder", OnnxEmbedderSettings, SfaceSettings)  # type: ignore[valid-type]
    min_score: float = threshold(0.6, ge=0, le=1, description="of the face; people below are rejected")
    min_face_px: int = threshold(24, ge=1, description="shorter side of the face box")


class SegmentAnythingSettings(Settings):
    """Meta's segment-anything, prompted by boxes."""

    backend: Literal["segment_anything"] = "segment_anything"
    model: str = Field(description="name of a model card")
    architecture: Literal["vit_b", "vit_l", "vit_h"] | dict[str, Any] = Field(
        "vit_h",
        description="or {embed_dim, depth, num_heads, global_attn_indexes, image_px, out_chans}",
    )
    crop_margin: float | None = Field(
        None,
        ge=0,
        le=1,
        description="embed each person's box, grown by this share of its longer side, instead of the whole "
        "photo once: finer masks of small people, one embedding a person",
    )


class Sam2Settings(Settings):
    """SAM 2 or SAM 2.1 of transformers, as a folder with safetensors, prompted by boxes."""

    backend: Literal["sam2"] = "sam2"
    model: str = Field(description="name of a model card")
    crop_margin: float | None = Field(
        None, ge=0, le=1, description="as with segment_anything: embed each person's box by itself"
    )


class UltralyticsSamSettings(Settings):
    """SAM, SAM 2 or MobileSAM as `ultralytics.SAM()` loads them."""

    backend: Literal["ultralytics_sam"] = "ultralytics_sam"
    model: str = Field(description="name of a model card")


class GrabcutSettings(Settings):
    """OpenCV's GrabCut, started from the box: no weights, rough borders."""

    backend: Literal["grabcut"] = "grabcut"
    side_px: int = Field(160, ge=32, le=2048, description="longer side at which it works")
    iterations: int = Field(2, ge=1, le=20, description="rounds")


class SegmentSettings(Settings):
    """The mask of each person."""

    by: backend_choice(  # type: ignore[valid-type]
        "segmenter",
        SegmentAnythingSettings,
        Sam2Settings,
        UltralyticsSamSettings,
        BlazePoseSettings,
        GrabcutSettings,
    )
    min_mask_share: float = threshold(0.1, ge=0, le=1, description="mask area / box area")


class SegformerSettings(Settings):
    """A SegFormer of transformers with the 18 ATR labels."""

    backend: Literal["segformer"] = "segformer"
    model: str = Field(description="name of a model card")
    batch_size: int = Field(8, ge=1, le=256, description="people in one call")


class GeometricSettings(Settings):
    """Regions by body proportions: from keypoints where there are any, else face and box."""

    backend: Literal["geometric"] = "geometric"
    min_joint_score: float = Field(0.5, ge=0, le=1, description="a joint counts from here on")


class RegionsSettings(Settings):
    """18 ATR labels and the five regions full_body, head, torso, legs, shoes."""

    by: backend_choice("parser", SegformerSettings, GeometricSettings)  # type: ignore[valid-type]
    min_region_share: float = threshold(
        0.005, ge=0, le=1, description="a region is visible from this share of the person's mask on"
    )
    min_regions: int = threshold(0, ge=0, le=5, description="visible ones of the five")


class AppearanceSettings(Settings):
    """Colour and texture of each clothed region under the mask; for judging and ordering pairs."""

    side_px: int = Field(256, ge=32, le=1024, description="longer side of the person's crop")
    min_region_px: int = Field(64, ge=1, description="fewer pixels at that size: region unknown")


class PeopleSettings(Settings):
    """The phase `people`.

    `measure: kept` asks a model only about people that no earlier stage ruled out; `all` asks about
    everyone whom the detector stored, so that no threshold of this phase, moved either way, ever
    needs a model again.
    """

    measure: Literal["kept", "all"] = Field(
        "kept",
        description="kept: models are asked about people whom no earlier stage ruled out; all: everyone",
    )
    nsfw: NsfwSettings | None = Field(
        None, description="scores each photo before people are looked for; unset: no photo is scored"
    )
    age: AgeSettings | None = Field(
        None, description="rejects identities with a vote for a minor; unset: no age is estimated"
    )
    slice_rows: int = resource(16, ge=1, le=1024, description="photos decoded at a time per worker")
    detect: DetectSettings
    lone_faces: LoneFacesSettings | None = Field(
        None, description="a face outside of every box makes a person too; unset: only boxes make people"
    )
    face: FaceSettings
    full_body: FullBodySettings = FullBodySettings()
    segment: SegmentSettings
    regions: RegionsSettings
    appearance: AppearanceSettings = AppearanceSettings()
    resources: Resources = resource(Resources())

    @model_validator(mode="after")
    def _lone_faces_are_seen(self) -> "PeopleSettings":
        if self.lone_faces is not None and self.face.find.backend == "keypoints":
            raise ValueError(
                "lone_faces: face.find.backend 'keypoints' sees faces of detected people only; take yunet"
            )
        return self
