"""Settings of the phase `outfits`: which strategy asks, which judge answers, and how answers are weighed."""

from typing import Any, Literal

from pydantic import Field, model_validator

from curation.settings.base import Resources, Settings, backend_choice, resource, threshold
from curation.settings.vlm import TransformersJudgeSettings, VllmJudgeSettings


class CalibrationSettings(Settings):
    """Log-odds of "same" = slope · x + likeness · c + offset, as `persona judge calibrate` fitted them.

    Where x is not above 0, they are 0 at most (`curation/outfits/judge.py`).

    x is the mean of log s − log(1 − s) over the judge's scores s of the pair; c = −log(1.001 − a), 0 to 6.9,
    with a the similarity of the stored colours (`curation/outfits/appearance_judge.py`). Natural logarithms.
    """

    of: str = threshold(
        pattern=r"^[0-9a-f]{16}$", description="model, prompt and layout it was fitted on; refused for others"
    )
    slope: float = threshold(gt=0, description="of the judge's log-odds")
    likeness: float = threshold(0.0, ge=0, description="weight of the likeness of stored colours")
    offset: float = threshold(description="log-odds of the same outfit where the judge says nothing")


class PaperStrategy(Settings):
    """The paper's protocol: two random photos, "no" drops the person, else a sliding window."""

    backend: Literal["paper"] = "paper"
    window: int = threshold(
        1, ge=1, le=64, description="kept photos before it that each photo is asked against"
    )
    rule: Literal["any", "majority", "all"] = threshold("all", description="of the window's answers")


class ClustersStrategy(Settings):
    """Every outfit of a person is a group of its own. Keys that are not set come from the preset.

    Probabilities are the calibration's; without one they are the judge's own, which are often too sure.
    """

    backend: Literal["clusters"] = "clusters"
    preset: Literal["strict", "recall"] = threshold(
        "strict", description="strict loses pairs, recall mixes some"
    )
    calibration: CalibrationSettings | None = threshold(
        None, description="of the judge's answers, as `persona judge calibrate` writes it; None: as they are"
    )
    accept: float | None = threshold(
        None, gt=0, lt=1, description="least probability of the same clothes that joins a photo to an outfit"
    )
    sure_same: float | None = threshold(
        None, gt=0, lt=1, description="a first answer from here on is not asked again"
    )
    sure_other: float | None = threshold(
        None, gt=0, lt=1, description="a first answer up to here is not asked again"
    )
    low_cut: float | None = threshold(
        None, ge=0, le=1, description="outfits less similar than this in stored colours are not asked about"
    )
    tries: int | None = threshold(
        None, ge=1, le=64, description="outfits that a photo is compared with at most"
    )
    second_member: bool | None = threshold(
        None, description="a pair that both orders leave open is asked of another photo of the outfit"
    )
    check_triangles: bool | None = threshold(
        None, description="the least similar members of an outfit are compared, and may split it"
    )
    merge: bool | None = threshold(
        None, description="outfits that were never compared are at the end; what joins so is marked"
    )

    @model_validator(mode="after")
    def _band_is_in_order(self) -> "ClustersStrategy":
        own = {**CLUSTERS_PRESETS[self.preset], **{k: v for k, v in self if v is not None}}
        if not own["sure_other"] <= own["accept"] <= own["sure_same"]:
            raise ValueError(
                f"sure_other {own['sure_other']}, accept {own['accept']}, sure_same {own['sure_same']}: "
                "must not be in another order"
            )
        return self

    def resolved(self) -> "ClustersRules":
        """The settings with every unset one filled from the preset."""
        given = {
            name: value for name, value in self if value is not None and name in ClustersRules.model_fields
        }
        return ClustersRules(**{**CLUSTERS_PRESETS[self.preset], **given})


class ClustersRules(Settings):
    """ClustersStrategy of which every key of a preset is set."""

    calibration: CalibrationSettings | None = threshold(None)
    accept: float = threshold()
    sure_same: float = threshold()
    sure_other: float = threshold()
    low_cut: float = threshold()
    tries: int = threshold()
    second_member: bool = threshold()
    check_triangles: bool = threshold()
    merge: bool = threshold()


CLUSTERS_PRESETS: dict[str, dict[str, Any]] = {
    "strict": {
        "accept": 0.9,
        "sure_same": 0.95,
        "sure_other": 0.3,
        "low_cut": 0.3,
        "tries": 3,
        "second_member": True,
        "check_triangles": True,
        "merge": False,
    },
    "recall": {
        "accept": 0.6,
        "sure_same": 0.9,
        "sure_other": 0.2,
        "low_cut": 0.3,
        "tries": 4,
        "second_member": True,
        "check_triangles": False,
        "merge": True,
    },
}


class AppearanceJudgeSettings(Settings):
    """Compares stored colour and texture region by region; no model is asked."""

    backend: Literal["appearance"] = "appearance"
    cut: float = threshold(0.85, ge=0, le=1, description="least similarity of the worst region")
    min_regions: int = threshold(1, ge=1, le=4, description="regions both photos must show")


class OutfitsSettings(Settings):
    """Which photos of a person show the same full-body appearance."""

    strategy: PaperStrategy | ClustersStrategy = Field(PaperStrategy(), discriminator="backend")
    judge: backend_choice("judge", AppearanceJudgeSettings, VllmJudgeSettings, TransformersJudgeSettings) = (  # type: ignore[valid-type]
        AppearanceJudgeSettings()
    )
    min_photos: int = threshold(2, ge=2, description="a group with fewer photos is rejected")
    resources: Resources = resource(Resources())
