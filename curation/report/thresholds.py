"""Which key of pipelines.yaml each recorded number is compared with, and what the number is."""

from dataclasses import dataclass
from typing import Any

from curation.settings import PipelineSettings

PAIR_STAGE, PAIR_CHECK = "outfits", "same"
"""The judge's answers about pairs: no check of a row, so they get a name here."""


@dataclass(frozen=True)
class Threshold:
    """key: the setting's path; says: the number in words; per: what the number is 1 of, to scale it."""

    key: str
    says: str
    per: float = 1.0


THRESHOLDS: dict[tuple[str, str], Threshold] = {
    ("screen", "too_many_bytes"): Threshold("photos.screen.max_file_mib", "size of the file, MiB", 2**20),
    ("screen", "too_many_pixels"): Threshold("photos.screen.max_pixels", "width × height, px"),
    ("screen", "too_small"): Threshold("photos.screen.min_side_px", "shorter side of the photo, px"),
    ("copies", "near_copy"): Threshold("photos.duplicates.max_bits", "bits between a copy and its original"),
    ("detect", "no_person"): Threshold("people.detect.min_score", "best detection of the photo"),
    ("detect", "crowd"): Threshold("people.detect.max_people", "people on the photo"),
    ("detected", "low_score"): Threshold("people.detect.min_score", "detection of the person"),
    ("detected", "face_score"): Threshold(
        "people.lone_faces.min_score", "certainty of a face that lies in nobody's box"
    ),
    ("detected", "crowd"): Threshold("people.detect.max_people", "people on the photo, per person"),
    ("face", "face_score"): Threshold("people.face.min_score", "certainty of the face"),
    ("face", "face_too_small"): Threshold("people.face.min_face_px", "shorter side of the face, px"),
    ("full_body", "cropped"): Threshold(
        "people.full_body.min_face_heights", "parts of the body seen (of 4), or heights of the face"
    ),
    ("full_body", "cropped_by_borders"): Threshold(
        "people.full_body.max_cut_borders", "borders of the photo that the box touches"
    ),
    ("full_body", "low_score"): Threshold("people.full_body.min_score", "detection of the person"),
    ("full_body", "too_small"): Threshold("people.full_body.min_box_px", "longer side of the box, px"),
    ("full_body", "small_share"): Threshold("people.full_body.min_share", "box as a share of the photo"),
    ("full_body", "large_share"): Threshold("people.full_body.max_share", "box as a share of the photo"),
    ("full_body", "not_dominant"): Threshold(
        "people.full_body.min_dominance", "box / box of the largest other person"
    ),
    ("segment", "small_mask"): Threshold("people.segment.min_mask_share", "mask as a share of the box"),
    ("regions", "few_regions"): Threshold("people.regions.min_regions", "regions that are visible, of 5"),
    ("identity", "far_from_prototype"): Threshold(
        "identities.prototype_cosine", "cosine to the mean of the others of the person"
    ),
    ("identity", "between_identities"): Threshold(
        "identities.attach_margin", "how much nearer the best identity is than the second, cosine"
    ),
    ("outfits", "too_few_photos"): Threshold("outfits.min_photos", "photos of the person, or of its outfit"),
    ("select", "near_copy"): Threshold("selection.near_copy_bits", "bits between two photos of a group"),
    ("select", "same_shot"): Threshold("selection.near_copy_colours", "likeness of the clothes' colours"),
    ("select", "group_cap"): Threshold("selection.max_group_photos", "photos of the group"),
    ("select", "person_cap"): Threshold("selection.max_person_photos", "photos of the person"),
    ("select", "too_few_photos"): Threshold("outfits.min_photos", "photos of the group, copies aside"),
    ("pack", "too_few_photos"): Threshold("outfits.min_photos", "photos of the group"),
    (PAIR_STAGE, PAIR_CHECK): Threshold("outfits.judge.cut", "the judge's p(same outfit)"),
}


def setting_of(pipeline: PipelineSettings, key: str) -> Any:
    """The value of a key path, presets of full_body filled in; None where there is no such key."""
    value: Any = pipeline
    for name in key.split("."):
        value = getattr(value, name, None)
        if name == "full_body" and value is not None:
            value = value.resolved()
    return value
