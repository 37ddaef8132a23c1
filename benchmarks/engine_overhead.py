"""What the engine costs beside its models: python benchmarks/engine_overhead.py

1. The pipeline `real-photos` on Ray and a bare loop over the same models, on the same photos, one
   after the other: photos per CPU second of each, all processes counted, start-up included.
2. Trivial models over 20,000 and 200,000 rows: CPU per row and phase, peak memory of each.

Prints tables and, last, one line of JSON.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.process_cost import Cost, cost_of  # noqa: E402
from benchmarks.trivial_models import write_collection  # noqa: E402
from curation.photos.decode import decode_rgb  # noqa: E402

PHASES = 6
PHOTO_PX = (480, 360)
TRIVIAL = "benchmarks.trivial_models:Anyone"


def main() -> int:
    """Runs both parts; exit code 2 where weights are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--rows", type=int, nargs=2, default=[20_000, 200_000])
    parser.add_argument("--models", default=str(ROOT.parent / "shared" / "real" / "models"))
    parser.add_argument("--bare-loop", nargs=2, metavar=("CONFIG", "PHOTOS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare_loop:
        bare_loop(*options.bare_loop)
        return 0
    if not Path(options.models).is_dir():
        print(f"engine_overhead: no folder {options.models}; give --models", file=sys.stderr)
        return 2
    scratch = Path(tempfile.mkdtemp(prefix="persona-benchmark-"))
    try:
        found = {**real_models(scratch, options), **trivial_models(scratch, options)}
    finally:
        shutil.rmtree(scratch)
    print(json.dumps(found))
    return 0


def environment() -> dict[str, str]:
    """Commands run from the repository, on few threads."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def curate(config: Path, name: str, out: Path, *words: str) -> Cost:
    """The cost of one run of a pipeline."""
    command = [sys.executable, "-m", "persona", "curate", name, "--config", str(config), "--out", str(out)]
    return cost_of([*command, "--quiet", "--json", *words], environment())


# --- 1. real models ------------------------------------------------------------------------------


def real_models(scratch: Path, options: argparse.Namespace) -> dict[str, float]:
    """Photos per CPU second of the pipeline and of the bare loop."""
    photos = scratch / "photos"
    write_crops(photos, options.photos)
    pipelines = yaml.safe_load((ROOT / "pipelines.yaml").read_text())
    pipeline = pipelines["pipelines"]["real-photos"]
    pipeline["source"] = {"kind": "folder", "path": str(photos)}
    pipeline["models"]["path"] = options.models
    # Crops of two photos are near copies of one another; all of them are to be measured.
    pipeline["photos"]["duplicates"] = {"near": False}
    config = scratch / "real.yaml"
    config.write_text(yaml.safe_dump({"pipelines": {"real": pipeline}}))
    bare = cost_of(
        [sys.executable, str(Path(__file__).resolve()), "--bare-loop", str(config), str(photos)],
        environment(),
    )
    rows = []
    for engine in ("inline", "ray"):
        out = scratch / f"run-{engine}"
        cost = curate(config, "real", out, "--engine", engine)
        summary = json.loads(cost.output.strip().splitlines()[-1])
        assert summary["collection"] == options.photos
        rows.append((f"persona, {engine}", cost))
    rows.append(("bare loop", bare))
    print(f"{options.photos} photos of {PHOTO_PX[0]} × {PHOTO_PX[1]} px, real models, start-up included")
    print(f"{'':<16}{'CPU s':>9}{'wall s':>9}{'photos / CPU s':>16}{'ratio':>8}")
    for name, cost in rows:
        rate = options.photos / cost.cpu_s
        print(f"{name:<16}{cost.cpu_s:>9.1f}{cost.wall_s:>9.1f}{rate:>16.2f}{bare.cpu_s / cost.cpu_s:>8.3f}")
    print()
    by_name = dict(rows)
    return {
        "efficiency": round(bare.cpu_s / by_name["persona, ray"].cpu_s, 4),
        "efficiency_inline": round(bare.cpu_s / by_name["persona, inline"].cpu_s, 4),
        "photos": options.photos,
        "bare_cpu_s": round(bare.cpu_s, 2),
    }


def write_crops(folder: Path, count: int) -> None:
    """Different crops of the two photos of people inside the ultralytics package, as JPEGs."""
    spec = find_spec("ultralytics")
    assert spec is not None
    assert spec.origin is not None
    assets = Path(spec.origin).parent / "assets"
    sources = [decode_rgb((assets / name).read_bytes())[..., ::-1] for name in ("bus.jpg", "zidane.jpg")]
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    width, height = PHOTO_PX
    for number in range(count):
        source = sources[number % 2]
        share = random.uniform(0.6, 0.95)
        size = (int(source.shape[1] * share), int(source.shape[0] * share))
        x, y = random.integers(0, source.shape[1] - size[0]), random.integers(0, source.shape[0] - size[1])
        crop = cv2.resize(source[y : y + size[1], x : x + size[0]], (width, height))
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), crop, [cv2.IMWRITE_JPEG_QUALITY, 90])


def bare_loop(config: str, photos: str) -> None:
    """The same models over the same photos, and nothing else: no ledger, no file, no engine."""
    from curation.backends import build_backend
    from curation.engine import limit_threads
    from curation.models import find_models
    from curation.people.appearance import describe
    from curation.people.atr import region_shares
    from curation.people.boxes import whole_box
    from curation.people.face import align_face, assign_faces
    from curation.people.protocols import PersonView
    from curation.pipeline_file import load_pipeline

    limit_threads(1)
    pipeline = load_pipeline(config, "real")
    models = find_models(pipeline)
    people = pipeline.people
    detector = build_backend("detector", people.detect.by, models)
    finder = build_backend("face_finder", people.face.find, models)
    embedder = build_backend("face_embedder", people.face.embed, models)
    segmenter = build_backend("segmenter", people.segment.by, models)
    parser = build_backend("parser", people.regions.by, models)
    found = 0
    for path in sorted(Path(photos).iterdir()):
        photo = decode_rgb(path.read_bytes())
        people_found = detector.detect([photo])[0]
        boxes = people_found.boxes[people_found.scores >= people.detect.floor]
        if len(boxes) == 0:
            continue
        faces = finder.find(photo, people_found)
        owners = {p: f for f, p in assign_faces(faces, boxes, [None] * len(boxes)).items()}
        if owners:
            embedder.embed(np.stack([align_face(photo, faces[f].points) for f in owners.values()]))
        whole = np.stack([whole_box(box, photo.shape[1], photo.shape[0]) for box in boxes])
        masks = segmenter.segment(photo, whole)
        views = [
            PersonView(box, mask, None, faces[owners[i]].box if i in owners else None)
            for i, (box, mask) in enumerate(zip(whole, masks, strict=True))
        ]
        for view, labels in zip(views, parser.parse(photo, views), strict=True):
            region_shares(labels, view.mask)
            x0, y0, x1, y1 = view.box
            describe(photo[y0:y1, x0:x1], labels, people.appearance)
            found += 1
    print(found)


# --- 2. trivial models ---------------------------------------------------------------------------


def trivial_models(scratch: Path, options: argparse.Namespace) -> dict[str, float]:
    """CPU per row and phase, and how the peak memory grows with ten times the rows."""
    small, large = (trivial_run(scratch, rows) for rows in options.rows)
    print("trivial models, inline")
    print(f"{'rows':>8}{'CPU s':>9}{'CPU ms / row / phase':>22}{'peak MiB':>10}")
    for rows, cost in zip(options.rows, (small, large), strict=True):
        per_row = cost.cpu_s * 1000 / rows / PHASES
        print(f"{rows:>8}{cost.cpu_s:>9.1f}{per_row:>22.3f}{cost.peak_bytes / 2**20:>10.0f}")
    print()
    return {
        "cpu_ms_per_row_phase": round(large.cpu_s * 1000 / options.rows[1] / PHASES, 4),
        "memory_growth": round(large.peak_bytes / small.peak_bytes - 1, 4),
        "peak_mib": round(large.peak_bytes / 2**20, 1),
        "rows": options.rows[1],
    }


def trivial_run(scratch: Path, rows: int) -> Cost:
    """All six phases over `rows` photos of people with five photos each."""
    folder = scratch / f"trivial-{rows}"
    write_collection(folder / "tars", rows, photos_per_person=5)
    by: dict[str, Any] = {"backend": TRIVIAL}
    pipeline = {
        "source": {"kind": "webdataset", "path": str(folder / "tars")},
        "photos": {"screen": {"min_side_px": 16}},
        "people": {
            "slice_rows": 256,
            "detect": {"by": by},
            "face": {"find": by, "embed": by, "min_face_px": 8},
            "full_body": {"min_box_px": 8},
            "segment": {"by": by},
            "regions": {"by": by},
            "appearance": {"min_region_px": 1_000_000},
        },
        "identities": {"neighbours": 8, "link_cosine": 0.98, "merge_cosine": 0.98, "prototype_cosine": 0.9},
        "outfits": {"judge": {"backend": "benchmarks.trivial_models:AlwaysSame"}},
    }
    config = folder / "pipelines.yaml"
    config.write_text(yaml.safe_dump({"pipelines": {"trivial": pipeline}}))
    cost = curate(config, "trivial", folder / "run", "--engine", "inline")
    summary = json.loads(cost.output.strip().splitlines()[-1])
    assert summary["collection"] == rows
    assert summary["photos"] > 0.9 * rows, summary
    shutil.rmtree(folder)
    return cost


if __name__ == "__main__":
    sys.exit(main())
