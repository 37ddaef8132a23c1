"""Opens the index of a pipeline, and extends it by the faces of a new collection: growth, births, proposals.

Identities of two faces or more are frozen: they grow, and are never joined or parted. An identity of one
face has never been in a group, so it may still join by itself; that is written down as a join like any
other. Where the new faces tie two frozen identities together, the join is proposed and left to people.
"""

from collections import defaultdict
from typing import Any

import numpy as np

from curation.errors import ConfigError
from curation.fingerprint import fingerprint
from curation.identities.cluster import Start
from curation.identities.control import members_of
from curation.identities.exact_cosines import mean_cosine, sum_of
from curation.identities.faces import FaceRows
from curation.identities.grouping import Grouping
from curation.identities.index import IdentityIndex, is_index, new_index
from curation.identities.merges import Merges
from curation.identities.vectors import Vectors
from curation.models import Models, used_models
from curation.settings import PipelineSettings
from curation.storage import list_names


def start_of(given: list[str | None], index: IdentityIndex) -> tuple[Start, np.ndarray]:
    """(clusters to start from, bool [n]: fresh faces), for faces with the identity that they were given."""
    aliases = index.aliases()
    faces: dict[str, list[int]] = defaultdict(list)
    for face, name in enumerate(given):
        if name is not None:
            faces[aliases.get(name, name)].append(face)
    label, frozen = np.arange(len(given)), np.zeros(len(given), bool)
    for members in faces.values():
        label[members] = members[0]
        frozen[members] = len(members) > 1
    fresh = np.array([name is None for name in given])
    return Start(label, frozen), fresh


def extend(
    index: IdentityIndex,
    rows: FaceRows,
    vectors: Vectors,
    given: list[str | None],
    start: Start,
    grouping: Grouping,
    seed: int,
    strangers: np.ndarray,
) -> list[str]:
    """Adds the fresh faces to the index, and the cosines of strangers that came with them.

    Returns the identity of every face, aliases followed.

    Merges are written before faces: a kill between the two leaves proposals, and no face without its join.
    """
    merges = index.merges
    names = list(given)
    for members in members_of(grouping.label):
        fresh = [face for face in members.tolist() if given[face] is None]
        if not fresh:
            continue
        old = [face for face in members.tolist() if given[face] is not None]
        if not old:
            born = fingerprint(["identity", seed, rows.person_id[members[0]]])
            for face in fresh:
                names[face] = born
            continue
        cosines = vectors.take(np.array(fresh)) @ vectors.take(np.array(old)).T
        for face, nearest in zip(fresh, cosines.argmax(axis=1).tolist(), strict=True):
            names[face] = given[old[nearest]]
        _join_single_ones(merges, old, given, start, vectors)
    for a, b, cosine in grouping.refused:
        merges.propose(str(names[a]), str(names[b]), cosine)
    merges.save()
    added = np.array([face for face, name in enumerate(given) if name is None], np.int64)
    index.add(rows, vectors, added, [str(names[face]) for face in added.tolist()], strangers)
    aliases = merges.aliases()
    return [aliases.get(str(name), str(name)) for name in names]


def _join_single_ones(
    merges: Merges, old: list[int], given: list[str | None], start: Start, vectors: Vectors
) -> None:
    """Old identities that one cluster now holds: all but one of them had one face."""
    of: dict[int, list[int]] = defaultdict(list)
    for face in old:
        of[int(start.label[face])].append(face)
    if len(of) < 2:
        return
    base = max(of.values(), key=lambda faces: (len(faces), -faces[0]))
    for faces in of.values():
        if faces is not base:
            sums = [sum_of(vectors.take(np.array(part))) for part in (faces, base)]
            cosine = mean_cosine(sums[0], len(faces), sums[1], len(base))
            merges.propose(str(given[base[0]]), str(given[faces[0]]), cosine, by_rule=True)


def open_index(pipeline: PipelineSettings, models: Models) -> IdentityIndex:
    """The index that the pipeline names, made if it is not there; what is too old in it is deleted.

    Raises ConfigError where it was made with another embedder: cosines of two mean nothing.
    """
    folder = pipeline.identities.index
    assert folder is not None
    key, name = embedder_of(pipeline, models)
    if not is_index(folder):
        if list_names(folder):
            raise ConfigError(f"identities.index: {folder}: is not empty and no identity index")
        new_index(folder, key, name, pipeline.identities.index_days)
    index = IdentityIndex(folder)
    if index.embedder != key:
        raise ConfigError(
            f"identities.index: {folder}: was made with the embedder {index.embedder_name}, this pipeline "
            f"has {name}; their cosines cannot be compared, name another folder"
        )
    index.expire(pipeline.identities.index_days)
    return index


def embedder_of(pipeline: PipelineSettings, models: Models) -> tuple[str, str]:
    """(hash of all that embeddings depend on, a name for people)."""
    embed = pipeline.people.face.embed
    weights: dict[str, Any] = {n: m.sha256 for n, m in used_models(embed, models).items()}
    key = fingerprint(["embedder", embed.measurement(), sorted(weights.values())])
    return key, ", ".join(m.revision for m in used_models(embed, models).values()) or embed.backend
