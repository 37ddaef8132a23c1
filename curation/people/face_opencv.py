"""Faces by OpenCV: found by YuNet at several scales and merged, embedded by SFace."""

import cv2
import numpy as np

from curation.errors import ConfigError, one_line
from curation.models import Models
from curation.people.protocols import Detections, Face
from curation.settings.people import SfaceSettings, YunetSettings

_NMS_IOU = 0.3
_TOP = 500
_SFACE_NUMBERS = 128
_ALIGNED_PX = 112


class YunetFaceFinder:
    """A FaceFinder. Every scale is a square canvas, so that the network is laid out once for each."""

    def __init__(self, settings: YunetSettings, models: Models) -> None:
        # OpenCV 5 warns about its new graph engine at every start.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        path = models[settings.model].path
        self._floor = settings.floor
        try:
            self._scales = [
                (
                    side,
                    cv2.FaceDetectorYN.create(path, "", (side, side), settings.floor, _NMS_IOU, _TOP),
                )
                for side in sorted(set(settings.scales_px))
            ]
        except cv2.error as error:
            raise ConfigError(
                f"model {settings.model}: {path} is no usable YuNet: {one_line(error)}"
            ) from None

    def find(self, photo: np.ndarray, people: Detections) -> list[Face]:
        """The faces of all scales; of two that overlap the better one. It looks at pixels only."""
        found: list[Face] = []
        longer = max(photo.shape[:2])
        for side, network in self._scales:
            scale = side / longer
            size = (max(round(photo.shape[1] * scale), 1), max(round(photo.shape[0] * scale), 1))
            canvas = np.zeros((side, side, 3), np.uint8)
            shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            canvas[: size[1], : size[0]] = cv2.resize(photo, size, interpolation=shrink)[..., ::-1]
            _, rows = network.detect(canvas)
            if rows is None:
                continue
            back = np.array([photo.shape[1] / size[0], photo.shape[0] / size[1]])
            for row in rows.astype(np.float64):
                corner, extent = row[:2] * back, row[2:4] * back
                points = row[4:14].reshape(5, 2) * back
                found.append(Face(np.concatenate([corner, corner + extent]), points, float(row[14])))
        found.sort(key=lambda face: (-face.score, *face.box.tolist()))
        kept: list[Face] = []
        for face in found:
            if all(_iou(face.box, other.box) <= _NMS_IOU for other in kept):
                kept.append(face)
        return kept


class SfaceEmbedder:
    """A FaceEmbedder by `cv2.FaceRecognizerSF`.

    Its own `alignCrop` maps the five points onto ArcFace's template of 112 px (OpenCV,
    modules/objdetect/src/face_recognize.cpp): the faces that it is given lie there already.
    """

    def __init__(self, settings: SfaceSettings, models: Models) -> None:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        path = models[settings.model].path
        self._flip = settings.flip
        try:
            self._network = cv2.FaceRecognizerSF.create(path, "")
            numbers = self._network.feature(np.zeros((_ALIGNED_PX, _ALIGNED_PX, 3), np.uint8)).shape
        except cv2.error as error:
            raise ConfigError(
                f"model {settings.model}: {path} is no usable SFace: {one_line(error)}"
            ) from None
        if numbers != (1, _SFACE_NUMBERS):
            raise ConfigError(
                f"model {settings.model}: {path} answers with {list(numbers)} numbers for a face, SFace with "
                f"{_SFACE_NUMBERS}; another network is for the backend onnx"
            )

    def embed(self, faces: np.ndarray) -> np.ndarray:
        """uint8 [n, 112, 112, 3] RGB → float32 [n, 128], length 1; `flip` adds that of the mirror image."""
        vectors = np.stack([self._vector(face) for face in faces])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)

    def _vector(self, face: np.ndarray) -> np.ndarray:
        vector = self._feature(face)
        return vector + self._feature(face[:, ::-1]) if self._flip else vector

    def _feature(self, face: np.ndarray) -> np.ndarray:
        # It takes BGR and turns it into RGB of 0 to 255; what it gives is overwritten by the next call.
        return np.array(self._network.feature(np.ascontiguousarray(face[..., ::-1]))[0], np.float32)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (sides <= 0).any():
        return 0.0
    shared = float(sides.prod())
    return shared / (float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - shared)
