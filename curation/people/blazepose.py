"""BlazePose: people, their joints and their masks by two small networks of MediaPipe, run by LiteRT.

The method is that of arXiv 2006.10204: a finder sees heads, and with each of them the middle of the hips and
a circle around the whole body; a second network sees what is in that circle, turned upright. The numbers are
those of MediaPipe's graphs (mediapipe/modules/pose_detection/pose_detection_cpu.pbtxt and those of
mediapipe/modules/pose_landmark). The files lie in the wheel of mediapipe, which is not imported. Apache-2.0.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from curation.errors import ConfigError, one_line
from curation.models import Models
from curation.people.protocols import Detections
from curation.settings.people import BlazePoseSettings

_FINDER_PX, _POSE_PX = 224, 256
# Anchors of the finder: cells of so many px, and how many anchors stand in the middle of each.
_CELLS = ((8, 2), (16, 2), (32, 6))
_FLOOR = 0.2  # heads below are not seen at all
_SAME_HEAD_IOU = 0.3
_MARGIN = 1.25  # of the circle around the body, as the second network was trained
_POINTS = 39  # 33 of the body; the 34th and 35th are hips and circle again
_HIPS, _CIRCLE = 33, 34
# Of its 33, those of COCO in their order.
_COCO = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
_POSE_FROM = 0.5  # certainty from which there is a person at all
_MASK_FROM = 0.5
_BLOB_SHARE = 0.1  # pieces of a mask below this share of the largest do not make the box
_AROUND = 1.25  # a box is searched for its head in a square so much larger than its longer side
_HEAD_MIDDLE = 0.15  # where a head is looked for in a box, as a share of its height; as for faces
_MOST_PX = 2.0  # of the photo, in each direction, that linear interpolation does justice to


@dataclass(frozen=True)
class Body:
    """A body that the finder guesses, in px of the photo; hips and circle may lie outside of it.

    score   0 to 1
    head    box [4]
    hips    [2], their middle, and of the circle around the body too
    circle  [2], the point of that circle to which the head points
    """

    score: float
    head: np.ndarray
    hips: np.ndarray
    circle: np.ndarray


@dataclass(frozen=True)
class Pose:
    """What the second network sees of a body.

    points     float [39, 3]: x, y in px of the photo, and how certainly the point is there and not hidden
    certainty  that there is a person at all, 0 to 1
    mask       float32 [256, 256], 0 to 1
    frame      [2, 3], from px of the mask to px of the photo
    """

    points: np.ndarray
    certainty: float
    mask: np.ndarray
    frame: np.ndarray

    def joints(self, width: int, height: int) -> np.ndarray:
        """float32 [17, 3] in the order of COCO.

        What lies outside of the photo is not seen; where there may be nobody, no joint is certain either.
        """
        joints = self.points[_COCO].astype(np.float32)
        on_photo = ((joints[:, :2] >= 0) & (joints[:, :2] <= (width, height))).all(axis=1)
        joints[:, 2] *= self.certainty * on_photo
        return joints

    def mask_in(self, box: np.ndarray) -> np.ndarray:
        """bool [h, w] of an integer box; nothing where there is no person."""
        import cv2

        x0, y0, x1, y1 = (int(value) for value in box)
        if self.certainty < _POSE_FROM:
            return np.zeros((y1 - y0, x1 - x0), bool)
        from_box = cv2.invertAffineTransform(self.frame)
        from_box[:, 2] += from_box[:, :2] @ np.array([x0, y0])
        return _cut(self.mask, from_box, (x1 - x0, y1 - y0), edge=False) >= _MASK_FROM

    def box(self, width: int, height: int) -> np.ndarray | None:
        """float [4] around the larger pieces of the mask that lie on the photo; None where none does."""
        import cv2

        inside = (self.mask >= _MASK_FROM).astype(np.uint8)
        _, labels, pieces, _ = cv2.connectedComponentsWithStats(inside)
        areas = pieces[1:, cv2.CC_STAT_AREA]
        if len(areas) == 0:
            return None
        large = 1 + np.flatnonzero(areas >= _BLOB_SHARE * areas.max())
        ys, xs = np.nonzero(np.isin(labels, large))
        at = np.column_stack([xs, ys]) + 0.5
        at = at @ self.frame[:, :2].T + self.frame[:, 2]
        half = np.hypot(*self.frame[:, 0]) / 2
        at = at[((at > 0) & (at < (width, height))).all(axis=1)]
        if len(at) == 0:
            return None
        around = np.concatenate([at.min(axis=0) - half, at.max(axis=0) + half])
        return np.clip(around, 0, (width, height, width, height))


class BlazePose:
    """A PersonDetector, JointFinder and Segmenter: what a pipeline asks it for depends on where it is named.

    As a detector it looks at the photo as a whole, and is made for one person or two who fill it.
    """

    def __init__(self, settings: BlazePoseSettings, models: Models) -> None:
        anchors = sum((_FINDER_PX // cell) ** 2 * number for cell, number in _CELLS)
        finder = {"boxes": (anchors, 12), "scores": (anchors, 1)}
        pose = {"points": (_POINTS * 5,), "certainty": (1,), "mask": (_POSE_PX, _POSE_PX, 1)}
        self._find = _Network(settings.finder.model, models, _FINDER_PX, finder)
        self._see = _Network(settings.landmarks.model, models, _POSE_PX, pose)
        self._anchors = _anchors()

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        """One answer a photo, with keypoints; the box is that of the mask."""
        return [self._people(photo) for photo in photos]

    def joints(self, photo: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """float32 [n, 4] boxes → float32 [n, 17, 3]; a joint is as certain as it is seen."""
        height, width = photo.shape[:2]
        return np.stack([self._pose_in(photo, box).joints(width, height) for box in boxes])

    def segment(self, photo: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        """One mask for each box; an empty one where nobody is seen."""
        return [self._pose_in(photo, box).mask_in(box) for box in boxes]

    def _people(self, photo: np.ndarray) -> Detections:
        height, width = photo.shape[:2]
        side = float(max(height, width))
        corner = np.array([width - side, height - side]) / 2
        found = []
        for body in self.bodies(photo, corner, side):
            pose = self._pose_of(photo, body.hips, body.circle)
            box = pose.box(width, height)
            if box is not None and pose.certainty >= _POSE_FROM:
                found.append((body.score * pose.certainty, box, pose.joints(width, height)))
        found.sort(key=lambda person: -person[0])
        return Detections(
            np.array([box for _, box, _ in found], np.float32).reshape(-1, 4),
            np.array([score for score, _, _ in found], np.float32),
            np.array([joints for _, _, joints in found], np.float32).reshape(-1, 17, 3),
        )

    def _pose_in(self, photo: np.ndarray, box: np.ndarray) -> Pose:
        """Of the body whose head is nearest to the upper middle of a box; where there is none, of the box."""
        low, high = np.asarray(box[:2], np.float64), np.asarray(box[2:], np.float64)
        high = np.maximum(high, low + 1)
        side = _AROUND * float((high - low).max())
        bodies = self.bodies(photo, (low + high - side) / 2, side)
        top = np.array([(low[0] + high[0]) / 2, low[1] + _HEAD_MIDDLE * (high[1] - low[1])])
        middles = [(body.head[:2] + body.head[2:]) / 2 for body in bodies]
        inside = [i for i, middle in enumerate(middles) if (low <= middle).all() and (middle <= high).all()]
        if inside:
            nearest = bodies[min(inside, key=lambda i: float(np.hypot(*(middles[i] - top))))]
            return self._pose_of(photo, nearest.hips, nearest.circle)
        hips = (low + high) / 2
        return self._pose_of(photo, hips, hips - (0, float((high - low).max()) / 2))

    def bodies(self, photo: np.ndarray, corner: np.ndarray, side: float) -> list[Body]:
        """The bodies in a square of the photo, most certain first; it may reach over the borders."""
        step = side / _FINDER_PX
        frame = np.array([[step, 0, corner[0]], [0, step, corner[1]]])
        seen = self._find(_cut(photo, frame, (_FINDER_PX, _FINDER_PX), edge=False) / 127.5 - 1)
        scores = _sigmoid(seen["scores"][:, 0])
        raw = seen["boxes"].reshape(-1, 6, 2) / _FINDER_PX
        at = (raw + self._anchors[:, None]) * side + corner  # but for the extent of the head
        halves = raw[:, 1] * side / 2
        heads = np.concatenate([at[:, 0] - halves, at[:, 0] + halves], axis=1)
        certain = np.flatnonzero(scores >= _FLOOR)
        left = certain[np.argsort(-scores[certain], kind="stable")]
        found = []
        while len(left):
            same = _iou(heads[left[0]], heads[left]) > _SAME_HEAD_IOU
            same[0] = True
            group = left[same]
            weights = scores[group] / scores[group].sum()
            head, points = np.tensordot(weights, heads[group], 1), np.tensordot(weights, at[group, 2:4], 1)
            found.append(Body(float(scores[group[0]]), head, points[0], points[1]))
            left = left[~same]
        return found

    def _pose_of(self, photo: np.ndarray, hips: np.ndarray, circle: np.ndarray) -> Pose:
        """Seen twice: the first look says better than the finder where hips and circle are."""
        first = self._look(photo, hips, circle)
        again = self._look(photo, first.points[_HIPS, :2], first.points[_CIRCLE, :2])
        # A first look that is lost leads the second astray.
        return again if round(again.certainty, 1) >= round(first.certainty, 1) else first

    def _look(self, photo: np.ndarray, hips: np.ndarray, circle: np.ndarray) -> Pose:
        up = circle - hips
        radius = float(np.hypot(*up))
        # Points that all but coincide say nothing of a direction.
        up = up / radius if radius > 1e-3 else np.array([0.0, -1.0])
        across = np.array([-up[1], up[0]])
        step = 2 * _MARGIN * max(radius, 1.0) / _POSE_PX
        frame = np.column_stack([across * step, -up * step, hips + (up - across) * step * _POSE_PX / 2])
        seen = self._see(_cut(photo, frame, (_POSE_PX, _POSE_PX), edge=True) / 255)
        points = seen["points"].reshape(_POINTS, 5).astype(np.float64)
        certain = np.minimum(_sigmoid(points[:, 3]), _sigmoid(points[:, 4]))  # not hidden; on the photo
        at = points[:, :2] @ frame[:, :2].T + frame[:, 2]
        certainty = float(np.clip(seen["certainty"][0], 0, 1))
        return Pose(np.column_stack([at, certain]), certainty, _sigmoid(seen["mask"][..., 0]), frame)


class _Network:
    """A file of LiteRT whose answers are told by their shapes."""

    def __init__(
        self, name: str, models: Models, side_px: int, answers: Mapping[str, tuple[int, ...]]
    ) -> None:
        from ai_edge_litert.interpreter import Interpreter

        path = models[name].path
        try:
            self._run = Interpreter(path, num_threads=int(os.environ.get("PERSONA_THREADS", "1")))
            self._run.allocate_tensors()
        except Exception as error:  # ValueError for what is no model, RuntimeError for what cannot be run
            raise ConfigError(f"model {name}: {path} is no usable TFLite model: {one_line(error)}") from None
        self._input = self._run.get_input_details()[0]
        shapes = {tuple(each["shape"][1:].tolist()): each["index"] for each in self._run.get_output_details()}
        takes = tuple(self._input["shape"].tolist())
        if takes != (1, side_px, side_px, 3) or not set(answers.values()) <= set(shapes):
            raise ConfigError(
                f"model {name}: {path} takes {takes} and gives {sorted(shapes)}; "
                f"{(1, side_px, side_px, 3)} and {sorted(answers.values())} are needed"
            )
        self._answers = {answer: shapes[shape] for answer, shape in answers.items()}

    def __call__(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        self._run.set_tensor(self._input["index"], picture[None].astype(np.float32))
        self._run.invoke()
        found = {name: self._run.get_tensor(index)[0] for name, index in self._answers.items()}
        if not all(np.isfinite(values).all() for values in found.values()):
            raise ValueError("the pose model answered with numbers that are not finite")
        return found


def _cut(picture: np.ndarray, frame: np.ndarray, size: tuple[int, int], edge: bool) -> np.ndarray:
    """float32 [h, w, …]: what lies in a frame, [2, 3] from px of the result to px of the picture.

    Outside of the picture its edge goes on, or all is 0. Where a px of the result stands for more than 2 × 2
    of the picture, the picture is shrunk by areas first.
    """
    import cv2

    frame = np.array(frame, np.float64)
    scale = float(np.hypot(*frame[:, 0]))
    if scale > _MOST_PX:
        high, wide = picture.shape[:2]
        corners = np.array([[x, y, 1] for x in (0, size[0]) for y in (0, size[1])]) @ frame.T
        left, top = np.clip(np.floor(corners.min(axis=0)), 0, (wide - 1, high - 1)).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(axis=0)), (left + 1, top + 1), (wide, high)).astype(int)
        part = picture[top:bottom, left:right]
        small = tuple(max(round(side * _MOST_PX / scale), 1) for side in (part.shape[1], part.shape[0]))
        picture = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
        steps = np.array([part.shape[1] / small[0], part.shape[0] / small[1]])
        frame[:, 2] -= (left, top)
        frame /= steps[:, None]
    frame[:, 2] += frame[:, :2].sum(axis=1) / 2 - 0.5  # OpenCV counts from the middle of the first px
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE if edge else cv2.BORDER_CONSTANT
    return np.asarray(cv2.warpAffine(picture, frame, size, flags=flags, borderMode=border), np.float32)


def _anchors() -> np.ndarray:
    """float [2254, 2]: the middles of the finder's cells, as shares of its picture's side."""

    def grids() -> Iterator[Any]:
        for cell, number in _CELLS:
            count = _FINDER_PX // cell
            rows, columns = np.mgrid[:count, :count]
            middles = np.column_stack([columns.ravel(), rows.ravel()]) + 0.5
            yield np.repeat(middles / count, number, axis=0)

    return np.concatenate(list(grids()))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -80, 80)))


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return np.asarray(shared / np.maximum((box[2:] - box[:2]).prod() + areas - shared, 1e-9))
