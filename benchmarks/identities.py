"""How identities are grouped as faces grow: python benchmarks/identities.py [--sizes 10000 100000 1000000]

1. Ours at each size: seconds, memory, pairwise F and BCubed; the exponent of CPU time.
2. Peers on the same faces, each up to the size it can do, each at its best threshold by the truth (ours gets
   none): connected components, Chinese Whispers, average linkage, DBSCAN and HDBSCAN of scikit-learn.
3. Distractors: 2,000 faces alone, and among ten times as many strangers with one photo each.
4. Five collections one after the other through an identity index, against one batch.
5. A plan for ten million faces, from the rates measured here.

Faces are drawn (benchmarks/synthetic_faces.py says after which published model). Settings are the defaults
but for --merge-cosine. With --out results are kept: a size that was measured on the same code (a hash of what
groups and draws) is not measured again, so the sizes may be run one at a time, and a kill loses one of them.
The line of JSON covers all that is kept; `seconds_1m` is null until a million was run.

    python benchmarks/identities.py --out runs/identities --sizes 10000 100000
    python benchmarks/identities.py --out runs/identities --sizes 1000000 --parts sizes plan

Every run is a process of its own; memory is its largest resident size, with the mapped pages of the
embeddings. CPU seconds are those of the process: what else the machine does counts less.
Prints tables and, last, one line of JSON.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.identity_peers import PEERS, run_peer  # noqa: E402
from benchmarks.kept_results import KeptResults, code_hash  # noqa: E402
from benchmarks.process_cost import cost_of  # noqa: E402
from benchmarks.synthetic_faces import Faces, draw_faces  # noqa: E402
from curation.engine import InlineEngine  # noqa: E402
from curation.evaluation.identities import bcubed, pair_counts  # noqa: E402
from curation.identities.assign import face_set  # noqa: E402
from curation.identities.extend import extend, start_of  # noqa: E402
from curation.identities.faces import Collector, FaceRows  # noqa: E402
from curation.identities.false_match import same_photo_cosines  # noqa: E402
from curation.identities.grouping import FaceSet, Grouping, group_faces  # noqa: E402
from curation.identities.index import FORMAT, IdentityIndex  # noqa: E402
from curation.identities.vectors import Vectors, write_vectors  # noqa: E402
from curation.settings.identities import IdentitiesSettings  # noqa: E402

BASE, TIMES = 2000, 10  # distractors
COLLECTIONS, IN_COLLECTIONS = 5, 10_000  # faces at most
PLANNED = 10_000_000
PARTS = ("sizes", "distractors", "collections", "plan")
_OURS = [
    "attach", "cluster", "control", "exact_cosines", "false_match", "grouping", "linking", "search",
    "settling", "vectors",
]  # fmt: skip
CODE = [
    *(f"curation/identities/{name}.py" for name in _OURS),
    "curation/settings/identities.py",
    "benchmarks/synthetic_faces.py",
]
PEER_CODE = [*CODE, "benchmarks/identity_peers.py", "benchmarks/peers/clustering_peer.py"]


def main() -> int:
    """Runs all parts; the sizes decide how long that takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--merge-cosine", type=float, default=0.4)
    parser.add_argument("--peers-up-to", type=int, default=100_000, help="faces; none of the peers beyond")
    parser.add_argument("--peer-minutes", type=float, default=30, help="for one peer at one size")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, help="keep results here, and go on from them")
    parser.add_argument("--peer-python", help="an interpreter with scikit-learn (default: .venv-peers)")
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, folder = options.one
        if what == "draw":
            write_faces(Path(folder), draw_faces(options.sizes[0], options.seed))
        else:
            print(json.dumps(one(what, folder, options.merge_cosine, options.peer_python)))
        return 0
    if min(options.sizes) < 1000:
        print("identities: --sizes: at least 1000 faces each", file=sys.stderr)
        return 2
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps(measure(options)))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All parts that are asked for; the figures of all that is kept."""
    found: dict[str, Any] = {}
    kept = KeptResults(options.out)
    with tempfile.TemporaryDirectory(prefix="persona-benchmark-", dir=options.out) as scratch:
        if "sizes" in options.parts:
            sizes_and_peers(Path(scratch), options, kept)
        ours = rows_of(kept, options, "ours")
        if ours:
            found |= scaling(ours)
            found |= beside_peers(ours, rows_of(kept, options, *PEERS))
        if "distractors" in options.parts:
            found |= distractors(Path(scratch), options)
        if "collections" in options.parts:
            found |= collections(Path(scratch), options)
        if "plan" in options.parts and ours:
            found |= plan(ours[-1])
    return found


# --- 1. and 2. sizes and peers ------------------------------------------------------------------------


def sizes_and_peers(scratch: Path, options: argparse.Namespace, kept: KeptResults) -> None:
    """Ours and the peers at each size, ascending; results that are kept are printed, not measured."""
    print(
        f"{'faces':>9}  {'':<20}{'CPU s':>9}{'wall s':>9}{'peak GB':>9}{'pair F':>9}{'P':>8}{'R':>8}", end=""
    )
    print(f"{'BCubed P':>10}{'R':>8}{'mixed':>8}", flush=True)
    for size in sorted(options.sizes):
        folder = scratch / str(size)
        peers = [name for name, most in PEERS.items() if size <= min(most, options.peers_up_to)]
        for what in ("ours", *peers):
            row = kept.get(name_of(what, size, options), code_of(what))
            if row is None:
                if not folder.exists():
                    # In a process of its own, whose memory is given back.
                    draw = ["--one", "draw", str(folder), "--sizes", str(size), "--seed", str(options.seed)]
                    cost_of([sys.executable, str(Path(__file__).resolve()), *draw], environment())
                row = in_process(what, folder, size, options)
                kept.put(name_of(what, size, options), code_of(what), row)
            print_row(row, size)
        shutil.rmtree(folder, ignore_errors=True)


def name_of(what: str, size: int, options: argparse.Namespace) -> str:
    """The name that a row is kept by."""
    more = f" merge {options.merge_cosine:g}" if what == "ours" else ""
    return f"{what} {size} seed {options.seed}{more}"


def code_of(what: str) -> str:
    """The hash of the code that a row measures."""
    return code_hash(ROOT, CODE if what == "ours" else PEER_CODE)


def rows_of(kept: KeptResults, options: argparse.Namespace, *whats: str) -> list[dict[str, Any]]:
    """All rows kept of these methods with these settings that ended, by size."""
    rows = []
    for what in whats:
        for name in kept.names(code_of(what)):
            size = name.split()[1] if name.startswith(f"{what} ") else "0"
            row = kept.get(name, code_of(what)) if name == name_of(what, int(size), options) else None
            rows += [row] if row is not None and "pairwise_f" in row else []
    return sorted(rows, key=lambda row: int(row["faces"]))


def beside_peers(ours: list[dict[str, Any]], peers: list[dict[str, Any]]) -> dict[str, Any]:
    """Pairwise F at the largest size, the best of a peer at the largest that any did, and ours there."""
    most = max((row["faces"] for row in peers), default=None)
    at_largest = [row["pairwise_f"] for row in ours if row["faces"] == most]
    return {
        "pairwise_f": ours[-1]["pairwise_f"],
        "best_peer_f": max((row["pairwise_f"] for row in peers if row["faces"] == most), default=None),
        "best_peer_faces": most,
        "pairwise_f_beside_peer": at_largest[0] if at_largest else None,
    }


def environment() -> dict[str, str]:
    """That of the processes that measure."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def in_process(what: str, folder: Path, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """The scores of one method on one folder of faces; `not_within_min` of a peer that did not end."""
    command = [sys.executable, str(Path(__file__).resolve()), "--one", what, str(folder)]
    command += ["--merge-cosine", str(options.merge_cosine)]
    if options.peer_python:
        command += ["--peer-python", options.peer_python]
    limit = None if what == "ours" else 60 * options.peer_minutes
    try:
        cost = cost_of(command, environment(), limit)
    except TimeoutError:
        return {"what": what, "faces": size, "not_within_min": options.peer_minutes}
    return dict(json.loads(cost.output.splitlines()[-1])) | {"peak_gb": round(cost.peak_bytes / 1e9, 3)}


def print_row(row: dict[str, Any], size: int) -> None:
    """For people."""
    if "pairwise_f" not in row:
        print(f"{size:>9}  {row['what']:<20} not within {row['not_within_min']:g} minutes", flush=True)
        return
    print(
        f"{row['faces']:>9}  {row['what']:<20}{row['cpu_s']:>9.1f}{row['wall_s']:>9.1f}{row['peak_gb']:>9.2f}"
        f"{row['pairwise_f']:>9.4f}{row['pairwise_p']:>8.4f}{row['pairwise_r']:>8.4f}"
        f"{row['bcubed_p']:>10.4f}{row['bcubed_r']:>8.4f}{row['mixed']:>8.4f}",
        flush=True,
    )


def one(what: str, folder: str, merge_cosine: float, peer_python: str | None) -> dict[str, Any]:
    """Groups the faces of a folder by one method, in this process."""
    person, photo = np.load(f"{folder}/person.npy"), np.load(f"{folder}/photo.npy")
    began, cpu = time.monotonic(), time.process_time()
    says, more = what, {}
    if what == "ours":
        grouping = group(folder, Vectors(folder), photo, np.load(f"{folder}/strangers.npy"), merge_cosine)
        label, more = (
            grouping.label,
            {"link_cosine": grouping.cosines.between, "suspects": len(grouping.suspects)},
        )
        cpu_s = time.process_time() - cpu
    else:
        says, label, cpu_s = run_peer(what, folder, person, peer_python)
    return {
        "what": says,
        "faces": len(person),
        "cpu_s": round(cpu_s, 2),
        "wall_s": round(time.monotonic() - began, 2),
        **scores(label, person),
        **more,
    }


def group(
    folder: str, vectors: Vectors, photo: np.ndarray, strangers: np.ndarray, merge_cosine: float
) -> Grouping:
    """Ours, with the settings of the benchmark."""
    none = np.full(len(photo), -1)
    faces = FaceSet(vectors, photo, none, none + 1, np.ones(len(photo), bool), strangers)
    return group_faces(InlineEngine(), folder, faces, settings(merge_cosine))


def settings(merge_cosine: float) -> IdentitiesSettings:
    """The defaults but for the embedder's own cosine."""
    return IdentitiesSettings(merge_cosine=merge_cosine)


