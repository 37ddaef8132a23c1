"""Leaving conditions out at random, so that guidance has something to guide away from."""

from pydantic import Field, model_validator
from torch import Tensor

from training.randomness import Purpose, uniform
from training.settings import Settings


class DropoutSettings(Settings):
    """Shares of samples. Identity, text and both exclude one another; regions are left out besides.

    The paper does not state its rates: these are ours.
    """

    identity: float = Field(0.05, ge=0, le=1)
    text: float = Field(0.05, ge=0, le=1)
    both: float = Field(0.05, ge=0, le=1)
    region: float = Field(0.15, ge=0, le=1, description="of each region")

    @model_validator(mode="after")
    def _sum_fits(self) -> "DropoutSettings":
        if self.identity + self.text + self.both > 1:
            raise ValueError("identity, text and both are more than 1 together")
        return self


NO_DROPOUT = DropoutSettings(identity=0, text=0, both=0, region=0)


def keep_conditions(settings: DropoutSettings, streams: Tensor) -> tuple[Tensor, Tensor]:
    """int64 [B] streams → whether identity and whether text is kept, bool [B] each."""
    drawn = uniform(streams, Purpose.DROP_CONDITION)[:, 0]
    text_from = settings.both + settings.identity
    no_identity = drawn < text_from
    no_text = (drawn < settings.both) | ((drawn >= text_from) & (drawn < text_from + settings.text))
    return ~no_identity, ~no_text


def keep_regions(settings: DropoutSettings, streams: Tensor, regions: int) -> Tensor:
    """int64 [B] streams → whether each region is kept, bool [B, regions]."""
    return uniform(streams, Purpose.DROP_REGION, regions) >= settings.region
