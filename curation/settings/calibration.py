"""Settings that turn a judge's score into a probability, and say of which judge they are."""

from curation.settings.base import Settings, threshold


class CalibrationSettings(Settings):
    """Log-odds of "same" = slope · x + offset, as `persona judge calibrate` fitted them (Platt).

    x is log p(yes) − log p(no) of a vision-language model, and the similarity of the worst region of the
    judge `appearance`.
    """

    of: str = threshold(
        pattern=r"^[0-9a-f]{16}$", description="model, prompt and layout it was fitted on; refused for others"
    )
    slope: float = threshold(gt=0)
    offset: float = threshold()
