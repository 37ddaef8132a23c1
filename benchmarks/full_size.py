"""`python benchmarks/full_size.py`: the production pipeline at full size, on a CPU, with random weights.

Each backend of `visual-persona-500k` and `visual-persona-commercial` is built by itself from weights of the
published size and asked by its Protocol about eight photos: seconds, shapes, memory. Then judge and captioner
ask a real vLLM, in four model families (`vlm_rehearsal.py`), and `persona curate` takes the same photos, or
the smallest of them, through all stages of both pipelines. Random weights find nobody, so people are given:
around the faces that YuNet finds. The detector runs, and its answer is not used. Last line: JSON.

A backend, pipeline or family that ended without a fault is kept in OUT/results.json as long as the code that
it ran is the same, so that a start after a kill measures the others alone. A killed run of a pipeline goes on
in its folder: its peak is then that of the last start, and its seconds are null. Another OUT measures anew.

    python benchmarks/full_size.py --out runs/full-size
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.full_size_backends import (
    GIB,
    STAGES,
    StageReport,
    measure_backend,
    measured_alone,
    stage_lines,
)
from benchmarks.full_size_photos import (
    COMMERCIAL,
    PIPELINE,
    ROOT,
    Place,
    people_rows,
    write_photos,
)
from benchmarks.full_size_weights import WRITERS
from benchmarks.kept_results import KeptResults, code_hash
from benchmarks.process_cost import cost_of
from benchmarks.vlm_families import FAMILIES
from benchmarks.vlm_rehearsal import CARD, FamilyReport, rehearse_family

_CODE = (
    "benchmarks/full_size*.py", "benchmarks/vlm_*.py", "benchmarks/process_cost.py",
    "curation/**/*.py", "shards/**/*.py", "edges/**/*.py", "pipelines.yaml", "requirements/cpu.txt",
)  # fmt: skip
"""What runs, libraries too; a part that was measured on other bytes of these is measured anew."""


class Parts:
    """What was measured before on the same code, by kind and name."""

    def __init__(self, folder: Path) -> None:
        self._kept = KeptResults(folder)
        files = {str(file.relative_to(ROOT)) for each in _CODE for file in ROOT.glob(each)}
        self._code = code_hash(ROOT, files)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """A part that ended without a fault."""
        row = self._kept.get(f"{kind} {name}", self._code)
        if row is not None:
            print(f"kept from an earlier start: {kind} {name}", flush=True)
        return row

    def put(self, kind: str, name: str, row: dict[str, Any]) -> None:
        """Keeps one."""
        self._kept.put(f"{kind} {name}", self._code, row)

    def begin_run(self, name: str, folder: Path) -> bool:
        """Whether a killed run of the same code goes on in this folder; any other in it is removed."""
        begun = self._kept.get(f"begun {name}", self._code) is not None and folder.exists()
        if not begun:
            shutil.rmtree(folder, ignore_errors=True)
            self._kept.put(f"begun {name}", self._code, {})
        return begun

    def failed_run(self, folder: Path) -> None:
        """A run that ended with failed rows is no killed one: the next start begins it anew."""
        shutil.rmtree(folder, ignore_errors=True)


def curate(place: Place, name: str, endpoint: str, photos: int, parts: Parts) -> dict[str, Any]:
    """`persona curate NAME` over the smallest photos. → its summary, `pipeline`, `seconds` and `peak_gib`.

    endpoint   of a server that is up
    seconds    None of a run that goes on after a kill
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
    run = place.folder / f"run-{name}-{photos}"
    goes_on = parts.begin_run(f"{name} {photos}", run)
    words = [word for change in changes for word in ("--set", change)]
    command = [
        sys.executable, "-m", "persona", "curate", name, "--config", str(ROOT / "pipelines.yaml"),
        "--out", str(run), "--engine", "inline", "--json", "--quiet",
        "--allow-empty", *words,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PERSONA_THREADS": os.environ["PERSONA_THREADS"]}
    cost = cost_of(command, environment)
    summary = dict(json.loads(cost.output.splitlines()[-1]))
    if any(entry["failed"] for entry in summary["stages"]):
        parts.failed_run(run)
    seconds = None if goes_on else cost.wall_s
    return {**summary, "pipeline": name, "seconds": seconds, "peak_gib": cost.peak_bytes / GIB}


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


def backend_alone(stage: str, place: Place, few: int, parts: Parts) -> StageReport:
    """`measured_alone`, unless it was before."""
    kept = parts.get("backend", f"{stage} {few}")
    if kept is not None:
        return StageReport(**kept)
    print(f"backend {stage} alone", flush=True)
    report = measured_alone(stage, place, few)
    if not report.error:
        parts.put("backend", f"{stage} {few}", asdict(report))
    return report


def family_and_runs(
    name: str,
    place: Place,
    parts: Parts,
    missing: Sequence[str],
    photos: int,
    runs: dict[str, dict[str, Any]],
) -> FamilyReport:
    """`rehearse_family`, unless it was before; the missing pipelines join `runs` while its server is up."""

    def run_missing(url: str) -> None:
        for pipeline in missing:
            print(f"pipeline {pipeline}", flush=True)
            runs[pipeline] = run = curate(place, pipeline, url, photos, parts)
            if not any(entry["failed"] for entry in run["stages"]):
                parts.put("pipeline", f"{pipeline} {photos}", run)

    kept = None if missing else parts.get("family", name)
    if kept is not None:
        return FamilyReport(**kept)
    print(f"family {name}", flush=True)
    family = rehearse_family(name, people_rows(place), str(place.photos), place.folder, run_missing)
    if not family.error and not family.faults:
        parts.put("family", name, asdict(family))
    return family


def run_lines(run: dict[str, Any]) -> list[str]:
    """The funnel of one pipeline."""
    lines = [
        f"{run['pipeline']:26} {entry['phase']:10} {entry['stage']:12} {entry['in']:4} {entry['kept']:4} "
        f"{entry['rejected']:4} {entry['failed']:4}  {entry['reasons']}"
        for entry in run["stages"]
    ]
    took = "went on after a kill" if run["seconds"] is None else f"{run['seconds']:.0f} s"
    return [*lines, f"{run['pipeline']}: {took}, {run['peak_gib']:.2f} GiB"]


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
    parts = Parts(place.folder)
    stages = [backend_alone(stage, place, given.segment_photos, parts) for stage in given.stages]
    print("\n".join(stage_lines(stages)), flush=True)
    known = {name: parts.get("pipeline", f"{name} {given.photos}") for name in given.pipelines}
    runs = {name: run for name, run in known.items() if run is not None}
    families: list[FamilyReport] = []
    for name in given.families:
        missing = [] if families else [each for each in given.pipelines if each not in runs]
        families.append(family_and_runs(name, place, parts, missing, given.photos, runs))
        print(json.dumps(asdict(families[-1]), ensure_ascii=False), flush=True)
    print("\n".join(line for run in runs.values() for line in run_lines(run)))
    faults = [each.error for each in stages if each.error]
    faults += [family.error for family in families if family.error]
    faults += [fault for family in families for fault in family.faults]
    print("\n".join(faults))
    counts = [entry for run in runs.values() for entry in run["stages"]]
    peaks = [max(each.load_gib, each.peak_gib) for each in stages]
    peaks += [run["peak_gib"] for run in runs.values()]
    print(json.dumps({
        "stages": sum(entry["kept"] > 0 for entry in counts) or sum(not each.error for each in stages),
        "failed": len(faults) + sum(entry["failed"] for entry in counts),
        "peak_gib": round(max(peaks, default=0.0), 2),
        "vlm_families": [family.family for family in families if not family.error and not family.faults],
        "whole_run_s": {name: run["seconds"] and round(run["seconds"], 1) for name, run in runs.items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
