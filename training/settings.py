"""What all settings of training share: frozen, strict, readable from YAML."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """An unknown key or a value of another type is an error, never a guess."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


# YAML and JSON have lists only.
Sizes = Annotated[tuple[int, ...], Field(strict=False)]
Numbers = Annotated[tuple[float, ...], Field(strict=False)]
