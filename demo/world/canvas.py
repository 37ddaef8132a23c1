"""The canvas: antialiased shapes with shaded, patterned paint, and who and what each pixel shows."""

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from demo.world.outfits import Garment

_SHIFT = 4  # fractional bits of coordinates


@dataclass(frozen=True)
class Paint:
    """Colour of a surface. RGB 0 to 255; scale of the pattern in units of about 6 cm."""

    colour: tuple[float, float, float]
    second: tuple[float, float, float] | None = None
    pattern: str = "plain"
    scale: float = 1.0
    round: float = 0.55  # how much it darkens towards its borders, 0 flat to 1

    @classmethod
    def of(cls, garment: Garment, round: float = 0.5) -> "Paint":
        """The paint of a garment."""
        return cls(garment.shade, garment.second, garment.pattern, garment.scale, round)


@dataclass(frozen=True)
class Frame:
    """Coordinates on a part: origin in px, the unit vector of its axis, px per metre, half width px."""

    origin: np.ndarray
    axis: np.ndarray
    px_per_m: float
    half_px: float


class Canvas:
    """image float32 [h, w, 3]; owner uint8 [h, w] (0 nobody); label uint8 [h, w]."""

    def __init__(self, image: np.ndarray, light: float = 0.0) -> None:
        self.image = image
        self.owner: np.ndarray = np.zeros(image.shape[:2], np.uint8)
        self.label: np.ndarray = np.zeros(image.shape[:2], np.uint8)
        self.light = light  # where the light comes from: -1 left to 1 right
        self.who = 0

    def fill(
        self, outline: np.ndarray, paint: Paint, label: int, frame: Frame | None = None, alpha: float = 1.0
    ) -> None:
        """Fills a polygon [n, 2] px. A label of 255 leaves the truth as it is (drawn detail)."""
        height, width = self.owner.shape
        x0, y0 = np.floor(outline.min(0)).astype(int) - 1
        x1, y1 = np.ceil(outline.max(0)).astype(int) + 2
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if x1 <= x0 or y1 <= y0:
            return
        cover = np.zeros((y1 - y0, x1 - x0), np.uint8)
        points = np.round((outline - [x0, y0]) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(cover, [points], 255, cv2.LINE_AA, _SHIFT)
        area = (slice(y0, y1), slice(x0, x1))
        colour: np.ndarray = np.array(paint.colour, np.float32)
        if frame is not None:
            colour = self._surface(paint, frame, x0, y0, x1, y1)
        share = cover[..., None].astype(np.float32) * (alpha / 255)
        patch = self.image[area]
        patch += (colour - patch) * share
        if label != 255:
            solid = cover >= 128
            self.label[area][solid] = label
            self.owner[area][solid] = self.who

    def _surface(self, paint: Paint, frame: Frame, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        xs = np.arange(x0, x1, dtype=np.float32) - np.float32(frame.origin[0])
        ys = (np.arange(y0, y1, dtype=np.float32) - np.float32(frame.origin[1]))[:, None]
        ax, ay = np.float32(frame.axis[0]), np.float32(frame.axis[1])
        along, across = xs * ax + ys * ay, ys * ax - xs * ay
        side = across / np.float32(max(frame.half_px, 1.0))
        # Across is positive to the right of a part that points down the photo.
        side = np.clip(-side * np.sign(ay if ay else 1.0) - np.float32(0.25 * self.light), -1, 1)
        shade = 1 - np.float32(paint.round * 0.55) * side * side
        colour = np.array(paint.colour, np.float32)
        if paint.pattern == "plain" or paint.second is None:
            return np.asarray(shade[..., None] * colour)
        on = _pattern(paint.pattern, along / frame.px_per_m, across / frame.px_per_m, paint.scale)
        both = np.where(on[..., None], np.array(paint.second, np.float32), colour)
        return np.asarray(shade[..., None] * both)

    def limb(
        self,
        a: np.ndarray,
        b: np.ndarray,
        radius_a: float,
        radius_b: float,
        paint: Paint,
        label: int,
        px_per_m: float,
    ) -> None:
        """A rounded limb from px a to b with radii in px."""
        axis = b - a
        length = float(np.hypot(*axis))
        unit = axis / length if length > 1e-3 else np.array([0.0, 1.0])
        frame = Frame(a, unit, px_per_m, max(radius_a, radius_b))
        self.fill(capsule(a, b, radius_a, radius_b), paint, label, frame)

    def line(
        self, points: np.ndarray, width: float, colour: tuple[float, float, float], alpha: float = 1.0
    ) -> None:
        """A drawn line; it leaves the truth as it is."""
        half = width / 2
        for a, b in itertools.pairwise(points):
            self.fill(capsule(a, b, half, half, 4), Paint(colour), 255, None, alpha)


def capsule(a: np.ndarray, b: np.ndarray, radius_a: float, radius_b: float, steps: int = 8) -> np.ndarray:
    """Outline [n, 2] of two circles and what lies between them."""
    angle = np.arctan2(b[1] - a[1], b[0] - a[0])
    turn = np.linspace(np.pi / 2, 3 * np.pi / 2, steps)
    first = a + radius_a * np.stack([np.cos(angle + turn), np.sin(angle + turn)], 1)
    second = b + radius_b * np.stack([np.cos(angle + turn + np.pi), np.sin(angle + turn + np.pi)], 1)
    return np.concatenate([first, second])


def ellipse(centre: np.ndarray, rx: float, ry: float, tilt: float = 0.0, steps: int = 24) -> np.ndarray:
    """Outline [n, 2]; tilt in radians."""
    t = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    x, y = rx * np.cos(t), ry * np.sin(t)
    return centre + np.stack([x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)], 1)


def hull(points: np.ndarray) -> np.ndarray:
    """Convex outline [m, 2] of points [n, 2]."""
    return cv2.convexHull(points.astype(np.float32))[:, 0].astype(float)


def _pattern(name: str, u: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """Where the second colour shows; u along and v across the part, in metres."""
    step = np.float32(0.075 * scale)
    if name == "stripes":
        return np.asarray(np.mod(u, step) < 0.42 * step)
    if name == "vertical stripes":
        return np.asarray(np.mod(v, step) < 0.4 * step) & (u > -10)
    if name == "checks":
        return np.asarray((np.mod(u, step) < 0.5 * step) ^ (np.mod(v, step) < 0.5 * step))
    if name == "dots":
        row = np.floor(u / step)
        x = np.mod(v + 0.5 * step * np.mod(row, 2), step) - 0.5 * step
        y = np.mod(u, step) - 0.5 * step
        return np.asarray(x * x + y * y < (0.3 * step) ** 2)
    if name == "block":
        return np.asarray((u > 0.26) & (v > -10))
    return np.asarray((np.abs(v) < 0.075 * scale) & (np.abs(u - 0.2) < 0.07 * scale))  # print
