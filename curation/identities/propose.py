"""Looks through a whole index for identities that may be one: `persona identities propose`."""

import tempfile

import numpy as np

from curation.engine import InlineEngine, Job
from curation.errors import ConfigError
from curation.identities.collect import Collector
from curation.identities.exact_cosines import mean_cosine, sum_of
from curation.identities.index import IdentityIndex
from curation.identities.search import find_pairs
from curation.identities.vectors import write_vectors
from curation.settings.base import Resources
from curation.settings.identities import SearchSettings
from curation.storage import join

_GRID = 0.01  # more than the grid moves a cosine by


def propose_merges(index: IdentityIndex, merge_cosine: float, job: Job) -> int:
    """Proposes joins of two identities whose mean cosine over all pairs reaches `merge_cosine`.

    All of them up to `search.exact_faces` (50,000) identities; above, those that the search by cells finds.
    Identities with faces on one photo are two people. Returns how many proposals are new.

    Raises ConfigError where embeddings have expired: they are no longer there to be searched.
    """
    expired = index.expired()
    if expired:
        raise ConfigError(
            f"{index.folder}: {', '.join(expired)}: came in more than {index.days} days ago "
            "(identities.index_days) and may not be searched; the next run with this index deletes them"
        )
    collector = Collector()
    given = index.load(collector)
    if not given:
        return 0
    aliases = index.aliases()
    with tempfile.TemporaryDirectory(prefix="persona-") as folder:
        rows, vectors = collector.close(join(folder, "faces"))
        photos = rows.photos()
        name_of = [aliases.get(given[person_id], given[person_id]) for person_id in rows.person_id]
        names, code = np.unique(np.array(name_of), return_inverse=True)
        order = np.argsort(code, kind="stable")
        starts = np.searchsorted(code[order], np.arange(len(names) + 1))
        sums = np.empty((len(names), vectors.dimension), np.float32)
        for i in range(len(names)):
            sums[i] = sum_of(vectors.take(order[starts[i] : starts[i + 1]]))
        lengths = np.maximum(np.linalg.norm(sums.astype(np.float64), axis=1, keepdims=True), 1e-12)
        prototypes = write_vectors(join(folder, "means"), iter([sums / lengths]), len(names), sums.shape[1])
        # Means are shorter than 1 before they are made units, so none that matters is nearer than this.
        found = find_pairs(
            InlineEngine(),
            job,
            join(folder, "means"),
            prototypes,
            merge_cosine - _GRID,
            SearchSettings(),
            Resources(),
        )
    merges, new = index.merges, 0
    for a, b in zip(found.left.tolist(), found.right.tolist(), strict=True):
        counts = np.diff(starts)[[a, b]].tolist()
        cosine = mean_cosine(sums[a].astype(np.float64), counts[0], sums[b].astype(np.float64), counts[1])
        shared = np.intersect1d(
            photos[order[starts[a] : starts[a + 1]]], photos[order[starts[b] : starts[b + 1]]]
        )
        if cosine >= merge_cosine and not len(shared):
            new += merges.propose(str(names[a]), str(names[b]), cosine)
    merges.save()
    return new
