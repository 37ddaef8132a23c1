"""`python benchmarks/full_size.py`: the production pipeline at full size, on a CPU, with random weights.

Each backend of `visual-persona-500k` is built by itself from weights of the published size and asked by its
Protocol about eight photos: seconds, shapes, memory. Then `persona curate visual-persona-500k` takes the same
photos through all stages, and judge and captioner ask a real vLLM, in three or more model families
(`vlm_rehearsal.py`). Random weights find nobody, so people are given: around the faces that YuNet finds. The
detector runs, and its answer is not used. Last line: JSON.

    python benchmarks/full_size.py --out runs/full-size
"""

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.full_size_weights import WRITERS
from benchmarks.live_tensors import LiveTensors
from benchmarks.process_cost import cost_of
from benchmarks.vlm_families import FAMILIES
from benchmarks.vlm_rehearsal import rehearse_family
from curation.backends import build_backend
from curation.errors import one_line
from curation.models import Model, Models
from curation.people.atr import encode_map
from curation.people.boxes import whole_box
from curation.people.face import align_face
from curation.people.face_yunet import YunetFaceFinder
from curation.people.protocols import Detections, Face, PersonView
from curation.people.ultralytics_backends import UltralyticsDetector
from curation.photos.decode import decode_rgb
from curation.pipeline_file import load_pipeline
from curation.settings import PipelineSettings
from curation.settings.people import UltralyticsSettings, YunetSettings

PIPELINE = "visual-persona-500k"
ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30
_REAL = (
    "test_obama1", "test_obama_and_biden", "train_biden_biden", "train_biden_biden2", "train_obama_obama",
    "train_obama_obama2",
)  # fmt: skip
_ENLARGED_PX = (5060, 10200)  # longer sides: 19 and 59 million pixels; photos.screen lets 64 million in
_NOBODY = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
_KINDS = {
    "detect": "detector", "face.find": "face_finder", "face.embed": "face_embedder", "segment": "segmenter",
    "regions": "parser",
}  # fmt: skip


# --- photos and the people on them --------------------------------------------------------------------


def write_photos(folder: Path, yunet: Path, real: Path) -> dict[str, list[dict[str, Any]]]:
    """Eight photos, and who is on each, by `pixels_key`: `box` [4] and `joints` [17, 3] in px of the photo.

    Where YuNet's weights and real photos lie, two samples of ultralytics, enlarged, and six of those; people are
    given around the faces that YuNet finds. Else drawn photos with their true people, two of them enlarged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = {}
    files = [file for name in _REAL if (file := real / f"{name}.jpg").exists()]
    if yunet.exists() and len(files) == len(_REAL):
        import ultralytics

        finder = YunetFaceFinder(
            YunetSettings(model="yunet", floor=0.8), {"yunet": Model("yunet", str(yunet), "", "")}
        )
        samples = Path(ultralytics.__file__).parent / "assets"
        for file, longer_px in [*((file, 0) for file in files), *zip(
            (samples / "bus.jpg", samples / "zidane.jpg"), _ENLARGED_PX, strict=True
        )]:  # fmt: skip
            photo = _written(folder / file.name, cv2.imread(str(file)), longer_px)
            given[pixels_key(photo)] = people_around(finder.find(photo, _NOBODY), *photo.shape[1::-1])
        return given
    for number, drawn in enumerate(itertools.islice(_drawn(), 8)):
        image, longer_px = drawn.image, [*_ENLARGED_PX, *[0] * 6][number]
        photo = _written(folder / f"drawn{number}.jpg", image[..., ::-1], longer_px)
        scale = photo.shape[0] / image.shape[0]
        given[pixels_key(photo)] = [
            {
                "box": (person.box * scale).tolist(),
                "joints": (person.keypoints * [scale, scale, 0.5]).tolist(),
            }
            for person in drawn.people
        ]
    return given


def _drawn() -> Iterator[Any]:
    from demo.world import make_world, render

    for plan in make_world(1, 100).photos:
        drawn = render(plan)
        if any(person.face_visible for person in drawn.people):
            yield drawn


def _written(file: Path, bgr: np.ndarray, longer_px: int) -> np.ndarray:
    """The photo as the product decodes it, after it was enlarged (0: as it is) and written."""
    if longer_px:
        scale = longer_px / max(bgr.shape[:2])
        bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(file), bgr)
    return decode_rgb(file.read_bytes())


def people_around(faces: Sequence[Face], width: int, height: int) -> list[dict[str, Any]]:
    """A body of eight faces' height below each face; joints outside of the photo are not seen."""
    people = []
    for face in faces:
        x0, y0, x1, y1 = (float(value) for value in face.box)
        wide, high, middle = x1 - x0, y1 - y0, (x0 + x1) / 2
        right_eye, left_eye, nose = face.points[:3]
        joints = [nose, left_eye, right_eye, (x1, left_eye[1]), (x0, right_eye[1])]
        for down in (1.6, 2.8, 3.8, 4.0, 5.8, 7.5):  # shoulders, elbows, wrists, hips, knees, ankles
            joints += [(middle + side * 0.8 * wide, y0 + down * high) for side in (1, -1)]
        seen = [(float(x), float(y), 0.9 if 0 <= x < width and 0 <= y < height else 0.1) for x, y in joints]
        box = (middle - 1.6 * wide, y0 - 0.4 * high, middle + 1.6 * wide, y0 + 8 * high)
        people.append({"box": whole_box(box, width, height).tolist(), "joints": seen})
    return people


