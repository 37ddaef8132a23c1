"""Settings that turn a judge's answers into probabilities, and say of which judge they are."""

from curation.settings.base import Settings, threshold


class CalibrationSettings(Settings):
    """Log-odds of "same" = slope · x + likeness · c + offset, as `persona judge calibrate` fitted them.

    Where x is not above 0, they are 0 at most (`curation/outfits/evidence.py`).

    x is the mean of log s − log(1 − s) over the judge's scores s of the pair; c = −log(1.001 − a), 0 to 6.9,
    with a the similarity of the stored colours (`curation/outfits/appearance_judge.py`). Natural logarithms.
    """

    of: str = threshold(
        pattern=r"^[0-9a-f]{16}$", description="model, prompt and layout it was fitted on; refused for others"
    )
    slope: float = threshold(gt=0)
    likeness: float = threshold(0.0, ge=0)
    offset: float = threshold()
