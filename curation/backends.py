"""The backends by name. One is imported when a pipeline chooses it, not before.

To add one: write a class that keeps the Protocol of its kind, built as Class(settings, models), and
name it here, or name it in pipelines.yaml as `backend: package.module:Class`.
"""

import importlib
from typing import Any

from curation.errors import ConfigError
from curation.models import Models

BACKENDS: dict[str, str] = {
    "detector.ultralytics": "curation.people.detect_ultralytics:UltralyticsDetector",
    "face_finder.yunet": "curation.people.face_yunet:YunetFaceFinder",
    "face_embedder.onnx": "curation.people.face_onnx:OnnxFaceEmbedder",
    "segmenter.segment_anything": "curation.people.segment_sam:SegmentAnything",
    "segmenter.ultralytics_sam": "curation.people.segment_ultralytics:UltralyticsSam",
    "segmenter.grabcut": "curation.people.segment_grabcut:Grabcut",
    "parser.segformer": "curation.people.parse_segformer:SegformerParser",
    "parser.geometric": "curation.people.parse_geometric:GeometricParser",
    "judge.appearance": "curation.outfits.appearance_judge:AppearanceJudge",
    "captioner.plain": "curation.captions.plain:PlainCaptioner",
}


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
    target = name if ":" in name else BACKENDS[f"{kind}.{name}"]
    module, _, attribute = target.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"backend {name}: cannot be imported: {error}") from error
    return factory(settings, models)