def pixels_key(photo: np.ndarray) -> str:
    """What a photo is found again by."""
    return hashlib.sha256(photo.tobytes()).hexdigest()


class GivenPeople:
    """A PersonDetector that asks the real one, and answers with the people of a file instead.

    Options: `given` (the file), and those of the backend `ultralytics`.
    """

    def __init__(self, settings: Any, models: Models) -> None:
        options = dict(settings.options)
        self._given: dict[str, Any] = json.loads(Path(options.pop("given")).read_text())
        asked = UltralyticsSettings(model=settings.model, batch_size=settings.batch_size, **options)
        self._detector = UltralyticsDetector(asked, models)

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        """Given boxes, each with a score of 0.99."""
        self._detector.detect(photos)
        return [_detections(self._given[pixels_key(photo)]) for photo in photos]



# --- memory --------------------------------------------------------------------------------------------


def resident_gib(name: str) -> float:
    """`VmRSS` (now) or `VmHWM` (at most, since `forget_peak`) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / GIB


def forget_peak() -> None:
    """VmHWM begins anew (Linux, proc_pid_clear_refs(5))."""
    Path("/proc/self/clear_refs").write_text("5")


# --- each backend by itself ----------------------------------------------------------------------------


@dataclass
class StageReport:
    """One backend, alone in a process; GiB. `error`: why it did not answer.

    parameter_gib   of its weights as they are computed with: float32
    load_gib        of the process at most while it loads; `start_gib`: before
    peak_gib        of the process at most while it answers
    tensors_gib     `LiveTensors` of the largest call
    """

    stage: str
    backend: str
    model: str
    random: bool = True
    parameters: int = 0
    parameter_gib: float = 0.0
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


@dataclass(frozen=True)
class Place:
    """Where a rehearsal lies."""

    folder: Path

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    @property
    def weights(self) -> Path:
        return self.folder / "weights"

    @property
    def given(self) -> Path:
        return self.folder / "given.json"

    def pipeline(self, name: str = PIPELINE) -> PipelineSettings:
        """The pipeline over these photos and weights."""
        places = [f"models.path={self.weights}", "source.kind=folder", f"source.path={self.photos}"]
        return load_pipeline(str(ROOT / "pipelines.yaml"), name, places)

    def shown(self) -> list[tuple[np.ndarray, list[dict[str, Any]]]]:
        """Each photo, and who is given on it."""
        given = json.loads(self.given.read_text())
        photos = [decode_rgb(file.read_bytes()) for file in sorted(self.photos.iterdir())]
        return [(photo, given[pixels_key(photo)]) for photo in photos]


def ask_backend(stage: str, backend: Any, settings: Any, place: Place, few: int) -> tuple[int, str, str]:
    """Asks one backend as its stage does. → (how many, of what, the answers' shapes in words).

    `few`: photos that are shown to a segmenter, the one with most people and the largest among them.
    """
    shown = place.shown()
    if stage == "detect":
        photos = [photo for photo, _ in shown]
        answers = backend.detect(photos[: settings.batch_size])
        found = [f"{len(a.boxes)} boxes{'' if a.keypoints is None else ' with 17 joints'}" for a in answers]
        return len(answers), "photo", ", ".join(sorted(set(found)))
    if stage == "face.find":
        faces = [backend.find(photo, _detections(people)) for photo, people in shown]
        return len(faces), "photo", f"{sum(map(len, faces))} faces"
    if stage == "face.embed":
        aligned = [align_face(photo, _face_points(p)) for photo, people in shown for p in people]
        vectors = backend.embed(np.stack(aligned))
        return len(vectors), "face", f"{vectors.dtype} {list(vectors.shape)}"
    if stage == "segment":
        by_people = sorted(shown, key=lambda each: (-len(each[1]), each[0].size))
        largest = max(shown, key=lambda each: each[0].size)
        chosen = [largest, *(each for each in by_people if each is not largest)][: max(few, 1)]
        masks = [
            mask for photo, people in chosen for mask in backend.segment(photo, _boxes(photo, people))
        ]
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


def _detections(people: list[dict[str, Any]]) -> Detections:
    return Detections(
        np.array([person["box"] for person in people], np.float32).reshape(-1, 4),
        np.full(len(people), 0.99, np.float32),
        np.array([person["joints"] for person in people], np.float32).reshape(-1, 17, 3),
    )


def _face_points(person: dict[str, Any]) -> np.ndarray:
    """Five points of a face, as far as joints tell them: the mouth lies below the eyes and the nose."""
    nose, left, right = (np.array(person["joints"][i][:2]) for i in range(3))
    down = 2 * (nose - (left + right) / 2)
    return np.stack([right, left, nose, right + down, left + down])


def measure_backend(stage: str, place: Place, few: int) -> StageReport:
    """Loads one backend of the pipeline and asks it twice: for the time, and for the tensors."""
    settings = _settings_of(stage, place.pipeline())
    report = StageReport(stage, settings.backend, settings.model, random=settings.model in WRITERS)
    models = {settings.model: Model(settings.model, str(_file(place, settings.model)), "0" * 64, "none")}
    torch.set_num_threads(1)
    report.start_gib = resident_gib("VmRSS")
    forget_peak()
    began = time.monotonic()
    try:
        backend = build_backend(_KINDS[stage], settings, models)
        report.load_s = round(time.monotonic() - began, 2)
        report.load_gib = resident_gib("VmHWM")
        forget_peak()
        began = time.monotonic()
        report.asked, report.unit, report.answers = ask_backend(stage, backend, settings, place, few)
        report.unit_s = round((time.monotonic() - began) / report.asked, 3)
        report.peak_gib = resident_gib("VmHWM")
        if stage not in ("face.find", "face.embed"):
            with LiveTensors() as live:
                ask_backend(stage, backend, settings, place, 1)
            report.tensors_gib = live.peak / GIB
    except Exception as error:  # whatever it is, it is a finding
        report.error = f"{type(error).__name__}: {one_line(error)}"
    return report


def _settings_of(stage: str, pipeline: PipelineSettings) -> Any:
    people = pipeline.people
    return {
        "detect": people.detect.by,
        "face.find": people.face.find,
        "face.embed": people.face.embed,
        "segment": people.segment.by,
        "regions": people.regions.by,
    }[stage]


def _file(place: Place, card: str) -> Path:
    return place.weights / place.pipeline().models.cards[card].file


# --- the whole pipeline --------------------------------------------------------------------------------


def curate(place: Place, endpoint: str) -> dict[str, Any]:
    """`persona curate` over the photos, with a server that is up. → its summary, `seconds` and `peak_gib`.

    What random weights would rule out is let through: regions, masks, cosines, the judge's answer.
    """
    detect = place.pipeline().people.detect.by
    given = {
        "backend": "benchmarks.full_size:GivenPeople",
        "model": detect.model,
        "batch_size": detect.batch_size,
        "options": {"given": str(place.given), "image_px": detect.image_px},
    }
    run = place.folder / "run"
    changes = [
        f"models.path={place.weights}", "source.kind=folder", f"source.path={place.photos}",
        f"people.detect.by={json.dumps(given)}", "people.full_body=any", "people.segment.min_mask_share=0",
        "people.regions.min_regions=0", "people.resources.num_gpus=0", "people.resources.workers=1",
        "identities.link_cosine=-1", "identities.merge_cosine=-1", "identities.prototype_cosine=-1",
        "identities.false_links=null", "outfits.judge.cut=0", "engine.max_failed_share=1",
        *(f"{role}.{key}" for role in ("outfits.judge", "captions.by")
          for key in (f"endpoint={endpoint}", "dtype=float32", "in_flight=4")),
    ]  # fmt: skip
    words = [word for change in changes for word in ("--set", change)]
    command = [
        sys.executable, "-m", "persona", "curate", PIPELINE, "--config", str(ROOT / "pipelines.yaml"),
        "--out", str(run), "--engine", "inline", "--json", "--quiet", "--allow-empty", *words,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PERSONA_THREADS": os.environ["PERSONA_THREADS"]}
    cost = cost_of(command, environment)
    summary = dict(json.loads(cost.output.splitlines()[-1]))
    return {**summary, "seconds": cost.wall_s, "peak_gib": cost.peak_bytes / GIB}


def people_rows(place: Place) -> list[dict[str, Any]]:
    """Three people of three photos, as the phase `outfits` hands them to a judge."""
    rows = []
    for file in sorted(place.photos.iterdir(), key=lambda file: file.stat().st_size)[:3]:
        data = file.read_bytes()
        photo = decode_rgb(data)
        person = json.loads(place.given.read_text())[pixels_key(photo)][0]
        x0, y0, x1, y1 = whole_box(person["box"], photo.shape[1], photo.shape[0])
        photo_id = hashlib.sha256(data).hexdigest()
        rows.append({
            "person_id": f"{photo_id}-0", "photo_id": photo_id, "source_key": file.name, "uri": str(file),
            "offset": None, "length": None, "row": None, "orientation": 1, "box": person["box"],
            "mask": encode_map(np.full((y1 - y0, x1 - x0), 255, np.uint8)),
        })  # fmt: skip
    return rows


# --- the command ---------------------------------------------------------------------------------------


def prepare(place: Place, shared: Path) -> None:
    """Photos, given people and weights, unless they are there."""
    place.weights.mkdir(parents=True, exist_ok=True)
    cards = place.pipeline().models.cards
    yunet = place.weights / cards["yunet"].file
    if not yunet.exists() and (shared / "models" / yunet.name).exists():
        yunet.symlink_to(shared / "models" / yunet.name)
    for card, write in WRITERS.items():
        file = place.weights / cards[card].file
        if not file.exists():
            print(f"{card}: {write(file) / 1e6:.1f} million random weights", flush=True)
    if not place.given.exists():
        given = write_photos(place.photos, yunet, shared / "photos")
        place.given.write_text(json.dumps(given))


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
        "| stage | backend | weights | parameters | float32, GiB | load, s | loading, GiB | seconds "
        "| answering, GiB | tensors, GiB | answers |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in reports:
        lines.append(
            f"| {each.stage} | `{each.backend}` | {'random' if each.random else 'real'} "
            f"| {each.parameters / 1e6:.1f} M | {4 * each.parameters / GIB:.2f} | {each.load_s:.1f} "
            f"| {each.load_gib:.2f} | {each.unit_s:.2f} a {each.unit} | {each.peak_gib:.2f} "
            f"| {each.tensors_gib:.2f} | {each.error or each.answers} |"
        )
    return lines


def main() -> None:
    """Rehearses, and prints tables and a line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "full-size")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "real", help="photos, models")
    parser.add_argument("--stages", nargs="*", default=list(_KINDS), help="backends to be measured alone")
    parser.add_argument("--segment-photos", type=int, default=2, help="that the segmenter alone is shown")
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
    run: dict[str, Any] = {}
    families = []
    for number, name in enumerate(given.families):
        then = (lambda url: run.update(curate(place, url))) if number == 0 else None
        family = rehearse_family(name, people_rows(place), str(place.photos), place.folder, then)
        families.append(family)
        print(json.dumps(asdict(family), ensure_ascii=False), flush=True)
    counts = run.get("stages", [])
    for entry in counts:
        print(f"{entry['phase']:10} {entry['stage']:12} {entry['in']:4} {entry['kept']:4} "
              f"{entry['rejected']:4} {entry['failed']:4}  {entry['reasons']}")  # fmt: skip
    faults = [each.error for each in (*stages, *families) if each.error]
    faults += [fault for family in families for fault in family.faults]
    print("\n".join(faults))
    print(json.dumps({
        "stages": sum(entry["kept"] > 0 for entry in counts) or sum(not each.error for each in stages),
        "failed": len(faults) + sum(entry["failed"] for entry in counts),
        "peak_gib": round(max([*(max(each.load_gib, each.peak_gib) for each in stages),
                               run.get("peak_gib", 0.0)]), 2),
        "vlm_families": [family.family for family in families if not family.error and not family.faults],
        "whole_run_s": round(run.get("seconds", 0.0), 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