def write_faces(folder: Path, faces: Faces) -> Path:
    """The faces as the phase `identities` lays them out, and the truth beside them."""
    folder.mkdir(parents=True)
    write_vectors(str(folder), iter([faces.vectors]), *faces.vectors.shape)
    np.save(folder / "person.npy", faces.person)
    np.save(folder / "photo.npy", faces.photo)
    shared = np.flatnonzero(np.bincount(faces.photo)[faces.photo] > 1)
    order = shared[np.argsort(faces.photo[shared], kind="stable")]
    np.save(folder / "strangers.npy", same_photo_cosines(faces.vectors[order], faces.photo[order]))
    return folder


def scores(label: np.ndarray, person: np.ndarray) -> dict[str, float]:
    """Pairwise and BCubed scores; `mixed`: the share of clusters of two or more that hold two people."""
    found, true = label.tolist(), person.tolist()
    both, in_found, in_true = pair_counts(found, true)
    precision, recall = bcubed(found, true)
    cells = np.unique(np.stack([label, person], axis=1), axis=0)[:, 0]
    names, people = np.unique(cells, return_counts=True)
    large = np.bincount(label, minlength=names[-1] + 1)[names] > 1
    return {
        "pairwise_f": round(2 * both / (in_found + in_true), 4),
        "pairwise_p": round(both / max(in_found, 1), 4),
        "pairwise_r": round(both / max(in_true, 1), 4),
        "bcubed_p": round(precision, 4),
        "bcubed_r": round(recall, 4),
        "mixed": round(float((people[large] > 1).mean()), 4),
    }


