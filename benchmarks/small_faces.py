"""From which width on a small embedder knows a face again: photos, and faces alone, shrunk step by step.

Prints for each width of the face in px, of the photos and of crops around the face: how many faces YuNet
still finds, and the cosine between the shrunk face and the same face at full size.

    python benchmarks/small_faces.py --photos photos --models weights
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from curation.models import Model
from curation.people.face import align_face
from curation.people.face_onnx import OnnxFaceEmbedder
from curation.people.face_opencv import YunetFaceFinder
from curation.people.protocols import Detections, Face
from curation.settings.people import OnnxEmbedderSettings, YunetSettings

WIDTHS_PX = (16, 24, 32, 40, 48, 56, 64, 80, 112)
CROP_SIDES = 1.4  # of the face's longer side
CERTAIN = 0.8
_NOBODY = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


class Recogniser:
    """YuNet and an embedder as the pipeline `real-photos` has them."""

    def __init__(self, models: Path) -> None:
        files = {"yunet": "face_detection_yunet_2026may.onnx", "mobileface": "mobileface.onnx"}
        cards = {name: Model(name, str(models / file), "0" * 64, "") for name, file in files.items()}
        self._finder = YunetFaceFinder(YunetSettings(model="yunet"), cards)
        self._embedder = OnnxFaceEmbedder(OnnxEmbedderSettings(model="mobileface", mean=0, scale=1), cards)

    def faces(self, photo: np.ndarray) -> list[Face]:
        """Those that are certain."""
        return [face for face in self._finder.find(photo, _NOBODY) if face.score >= CERTAIN]

    def embed(self, photo: np.ndarray, face: Face) -> np.ndarray:
        """float32 [d]."""
        return self._embedder.embed(align_face(photo, face.points)[None])[0]


def around(photo: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray]:
    """A square crop around a face, and the face's box in it."""
    middle = (face.box[:2] + face.box[2:]) / 2
    half = float((face.box[2:] - face.box[:2]).max()) * CROP_SIDES / 2
    x0, y0 = np.maximum((middle - half).astype(int), 0)
    x1, y1 = (middle + half).astype(int)
    return photo[y0:y1, x0:x1], face.box - np.array([x0, y0, x0, y0])


def known_again(recogniser: Recogniser, photo: np.ndarray, face: Face, width_px: int) -> Iterator[float]:
    """The cosine for the photo and for the crop; 0 where the face is not found, none where it is smaller."""
    scale = width_px / float(face.box[2] - face.box[0])
    if scale > 1:
        return
    full_size = recogniser.embed(photo, face)
    for part, box in ((photo, face.box), around(photo, face)):
        small = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        middle = (box[:2] + box[2:]) / 2 * scale
        near = [
            other
            for other in recogniser.faces(small)
            if np.abs((other.box[:2] + other.box[2:]) / 2 - middle).max() < width_px / 2
        ]
        yield float(recogniser.embed(small, near[0]) @ full_size) if near else 0.0


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--models", type=Path, required=True, help="folder of weights")
    words = parser.parse_args()
    recogniser = Recogniser(words.models)
    photos = [np.array(Image.open(file).convert("RGB")) for file in sorted(words.photos.iterdir())]
    faces = [(photo, face) for photo in photos for face in recogniser.faces(photo)]
    print(
        f"{'face':>4}  {'of':<5} {'faces':>5} {'found':>5}  {'median':>6} {'least':>5}  cosine of .8 or more"
    )
    for width_px in WIDTHS_PX:
        both = [list(known_again(recogniser, photo, face, width_px)) for photo, face in faces]
        for place, name in enumerate(("photo", "crop")):
            cosines = np.array([pair[place] for pair in both if pair])
            found = int((cosines > 0).sum())
            again = int((cosines >= 0.8).sum())
            print(
                f"{width_px:>4}  {name:<5} {len(cosines):>5} {found:>5}  {np.median(cosines):>6.3f} "
                f"{cosines.min():>5.2f}  {again}"
            )


if __name__ == "__main__":
    main()
