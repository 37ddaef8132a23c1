"""Other ways to group faces, each at its best threshold by the truth, on the same faces.

Methods that read a graph get the pairs that our own exact search finds, up to 20,000 faces; above that the
pairs of our search by cells. Their time includes that search.
"""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from benchmarks.peer_environment import peer_python
from curation.engine import InlineEngine
from curation.evaluation.identities import pair_counts
from curation.identities.search import Pairs, find_pairs
from curation.identities.vectors import Vectors
from curation.settings.base import Resources
from curation.settings.identities import SearchSettings

# The most faces that each can do: linkage and HDBSCAN hold all pairs (10,000 faces: 0.8 GB), Chinese Whispers
# goes through all faces one by one in Python, twenty times.
PEERS = {
    "components": 1_000_000,
    "chinese-whispers": 100_000,
    "dbscan": 1_000_000,
    "hdbscan": 10_000,
    "average-linkage": 10_000,
}
CUTS = (0.35, 0.4, 0.45, 0.5, 0.55)
_ROUNDS = 20
_SCRIPT = Path(__file__).resolve().parent / "peers" / "clustering_peer.py"

Labels = dict[str, np.ndarray]


def run_peer(name: str, folder: str, person: np.ndarray, python: str | None) -> tuple[str, np.ndarray, float]:
    """(name with its best setting, label of each face, CPU seconds of one run at one setting)."""
    cpu = time.process_time()
    vectors = Vectors(folder)
    pairs = None
    if name in ("components", "chinese-whispers", "dbscan"):
        settings = SearchSettings(exact_faces=20_000)
        pairs = find_pairs(InlineEngine(), folder, vectors, min(CUTS), settings, Resources())
    search_s = time.process_time() - cpu
    cpu = time.process_time()
    if name in ("dbscan", "hdbscan"):
        labels, seconds = _scikit_learn(name, folder, vectors, pairs, python)
    else:
        labels = METHODS[name](vectors, pairs)
        seconds = (time.process_time() - cpu) / (1 if name == "average-linkage" else len(labels))
    best = max(labels, key=lambda setting: _pairwise_f(labels[setting], person))
    return f"{name} {best}", labels[best], search_s + seconds


def _pairwise_f(label: np.ndarray, person: np.ndarray) -> float:
    both, in_found, in_true = pair_counts(label.tolist(), person.tolist())
    return 2 * both / (in_found + in_true)


def components(vectors: Vectors, pairs: Pairs | None) -> Labels:
    """Connected components of the pairs from each cut on."""
    assert pairs is not None
    found = {}
    for cut in CUTS:
        keep = pairs.cosine >= cut
        left, right = pairs.left[keep], pairs.right[keep]
        graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(vectors.count,) * 2)
        found[f"{cut:g}"] = connected_components(graph, directed=False)[1]
    return found


def chinese_whispers(vectors: Vectors, pairs: Pairs | None) -> Labels:
    """Chinese Whispers (Biemann, 2006): each face takes the label with the largest sum of cosines near it."""
    assert pairs is not None
    found = {}
    for cut in CUTS[1:4]:
        keep = pairs.cosine >= cut
        face = np.concatenate([pairs.left[keep], pairs.right[keep]])
        other = np.concatenate([pairs.right[keep], pairs.left[keep]])
        weight = np.concatenate([pairs.cosine[keep]] * 2)
        order = np.argsort(face, kind="stable")
        starts = np.searchsorted(face[order], np.arange(vectors.count + 1)).tolist()
        other, weight = other[order], weight[order]
        label = np.arange(vectors.count)
        random = np.random.default_rng(0)
        for _ in range(_ROUNDS):
            changed = 0
            for i in random.permutation(vectors.count).tolist():
                near = slice(starts[i], starts[i + 1])
                if starts[i] == starts[i + 1]:
                    continue
                names, place = np.unique(label[other[near]], return_inverse=True)
                name = int(names[np.bincount(place, weight[near]).argmax()])
                changed += name != label[i]
                label[i] = name
            if not changed:
                break
        found[f"{cut:g}"] = label
    return found


def average_linkage(vectors: Vectors, pairs: Pairs | None) -> Labels:
    """Average linkage of scipy over all pairs, cut at each cosine."""
    rows = np.asarray(vectors.take(np.arange(vectors.count)))
    distances = 1 - rows @ rows.T
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    return {f"{cut:g}": fcluster(tree, 1 - cut, "distance") for cut in (0.25, 0.3, *CUTS[:3])}


METHODS: dict[str, Callable[[Vectors, Pairs | None], Labels]] = {
    "components": components,
    "chinese-whispers": chinese_whispers,
    "average-linkage": average_linkage,
}


def _scikit_learn(
    name: str, folder: str, vectors: Vectors, pairs: Pairs | None, python: str | None
) -> tuple[Labels, float]:
    """(labels by setting, CPU seconds of one setting) of benchmarks/peers/clustering_peer.py."""
    if pairs is None:
        np.save(f"{folder}/rows.npy", vectors.take(np.arange(vectors.count)))
    else:
        np.savez(f"{folder}/peer-pairs.npz", left=pairs.left, right=pairs.right, cosine=pairs.cosine)
    command: list[Any] = [python or peer_python(), _SCRIPT, name, folder, vectors.count, *CUTS]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    record = json.loads(done.stdout.splitlines()[-1])
    labels = np.load(f"{folder}/{name}-labels.npz")
    return {key: labels[key] for key in labels.files}, record["cpu_s"] / len(labels.files)
