"""One backend of the production pipeline at full size, alone in a process: seconds, memory, answers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.full_size_photos import COMMERCIAL, ROOT, Place, detections_of
from benchmarks.full_size_weights import WRITERS
from benchmarks.live_tensors import LiveTensors
from curation.backends import build_backend
from curation.errors import one_line
from curation.models import Model
from curation.people.boxes import whole_box
from curation.people.face import align_face
from curation.people.protocols import PersonView

GIB = 2**30
STAGES = {
    "detect": "detector",
    "face.find": "face_finder",
    "face.embed": "face_embedder",
    "segment": "segmenter",
    "regions": "parser",
    "detect.d_fine": "detector",
    "detect.joints": "joints",
    "segment.sam2": "segmenter",
}
"""{place in the phase `people`: kind of backend}; the last three are of `visual-persona-commercial`."""


@dataclass
class StageReport:
    """One backend, alone in a process; GiB, and seconds of all its threads on a processor.

    error         why it did not answer
    load_gib      of the process at most while it loads; `start_gib`: before
    peak_gib      of the process at most while it answers
    tensors_gib   of tensors beside the weights at most (`LiveTensors`); 0 of face backends: they use no torch
    """

    stage: str
    backend: str
    model: str
    random: bool = True
    parameters: int = 0
    start_gib: float = 0.0
    load_s: float = 0.0
    load_gib: float = 0.0
    asked: int = 0
    unit: str = "photo"
    unit_s: float = 0.0
    peak_gib: float = 0.0
    tensors_gib: float = 0.0
    answers: str = ""
    error: str = ""


def ask_backend(stage: str, backend: Any, place: Place, few: int) -> tuple[int, str, str]:
    """Asks one backend as its stage does. → (how many, of what, the answers' shapes in words).

    `few`: photos that are shown to a segmenter, the one with most people and the largest among them.
    """
    shown = place.shown()
    if stage in ("detect", "detect.d_fine"):
        answers = backend.detect([photo for photo, _ in shown])
        found = [f"{len(a.boxes)} boxes{'' if a.keypoints is None else ' with 17 joints'}" for a in answers]
        return len(answers), "photo", ", ".join(sorted(set(found)))
    if stage == "face.find":
        faces = [backend.find(photo, detections_of(people)) for photo, people in shown]
        return len(faces), "photo", f"{sum(map(len, faces))} faces"
    if stage == "face.embed":
        aligned = [align_face(photo, _face_points(p)) for photo, people in shown for p in people]
        vectors = backend.embed(np.stack(aligned))
        return len(vectors), "face", f"{vectors.dtype} {list(vectors.shape)}"
    if stage == "detect.joints":
        joints = [backend.joints(photo, _boxes(photo, people).astype(np.float32)) for photo, people in shown]
        return sum(map(len, joints)), "person", f"{joints[0].dtype} {list(joints[0].shape[1:])}"
    if stage.startswith("segment"):
        by_people = sorted(shown, key=lambda each: (-len(each[1]), each[0].size))
        largest = max(shown, key=lambda each: each[0].size)
        chosen = [largest, *(each for each in by_people if each is not largest)][: max(few, 1)]
        masks = [mask for photo, people in chosen for mask in backend.segment(photo, _boxes(photo, people))]
        return len(chosen), "photo", f"{len(masks)} masks, {masks[0].dtype}"
    maps = [labels for photo, people in shown for labels in backend.parse(photo, _views(photo, people))]
    return len(maps), "person", f"{len(maps)} maps, {maps[0].dtype}, labels to {max(m.max() for m in maps)}"


def _boxes(photo: np.ndarray, people: list[dict[str, Any]]) -> np.ndarray:
    return np.stack([whole_box(person["box"], photo.shape[1], photo.shape[0]) for person in people])


def _views(photo: np.ndarray, people: list[dict[str, Any]]) -> list[PersonView]:
    return [
        PersonView(box, np.ones((box[3] - box[1], box[2] - box[0]), bool), np.array(person["joints"]), None)
        for box, person in zip(_boxes(photo, people), people, strict=True)
    ]


def _face_points(person: dict[str, Any]) -> np.ndarray:
    """Five points of a face, as far as joints tell them: the mouth lies below the eyes and the nose."""
    nose, left, right = (np.array(person["joints"][i][:2]) for i in range(3))
    down = 2 * (nose - (left + right) / 2)
    return np.stack([right, left, nose, right + down, left + down])


def measure_backend(stage: str, place: Place, few: int) -> StageReport:
    """Loads one backend and asks it, in this process."""
    settings = _settings_of(stage, place)
    report = StageReport(stage, settings.backend, settings.model, random=settings.model in WRITERS)
    report.parameters = place.parameters().get(settings.model, 0)
    file = str(place.weights / place.files().get(settings.model, settings.model))
    report.start_gib = resident_gib("VmRSS")
    forget_peak()
    began = time.process_time()
    try:
        backend = build_backend(
            STAGES[stage], settings, {settings.model: Model(settings.model, file, "0" * 64, "none")}
        )
        report.load_s = time.process_time() - began
        report.load_gib = resident_gib("VmHWM")
        forget_peak()
        with nullcontext() if stage.startswith("face") else LiveTensors() as live:
            began = time.process_time()
            report.asked, report.unit, report.answers = ask_backend(stage, backend, place, few)
            report.unit_s = (time.process_time() - began) / report.asked
        report.peak_gib = resident_gib("VmHWM")
        report.tensors_gib = live.peak / GIB if live else 0.0
    except Exception as error:  # whatever it is, it is a finding
        report.error = f"{type(error).__name__}: {one_line(error)}"
    return report


def _settings_of(stage: str, place: Place) -> Any:
    people, commercial = place.pipeline().people, place.pipeline(COMMERCIAL).people
    return {
        "detect": people.detect.by,
        "face.find": people.face.find,
        "face.embed": people.face.embed,
        "segment": people.segment.by,
        "regions": people.regions.by,
        "detect.d_fine": commercial.detect.by,
        "detect.joints": commercial.detect.joints,
        "segment.sam2": commercial.segment.by,
    }[stage]


def resident_gib(name: str) -> float:
    """`VmRSS` (now) or `VmHWM` (at most, since `forget_peak`) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / GIB


def forget_peak() -> None:
    """VmHWM begins anew (Linux, proc_pid_clear_refs(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def measured_alone(stage: str, place: Place, few: int) -> StageReport:
    """`measure_backend` in a process of its own, so that memory is the backend's."""
    command = [sys.executable, "-m", "benchmarks.full_size", "--out", str(place.folder), "--measure", stage]
    done = subprocess.run(
        [*command, "--segment-photos", str(few)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.splitlines() or ["nothing was said"])[-1]
        return StageReport(stage, "", "", error=f"ended with code {done.returncode}: {last}")
    return StageReport(**json.loads(done.stdout.splitlines()[-1]))


def stage_lines(reports: Sequence[StageReport]) -> list[str]:
    """The table of the backends."""
    lines = [
        "| stage | backend | weights | parameters | float32, GiB | load, CPU s | loading, GiB | CPU seconds "
        "| answering, GiB | tensors, GiB | answers |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.stage} | `{each.backend}` | {'random' if each.random else 'real'} "
        f"| {each.parameters / 1e6:.1f} M | {4 * each.parameters / GIB:.2f} | {each.load_s:.1f} "
        f"| {each.load_gib:.2f} | {each.unit_s:.2f} a {each.unit} | {each.peak_gib:.2f} "
        f"| {each.tensors_gib:.2f} | {each.error or each.answers} |"
        for each in reports
    ]
    return lines
