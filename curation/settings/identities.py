"""Settings of the phase `identities`: how faces are searched, linked, parted, attached and remembered."""

from typing import Literal

from pydantic import Field

from curation.settings.base import Resources, Settings, path, resource, threshold


class SearchSettings(Settings):
    """How pairs of like faces are found."""

    exact_faces: int = Field(
        50_000, ge=1, description="up to so many faces all pairs are compared; above, those that share a cell"
    )
    cell_faces: int = Field(256, ge=16, description="a cell for every so many faces")
    probes: int = Field(4, ge=1, le=64, description="cells of a division that each face goes into")
    tables: int = Field(3, ge=1, le=32, description="divisions into cells, each with another start")


class SeedSettings(Settings):
    """Which faces may link. The others may only be attached to what these make."""

    min_face_px: int = threshold(0, ge=0, description="shorter side of the face box")
    min_score: float = threshold(0, ge=0, le=1, description="of the face detection")


class IdentitiesSettings(Settings):
    """Who is the same person. Sources of the rules: docs/identities.md."""

    search: SearchSettings = SearchSettings()
    seeds: SeedSettings = SeedSettings()
    neighbours: int = threshold(32, ge=1, le=1024, description="k of the neighbour graph")
    link_cosine: float = threshold(
        0.25, ge=-1, le=1, description="no pair of faces below is an edge, and no two clusters join below"
    )
    false_links: float | None = threshold(
        1.0,
        gt=0,
        description="wrong pairs that a right one may cost at the cosine that joins, measured on each "
        "collection and never below link_cosine. None: link_cosine and merge_cosine alone",
    )
    min_shared: int = threshold(
        3, ge=1, description="shared neighbours that stand in for being mutual in the top k"
    )
    merge_cosine: float = threshold(
        0.25, ge=-1, le=1, description="average linkage: two clusters join from this mean cosine on, at least"
    )
    split_gap: float = threshold(
        0.2, gt=0, le=2, description="two halves so much nearer in themselves than to each other are parted"
    )
    split_gap_headwear: float | None = threshold(
        None,
        gt=0,
        le=2,
        description="the same where one half wears something on the head, the other not; None: `split_gap`",
    )
    attach_margin: float = threshold(
        0.05, ge=0, le=2, description="a face is attached only if the second cluster is so much farther"
    )
    prototype_cosine: float = threshold(
        0.3, ge=-1, le=1, description="a member's least cosine to the mean of the others"
    )
    hints: Literal["ignore", "separate"] = threshold(
        "ignore", description="separate: two different subject_hints never share an identity"
    )
    index: str | None = path(
        None,
        moves="nothing",
        description="folder that remembers identities over collections; without one, none are",
    )
    index_days: int = resource(
        90, ge=1, description="embeddings in the index are deleted so many days after they came in"
    )
    resources: Resources = resource(Resources())