def scaling(ours: list[dict[str, Any]]) -> dict[str, Any]:
    """The exponent of CPU time, and what the million took, where it was among the sizes."""
    sizes, seconds = ([row[name] for row in ours] for name in ("faces", "cpu_s"))
    exponent = None
    if len(ours) > 1:
        exponent = round(float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]), 3)
        print(f"\nCPU time grows with faces to the power of {exponent}")
    million = [row for row in ours if row["faces"] == 1_000_000]
    return {
        "exponent": exponent,
        "seconds_1m": million[0]["wall_s"] if million else None,
        "cpu_seconds_1m": million[0]["cpu_s"] if million else None,
        "peak_gb": max(row["peak_gb"] for row in ours),
        "largest": ours[-1]["faces"],
        "bcubed_precision": ours[-1]["bcubed_p"],
        "bcubed_recall": ours[-1]["bcubed_r"],
        "contaminated": ours[-1]["mixed"],
    }


# --- 3. distractors ----------------------------------------------------------------------------------


def distractors(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """BCubed precision of the same faces, alone and among strangers; those are not counted themselves."""
    precisions = []
    for strangers in (0, TIMES * BASE):
        faces = draw_faces(BASE, options.seed + 1, strangers)
        folder = write_faces(scratch / f"distractors-{strangers}", faces)
        counted = np.isin(faces.person, np.unique(faces.person)[: len(np.unique(faces.person)) - strangers])
        lists = Vectors(str(folder)), faces.photo, np.load(folder / "strangers.npy")
        label = group(str(folder), *lists, options.merge_cosine).label
        true = [int(who) if known else None for who, known in zip(faces.person, counted, strict=True)]
        precisions.append(bcubed(label.tolist(), true)[0])  # type: ignore[arg-type]
    loss = round(precisions[0] - precisions[1], 4)
    print(
        f"\n{BASE} faces: BCubed precision {precisions[0]:.4f} alone, {precisions[1]:.4f} among {TIMES} times"
    )
    print(f"as many distractors, {loss:.4f} less")
    return {"distractor_loss": loss}


# --- 4. five collections ------------------------------------------------------------------------------


def collections(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Pairwise F of 10,000 faces at most in one batch and in five collections, without any merge accepted."""
    size = min(*options.sizes, IN_COLLECTIONS)
    faces = draw_faces(size, options.seed)
    names = [f"{i * 2654435761 % 2**32:08x}{i:056x}" for i in faces.photo.tolist()]
    ids = [f"{name}-{i}" for i, name in enumerate(names)]
    folder = scratch / "index"
    folder.mkdir()
    about = {"format": FORMAT, "embedder": "drawn", "embedder_name": "drawn"}
    (folder / "index.json").write_text(json.dumps(about))
    index = IdentityIndex(str(folder))
    fresh = [
        index_part(scratch, index, faces, ids, part, options)
        # Whole photos: a collection knows the strangers on its own only.
        for part in np.array_split(np.argsort(faces.photo, kind="stable"), COLLECTIONS)
    ]
    aliases = index.aliases()
    given = {name: aliases.get(identity, identity) for found in fresh for name, identity in found.items()}
    _, label = np.unique(np.array([given[name] for name in ids]), return_inverse=True)
    other = scratch / "index-batch"
    other.mkdir()
    (other / "index.json").write_text(json.dumps(about))
    identities = index_part(scratch, IdentityIndex(str(other)), faces, ids, np.arange(size), options)
    _, batch = np.unique(np.array([identities[name] for name in ids]), return_inverse=True)
    once, in_turn = (scores(found, faces.person) for found in (batch, label))
    f_of = [once["pairwise_f"], in_turn["pairwise_f"]]
    states = [entry.state for entry in index.merges.entries.values()]
    print(
        f"\n{size} faces: pairwise F {f_of[0]:.4f} in one batch, {f_of[1]:.4f} in {COLLECTIONS} collections;"
    )
    print(f"clusters of two people: {once['mixed']:.2%} in one batch, {in_turn['mixed']:.2%} in turn")
    print(f"{states.count('accepted')} joins by rule, {states.count('proposed')} proposed and left open")
    loss = round(f_of[0] - f_of[1], 4)
    mixed = {"batch_mixed": once["mixed"], "incremental_mixed": in_turn["mixed"]}
    return {"batch_f": f_of[0], "incremental_f": f_of[1], "incremental_loss": loss, **mixed}


def index_part(
    scratch: Path,
    index: IdentityIndex,
    faces: Faces,
    ids: list[str],
    part: np.ndarray,
    options: argparse.Namespace,
) -> dict[str, str]:
    """{person_id: identity} of a collection that extends the index."""
    collector = Collector()
    known = index.load(collector)
    count = len(part)
    rows = FaceRows([ids[i] for i in part], [0] * count, [None] * count, [None] * count, [True] * count)
    collector.add(rows, faces.vectors[part])
    order = part[np.argsort(faces.photo[part], kind="stable")]
    strangers = same_photo_cosines(faces.vectors[order], faces.photo[order])
    collector.strangers.append(strangers)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        everyone, vectors = collector.close(folder)
        given = [known.get(person_id) for person_id in everyone.person_id]
        start, fresh = start_of(given, index)
        known_faces = face_set(everyone, vectors, collector.strangers)
        grouping = group_faces(
            InlineEngine(), folder, known_faces,
            settings(options.merge_cosine), start, fresh,
        )  # fmt: skip
        names = extend(index, everyone, vectors, given, start, grouping, 0, strangers)
    wanted = set(rows.person_id)
    return {i: name for i, name in zip(everyone.person_id, names, strict=True) if i in wanted}


# --- 5. a plan ----------------------------------------------------------------------------------------


def plan(largest: dict[str, Any]) -> dict[str, Any]:
    """CPU hours of ten million faces: what grows with the faces, and finding the cells, with their square."""
    rng = np.random.default_rng(0)
    rows, means = (rng.standard_normal((4096, 128)).astype(np.float32) for _ in range(2))
    cpu = time.process_time()
    for _ in range(20):
        rows @ means.T
    rate = 20 * 2 * 4096**2 * 128 / (time.process_time() - cpu)
    search = IdentitiesSettings().search

    def cells_s(faces: int) -> float:
        if faces <= search.exact_faces:
            return 0.0
        return 2 * 128 * search.tables * faces**2 / search.cell_faces / rate

    rest = max(largest["cpu_s"] - cells_s(largest["faces"]), 0.0) / largest["faces"] * PLANNED
    cells = cells_s(PLANNED)
    print(
        f"\nplan for {PLANNED:,} faces: {rest / 3600:.1f} CPU hours for what grows with the faces "
        f"({1000 * largest['cpu_s'] / largest['faces']:.2f} ms a face at {largest['faces']:,}), "
        f"{cells / 3600:.1f} for nearest cells ({rate / 1e9:.0f} GFLOP a CPU second)"
    )
    return {"cpu_hours_10m": round((rest + cells) / 3600, 1)}


if __name__ == "__main__":
    sys.exit(main())
