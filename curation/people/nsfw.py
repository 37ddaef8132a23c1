"""Stage `nsfw`: what a classifier says of the whole photo, before anybody on it is looked for."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.declared import Threshold
from curation.people.photo_stage import PhotoStage
from curation.settings.people import NsfwSettings


class Nsfw(PhotoStage):
    """Fills `nsfw_score` (0 to 1); a photo that cannot be scored is failed, never let in."""

    name: ClassVar[str] = "nsfw"
    settings_type: ClassVar[Any] = NsfwSettings
    fills: ClassVar[pa.Schema] = pa.schema([("nsfw_score", pa.float32()), ("nsfw_error", pa.string())])
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("nsfw", "people.nsfw.max_score", "at most", "score of the photo", column="nsfw_score"),
    )

    def measure_photo(self, photo: np.ndarray) -> dict[str, Any]:
        """The score of the photo."""
        return {"nsfw_score": float(self.backends["by"].score([photo])[0])}
