"""Settings of the phases `identities`, `captions` and `shards`."""

from typing import Literal

from pydantic import Field

from curation.settings.base import Resources, Settings, backend_choice, resource
from curation.settings.vlm import TransformersCaptionerSettings, VllmCaptionerSettings


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
