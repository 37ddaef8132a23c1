"""Settings of what is done with groups: which photos stay, captions, shards."""

from typing import Literal

from pydantic import Field

from curation.settings.base import Resources, Settings, backend_choice, resource, threshold
from curation.settings.vlm import TransformersCaptionerSettings, VllmCaptionerSettings


class PlainCaptionerSettings(Settings):
    """States framing, visible regions and, from keypoints, the pose; needs no weights."""

    backend: Literal["plain"] = "plain"


class CaptionsSettings(Settings):
    """A sentence per photo: never identity, never clothes."""

    by: backend_choice(  # type: ignore[valid-type]
        "captioner", PlainCaptionerSettings, VllmCaptionerSettings, TransformersCaptionerSettings
    ) = PlainCaptionerSettings()
    resources: Resources = resource(Resources())


class SelectionSettings(Settings):
    """Which photos of a group stay: no near copies, and of too many those that differ most."""

    near_copies: bool = threshold(True, description="whether near copies within a group are left out")
    near_copy_bits: int = threshold(
        12, ge=0, le=32, description="near copies: perceptual hashes differ in so many bits at most …"
    )
    near_copy_pose: float = threshold(
        0.04, ge=0, le=2, description="… and joints, where both photos have them, by at most this"
    )
    near_copy_colours: float = threshold(
        0.996, ge=0, le=1, description="joints so alike and colours of the clothes from here on: one shot"
    )
    max_group_photos: int = threshold(200, ge=2, le=1000, description="photos of a group at most")
    max_person_photos: int | None = threshold(
        None, ge=2, description="photos of a person at most, over all outfits; None: as many as there are"
    )


class ShardsSettings(Settings):
    """How groups are packed."""

    max_groups: int = Field(1000, ge=1, description="groups in a shard at most")
    max_shard_mib: float = Field(512, gt=0, description="bytes of a shard at most, one group aside")
    max_side_px: int | None = Field(
        None, ge=64, description="photos with a longer side are made smaller once; without it bytes are kept"
    )
    jpeg_quality: int = Field(95, ge=50, le=100, description="of photos that are encoded anew")
    metadata: Literal["strip", "keep"] = Field(
        "strip",
        description="what lies beside the pixels (EXIF, XMP, IPTC, comments, second pictures …): taken off, "
        "the pixels as they are, or kept byte for byte",
    )
    colours: Literal["profile", "srgb"] = Field(
        "profile",
        description="keep ICC profiles, or encode photos whose profile changes colours anew, as sRGB JPEGs",
    )
    blur_others: bool = Field(
        False,
        description="blur heads of people who are not the group's; such photos are encoded anew",
    )
    resources: Resources = resource(Resources())
