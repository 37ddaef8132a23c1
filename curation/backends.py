"""The backends by name. One is imported when a pipeline chooses it, not before.

To add one: write a class that keeps the Protocol of its kind, built as Class(settings, models), and
name it here, or name it in pipelines.yaml as `backend: package.module:Class`.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

from curation.engine import Job
from curation.errors import ConfigError
from curation.meters import CallCounter
from curation.models import Models
from curation.settings import PipelineSettings
from curation.settings.base import chosen_backends
from edges.extras import install_line
from edges.import_path import imported


@dataclass(frozen=True)
class Backend:
    """Where a backend's class is, and the licence of the code that it runs.

    extra  of persona that installs what it imports, and the name of that package; None: in `curation`
    """

    target: str
    licence: str
    commercial: bool = True
    extra: str | None = None


BACKENDS: dict[str, Backend] = {
    "detector.ultralytics": Backend(
        "curation.people.ultralytics_backends:UltralyticsDetector", "AGPL-3.0", False, "ultralytics"
    ),
    "detector.transformers_detect": Backend(
        "curation.people.transformers_backends:TransformersDetector", "Apache-2.0"
    ),
    "detector.blazepose": Backend("curation.people.blazepose:BlazePose", "Apache-2.0"),
    "joints.blazepose": Backend("curation.people.blazepose:BlazePose", "Apache-2.0"),
    "joints.vitpose": Backend("curation.people.transformers_backends:Vitpose", "Apache-2.0"),
    "face_finder.yunet": Backend("curation.people.face_opencv:YunetFaceFinder", "Apache-2.0"),
    "face_finder.keypoints": Backend("curation.people.face_keypoints:KeypointsFaceFinder", "ours"),
    "face_embedder.onnx": Backend("curation.people.face_onnx:OnnxFaceEmbedder", "MIT"),
    "face_embedder.sface": Backend("curation.people.face_opencv:SfaceEmbedder", "Apache-2.0"),
    "segmenter.segment_anything": Backend("curation.people.segment_sam:SegmentAnything", "Apache-2.0"),
    "segmenter.sam2": Backend("curation.people.segment_sam:Sam2", "Apache-2.0"),
    "segmenter.ultralytics_sam": Backend(
        "curation.people.ultralytics_backends:UltralyticsSam", "AGPL-3.0", False, "ultralytics"
    ),
    "segmenter.blazepose": Backend("curation.people.blazepose:BlazePose", "Apache-2.0"),
    "segmenter.grabcut": Backend("curation.people.segment_grabcut:Grabcut", "Apache-2.0"),
    "parser.segformer": Backend("curation.people.transformers_backends:SegformerParser", "Apache-2.0"),
    "parser.geometric": Backend("curation.people.parse_geometric:GeometricParser", "ours"),
    "classifier.transformers": Backend(
        "curation.people.transformers_backends:TransformersClassifier", "Apache-2.0"
    ),
    "judge.appearance": Backend("curation.outfits.appearance_judge:AppearanceJudge", "ours"),
    "judge.vllm": Backend("curation.vlm.judge:VlmJudge", "Apache-2.0"),
    "judge.transformers": Backend("curation.vlm.judge:VlmJudge", "Apache-2.0"),
    "captioner.plain": Backend("curation.captions.captioner:PlainCaptioner", "ours"),
    "captioner.vllm": Backend("curation.vlm.captioner:VlmCaptioner", "Apache-2.0"),
    "captioner.transformers": Backend("curation.vlm.captioner:VlmCaptioner", "Apache-2.0"),
}


def check_backends(pipeline: PipelineSettings, commercial: bool) -> None:
    """Before anything starts: refuses backends that cannot be made, or whose licence forbids it.

    A plugin states no licence, so `commercial` leaves it to its user. Raises ConfigError.
    """
    for path, kind, settings in chosen_backends(pipeline):
        name = settings.backend
        if ":" in name:
            _import(name)
            continue
        backend = BACKENDS[f"{kind}.{name}"]
        if commercial and not backend.commercial:
            raise ConfigError(f"--commercial: {path}: the backend {name} is under {backend.licence}")
        if backend.extra is not None and find_spec(backend.extra) is None:
            raise ConfigError(
                f"{path}: the backend {name} needs the package {backend.extra}: {install_line(backend.extra)}"
            )


@runtime_checkable
class JoinsRun(Protocol):
    """A judge or captioner that needs more than its settings and weights: the photos, the run folder."""

    def join_run(self, job: Job, phase: str, calls: CallCounter) -> None:
        """Called once, before it is first asked. `phase` is the folder of its phase."""
        ...


class OnFirstUse:
    """A backend that loads its weights when it is first asked: a moved threshold loads none."""

    def __init__(self, kind: str, settings: Any, models: Models) -> None:
        self._how = (kind, settings, models)
        self._backend: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._backend is None:
            self._backend = build_backend(*self._how)
        return getattr(self._backend, name)


def build_backend(kind: str, settings: Any, models: Models) -> Any:
    """Makes the backend that `settings.backend` names. Raises ConfigError when it cannot be made."""
    name = settings.backend
    return _import(name if ":" in name else BACKENDS[f"{kind}.{name}"].target)(settings, models)


def _import(target: str) -> Any:
    try:
        return imported(target)
    except ImportError as error:
        nowhere = error.name == target.partition(":")[0].partition(".")[0]
        hint = "; its folder must be in PYTHONPATH" if nowhere else ""
        raise ConfigError(f"backend {target}: {error}{hint}") from error
