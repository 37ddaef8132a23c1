"""Face embeddings by any ArcFace-type ONNX model: an aligned face of 112 px in, one vector out."""

import os

import numpy as np

from curation.errors import ConfigError
from curation.models import Models
from curation.settings.people import OnnxEmbedderSettings


class OnnxFaceEmbedder:
    """A FaceEmbedder."""

    def __init__(self, settings: OnnxEmbedderSettings, models: Models) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("PERSONA_THREADS", "1"))
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        available = onnxruntime.get_available_providers()
        wanted = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
        path = models[settings.model].path
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=wanted)
        except Exception as error:  # onnxruntime has no public base class for its errors
            first = str(error).splitlines()[0]
            raise ConfigError(f"model {settings.model}: {path} is no usable ONNX model: {first}") from None
        self._input = self._session.get_inputs()[0].name
        self._settings = settings

    def embed(self, faces: np.ndarray) -> np.ndarray:
        """In batches; with `flip`, the sum of a face and its mirror image; vectors of length 1."""
        vectors = []
        for start in range(0, len(faces), self._settings.batch_size):
            batch = faces[start : start + self._settings.batch_size]
            total = self._run(batch)
            if self._settings.flip:
                total = total + self._run(batch[:, :, ::-1])
            vectors.append(total)
        stacked = np.concatenate(vectors)
        return np.asarray(stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-9))

    def _run(self, batch: np.ndarray) -> np.ndarray:
        if self._settings.colour == "bgr":
            batch = batch[..., ::-1]
        values = (batch.astype(np.float32) - self._settings.mean) / self._settings.scale
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2), dtype=np.float32)
        return np.asarray(self._session.run(None, {self._input: values})[0], dtype=np.float32)
