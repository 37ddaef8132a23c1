"""`python benchmarks/full_size.py`: the production pipeline at full size, on a CPU, with random weights.

Each backend of `visual-persona-500k` and `visual-persona-commercial` is built by itself from weights of the
published size and asked by its Protocol about eight photos: seconds, shapes, memory. Then judge and captioner
ask a real vLLM, in four model families (`vlm_rehearsal.py`), and `persona curate` takes the same photos, or
the smallest of them, through all stages of both pipelines. Random weights find nobody, so people are given:
around the faces that YuNet finds. The detector runs, and its answer is not used. Last line: JSON.

    python benchmarks/full_size.py --out runs/full-size
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.full_size_backends import (
    GIB,
    STAGES,
    measure_backend,
    measured_alone,
    stage_lines,
)
from benchmarks.full_size_photos import COMMERCIAL, PIPELINE, ROOT, Place, people_rows, write_photos
from benchmarks.full_size_weights import WRITERS
from benchmarks.process_cost import cost_of
from benchmarks.vlm_families import FAMILIES
from benchmarks.vlm_rehearsal import CARD, rehearse_family


def curate(place: Place, name: str, endpoint: str, photos: int) -> dict[str, Any]:
    """`persona curate NAME` over the smallest photos. → its summary, `pipeline`, `seconds` and `peak_gib`.

    endpoint   of a server that is up
    What random weights would rule out is let through: regions, masks, cosines, the judge's answer.
    """
    detect = place.pipeline(name).people.detect.by
    given = {
        "backend": "benchmarks.full_size_photos:GivenPeople",
        "model": detect.model,
        "batch_size": detect.batch_size,
        "options": {"given": str(place.given), "pipeline": name},
    }
    shown = sorted(place.photos.iterdir(), key=lambda file: file.stat().st_size)[:photos]
    changes = [
        f"models.path={place.weights}", "source.kind=folder", f"source.path={json.dumps([*map(str, shown)])}",
        f"people.detect.by={json.dumps(given)}", "people.full_body=any", "people.segment.min_mask_share=0",
        "people.regions.min_regions=0", "people.resources.num_gpus=0", "people.resources.workers=1",
        "identities.link_cosine=-1", "identities.merge_cosine=-1", "identities.prototype_cosine=-1",
        "identities.false_links=null", "outfits.judge.cut=0", "engine.max_failed_share=1",
        *(f"{role}.{key}" for role in ("outfits.judge", "captions.by")
          for key in (f"endpoint={endpoint}", "dtype=float32", "in_flight=4")),
    ]  # fmt: skip
    words = [word for change in changes for word in ("--set", change)]
    command = [
        sys.executable, "-m", "persona", "curate", name, "--config", str(ROOT / "pipelines.yaml"),
        "--out", str(place.folder / f"run-{name}"), "--engine", "inline", "--json", "--quiet",
        "--allow-empty", *words,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PERSONA_THREADS": os.environ["PERSONA_THREADS"]}
    cost = cost_of(command, environment)
    summary = dict(json.loads(cost.output.splitlines()[-1]))
    return {**summary, "pipeline": name, "seconds": cost.wall_s, "peak_gib": cost.peak_bytes / GIB}


def prepare(place: Place, shared: Path) -> None:
    """Photos, given people and weights, unless they are there."""
    place.weights.mkdir(parents=True, exist_ok=True)
    files = place.files()
    yunet = place.weights / files["yunet"]
    if not yunet.exists() and (shared / "models" / yunet.name).exists():
        yunet.symlink_to(shared / "models" / yunet.name)
    vlm = place.weights / files[CARD]
    if not vlm.is_symlink():  # which the first family is, once it is made
        vlm.symlink_to(place.folder / FAMILIES[0].name)
    counts = place.parameters()
    for card, write in WRITERS.items():
        if card not in counts:
            counts[card] = write(place.weights / files.get(card, card))
            (place.folder / "parameters.json").write_text(json.dumps(counts))
    if not place.given.exists():
        place.given.write_text(json.dumps(write_photos(place.photos, yunet, shared / "photos")))


def main() -> None:
    """Rehearses, and prints tables and a line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "full-size")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "real", help="photos, models")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), help="backends to be measured alone")
    parser.add_argument("--segment-photos", type=int, default=2, help="that the segmenter alone is shown")
    parser.add_argument("--pipelines", nargs="*", default=[PIPELINE, COMMERCIAL], help="that take photos")
    parser.add_argument("--photos", type=int, default=8, help="that they take, the smallest first")
    parser.add_argument("--families", nargs="*", default=[family.name for family in FAMILIES])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    place = Place(given.out.absolute())
    os.environ.setdefault("PERSONA_THREADS", "2")
    if given.measure:
        print(json.dumps(asdict(measure_backend(given.measure, place, given.segment_photos))))
        return
    prepare(place, given.shared)
    stages = [measured_alone(stage, place, given.segment_photos) for stage in given.stages]
    print("\n".join(stage_lines(stages)), flush=True)
    runs: list[dict[str, Any]] = []

    def through_all_stages(url: str) -> None:
        for name in given.pipelines:
            runs.append(curate(place, name, url, given.photos))
            for entry in runs[-1]["stages"]:
                print(f"{name:26} {entry['phase']:10} {entry['stage']:12} {entry['in']:4} {entry['kept']:4} "
                      f"{entry['rejected']:4} {entry['failed']:4}  {entry['reasons']}")  # fmt: skip
            print(f"{name}: {runs[-1]['seconds']:.0f} s, {runs[-1]['peak_gib']:.2f} GiB", flush=True)

    families = []
    for number, name in enumerate(given.families):
        family = rehearse_family(
            name, people_rows(place), str(place.photos), place.folder, None if number else through_all_stages
        )
        families.append(family)
        print(json.dumps(asdict(family), ensure_ascii=False), flush=True)
    faults = [each.error for each in stages if each.error]
    faults += [family.error for family in families if family.error]
    faults += [fault for family in families for fault in family.faults]
    print("\n".join(faults))
    counts = [entry for run in runs for entry in run["stages"]]
    peaks = [max(each.load_gib, each.peak_gib) for each in stages] + [run["peak_gib"] for run in runs]
    print(json.dumps({
        "stages": sum(entry["kept"] > 0 for entry in counts) or sum(not each.error for each in stages),
        "failed": len(faults) + sum(entry["failed"] for entry in counts),
        "peak_gib": round(max(peaks, default=0.0), 2),
        "vlm_families": [family.family for family in families if not family.error and not family.faults],
        "whole_run_s": {run["pipeline"]: round(run["seconds"], 1) for run in runs},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
