"""Copies: which photos the phase `photos` rejected as copies of another.

A family is a photo with all its copies. Of n photos of a family that passed the screen, n − 1 must be
rejected; which one stays is the run's choice, since the rule keeps the largest.
"""

from collections import Counter

from curation.evaluation.answers import Photo
from curation.evaluation.measure import Measure, share
from curation.evaluation.truth import Truth


def copies(photos: list[Photo], truth: Truth) -> list[Measure]:
    """duplicate_recall and duplicate_precision, over the photos that the truth knows."""
    screened = [photo for photo in photos if photo.screened and photo.photo_id in truth.photos]
    family = {photo.photo_id: truth.original(photo.photo_id) for photo in screened}
    wanted = {name: count - 1 for name, count in Counter(family[p.photo_id] for p in screened).items()}
    rejected = [photo for photo in screened if photo.copy_of is not None]
    right = Counter(family[p.photo_id] for p in rejected if family.get(p.copy_of or "") == family[p.photo_id])
    found = sum(min(count, wanted[name]) for name, count in right.items())
    return [
        share("duplicate_recall", "copies that were rejected", found, sum(wanted.values())),
        share(
            "duplicate_precision", "photos rejected as copies that are", sum(right.values()), len(rejected)
        ),
    ]
