"""Settings of the phases `identities`, `outfits`, `captions` and `shards`."""

from typing import Literal

from pydantic import Field

from curation.settings.base import Resources, Settings, backend_choice, resource, threshold
from curation.settings.vlm import (
    TransformersCaptionerSettings,
    TransformersJudgeSettings,
    VllmCaptionerSettings,
    VllmJudgeSettings,
)


class IdentitiesSettings(Settings):
    """Who is the same person. Sources of the rules: docs/pipelines.md."""

    neighbours: int = threshold(32, ge=1, le=1024, description="k of the neighbour graph")
    link_cosine: float = threshold(0.35, ge=-1, le=1, description="an edge needs at least this")
    min_shared: int = threshold(
        3, ge=1, description="shared neighbours that stand in for being mutual in the top k"
    )
    merge_cosine: float = threshold(
        0.3, ge=-1, le=1, description="average linkage: two clusters join from this mean cosine on"
    )
    prototype_cosine: float = threshold(
        0.3, ge=-1, le=1, description="a member's least cosine to the mean of the others"
    )
    hints: Literal["ignore", "separate"] = threshold(
        "ignore", description="separate: two different subject_hints never share an identity"
    )
    resources: Resources = resource(Resources())


class PaperStrategy(Settings):
    """The paper's protocol: two random photos, "no" drops the person, else a sliding window."""

    backend: Literal["paper"] = "paper"
    window: int = threshold(
        1, ge=1, le=64, description="kept photos before it that each photo is asked against"
    )
    rule: Literal["any", "majority", "all"] = threshold("all", description="of the window's answers")


class AppearanceJudgeSettings(Settings):
    """Compares stored colour and texture region by region; no model is asked."""

    backend: Literal["appearance"] = "appearance"
    cut: float = threshold(0.85, ge=0, le=1, description="least similarity of the worst region")
    min_regions: int = threshold(1, ge=1, le=4, description="regions both photos must show")


class OutfitsSettings(Settings):
    """Which photos of a person show the same full-body appearance."""

    strategy: PaperStrategy = PaperStrategy()
    judge: backend_choice(AppearanceJudgeSettings, VllmJudgeSettings, TransformersJudgeSettings) = (  # type: ignore[valid-type]
        AppearanceJudgeSettings()
    )
    min_photos: int = threshold(2, ge=2, description="a group with fewer photos is rejected")
    resources: Resources = resource(Resources())


class PlainCaptionerSettings(Settings):
    """States framing, visible regions and, from keypoints, the pose; needs no weights."""

    backend: Literal["plain"] = "plain"


class CaptionsSettings(Settings):
    """A sentence per photo: never identity, never clothes."""

    by: backend_choice(  # type: ignore[valid-type]
        PlainCaptionerSettings, VllmCaptionerSettings, TransformersCaptionerSettings
    ) = PlainCaptionerSettings()
    resources: Resources = resource(Resources())


class ShardsSettings(Settings):
    """How groups are packed."""

    max_groups: int = Field(1000, ge=1, description="groups in a shard at most")
    max_shard_mib: float = Field(512, gt=0, description="bytes of a shard at most, one group aside")
    max_side_px: int | None = Field(
        None, ge=64, description="photos with a longer side are made smaller once; without it bytes are kept"
    )
    jpeg_quality: int = Field(95, ge=50, le=100, description="of photos that are made smaller")
    resources: Resources = resource(Resources())
