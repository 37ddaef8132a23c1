"""Scenes: eight kinds of place, things that stand in front, and pictures of people that are no people."""

from typing import Any

import cv2
import numpy as np

from demo.world.canvas import Canvas, Paint, ellipse, hull
from demo.world.facts import FACTS

SCENES = tuple(FACTS["scene"])
OCCLUDERS = ("bush", "pole", "bench", "car", "table")


def horizon_of(scene: str, random: np.random.Generator) -> float:
    """Share of the photo's height at which the ground begins."""
    low, high = {"office": (0.62, 0.72), "room": (0.64, 0.74), "studio": (0.7, 0.8), "beach": (0.5, 0.6)}.get(
        scene, (0.52, 0.66)
    )
    return float(random.uniform(low, high))


def draw_scene(
    scene: str, width: int, height: int, horizon: float, random: np.random.Generator
) -> np.ndarray:
    """float32 [height, width, 3] RGB: the place, empty."""
    painters = {
        "street": _street,
        "park": _park,
        "beach": _beach,
        "office": _office,
        "room": _room,
        "studio": _studio,
        "mountains": _mountains,
        "night": _night,
    }
    image = painters[scene](width, height, int(horizon * height), random)
    grain = random.normal(0, 1, (height // 8 + 1, width // 8 + 1)).astype(np.float32)
    return np.asarray(
        image + 3 * cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    )


def _rows(top: tuple[float, ...], bottom: tuple[float, ...], height: int) -> np.ndarray:
    t = np.linspace(0, 1, max(height, 1), dtype=np.float32)[:, None, None]
    return np.asarray(np.array(top, np.float32) * (1 - t) + np.array(bottom, np.float32) * t)


def _ground(
    width: int, height: int, ground: int, sky: tuple, low_sky: tuple, near: tuple, far: tuple
) -> np.ndarray:
    image = np.empty((height, width, 3), np.float32)
    image[:ground] = _rows(sky, low_sky, ground)
    image[ground:] = _rows(far, near, height - ground)
    return image


def _shift(
    colour: tuple[float, float, float], random: np.random.Generator, by: float = 14
) -> tuple[float, float, float]:
    r, g, b = np.clip(np.array(colour) + random.normal(0, by, 3), 0, 255)
    return float(r), float(g), float(b)


def _box(image: np.ndarray, x0: Any, y0: Any, x1: Any, y1: Any, colour: tuple[float, ...]) -> None:
    cv2.rectangle(image, (int(x0), int(y0)), (int(x1), int(y1)), colour, -1)


def _street(w: int, h: int, ground: int, random: np.random.Generator) -> np.ndarray:
    image = _ground(
        w,
        h,
        ground,
        _shift((150, 186, 226), random),
        (214, 226, 238),
        _shift((120, 118, 116), random),
        (146, 144, 142),
    )
    x = -random.uniform(0, 0.2) * w
    while x < w:
        wide, tall = random.uniform(0.18, 0.4) * w, random.uniform(0.45, 0.95) * ground
        wall = _shift((178, 142, 118), random, 30)
        _box(image, x, ground - tall, x + wide, ground, wall)
        step = random.uniform(0.05, 0.08) * w
        glass = _shift((92, 110, 130), random)
        for wx in np.arange(x + 0.4 * step, x + wide - 0.6 * step, step * 1.3):
            for wy in np.arange(ground - tall + 0.5 * step, ground - step, step * 1.6):
                _box(image, wx, wy, wx + 0.6 * step, wy + step * 0.9, glass)
        x += wide + random.uniform(0, 0.04) * w
    _box(image, 0, ground, w, ground + 0.03 * h, (164, 160, 154))
    for k in range(5):
        x = w * (k + random.uniform(0.1, 0.4)) / 5
        _box(image, x, h * 0.93, x + 0.09 * w, h * 0.945, (222, 220, 206))
    return image


def _tree(image: np.ndarray, x: float, base: float, tall: float, random: np.random.Generator) -> None:
    _box(image, x - 0.04 * tall, base - 0.5 * tall, x + 0.04 * tall, base, (98, 72, 50))
    green = _shift((62, 118, 54), random, 16)
    for _ in range(7):
        centre = (int(x + random.normal(0, 0.14) * tall), int(base - tall * random.uniform(0.5, 0.95)))
        cv2.circle(image, centre, int(0.2 * tall), _shift(green, random, 8), -1, cv2.LINE_AA)


def _park(w: int, h: int, ground: int, random: np.random.Generator) -> np.ndarray:
    image = _ground(
        w,
        h,
        ground,
        _shift((140, 190, 232), random),
        (212, 230, 240),
        _shift((92, 146, 66), random),
        (122, 168, 92),
    )
    for _ in range(int(random.integers(4, 9))):
        _tree(
            image,
            random.uniform(0, w),
            ground + random.uniform(0, 0.04) * h,
            random.uniform(0.35, 0.8) * ground,
            random,
        )
    left = random.uniform(0.1, 0.6) * w
    path = np.array([[left, ground], [left + 0.08 * w, ground], [left + 0.55 * w, h], [left - 0.1 * w, h]])
    cv2.fillPoly(image, [path.astype(np.int32)], _shift((198, 184, 152), random), cv2.LINE_AA)
    return image


def _beach(w: int, h: int, ground: int, random: np.random.Generator) -> np.ndarray:
    image = _ground(
        w,
        h,
        ground,
        _shift((120, 184, 236), random),
        (208, 230, 242),
        _shift((224, 202, 154), random),
        (236, 220, 180),
    )
    sea = int(ground - random.uniform(0.1, 0.22) * h)
    image[sea:ground] = _rows(_shift((42, 112, 164), random), (112, 186, 198), ground - sea)
    for _ in range(6):
        y, x = random.uniform(sea, ground), random.uniform(0, w)
        cv2.ellipse(image, (int(x), int(y)), (int(0.16 * w), 2), 0, 0, 360, (232, 242, 244), -1, cv2.LINE_AA)
    if random.random() < 0.6:
        cv2.circle(
            image, (int(random.uniform(0, w)), int(0.12 * h)), int(0.05 * w), (252, 240, 190), -1, cv2.LINE_AA
        )
    return image


def _office(w: int, h: int, ground: int, random: np.random.Generator) -> np.ndarray:
    image = _ground(
        w,
        h,
        ground,
        _shift((204, 208, 212), random),
        (220, 222, 224),
        _shift((112, 118, 128), random),
        (136, 140, 150),
    )
    for k in range(3):
        x = w * (k + 0.12) / 3
        _box(image, x, 0.08 * h, x + 0.24 * w, 0.34 * h, _shift((176, 206, 228), random))
        cv2.line(
            image, (int(x + 0.12 * w), int(0.08 * h)), (int(x + 0.12 * w), int(0.34 * h)), (240, 240, 240), 3
        )
    for _ in range(int(random.integers(1, 4))):
        x, y = random.uniform(-0.1, 0.8) * w, ground - random.uniform(0.02, 0.06) * h
        _box(image, x, y - 0.02 * h, x + 0.34 * w, y, (166, 128, 88))
        _box(image, x + 0.02 * w, y, x + 0.04 * w, y + 0.1 * h, (88, 88, 92))
        _box(image, x + 0.3 * w, y, x + 0.32 * w, y + 0.1 * h, (88, 88, 92))
        _box(image, x + 0.1 * w, y - 0.11 * h, x + 0.24 * w, y - 0.03 * h, (38, 42, 48))
    return image


def _room(w: int, h: int, ground: int, random: np.random.Generator) -> np.ndarray:
    wall = _shift((216, 196, 170), random, 22)
    image = _ground(w, h, ground, wall, wall, _shift((150, 104, 66), random), (168, 122, 82))
    for y in np.linspace(ground, h, 6):
        cv2.line(image, (0, int(y)), (w, int(y)), (128, 90, 58), 2)
    sofa = _shift((124, 96, 104), random, 34)
    x = random.uniform(-0.1, 0.5) * w
    _box(image, x, ground - 0.16 * h, x + 0.6 * w, ground + 0.02 * h, sofa)
    _box(image, x - 0.04 * w, ground - 0.1 * h, x + 0.04 * w, ground + 0.03 * h, _shift(sofa, random, 6))
    _box(image, x + 0.56 * w, ground - 0.1 * h, x + 0.64 * w, ground + 0.03 * h, _shift(sofa, random, 6))
    px, py = random.uniform(0.05, 0.7) * w, random.uniform(0.06, 0.2) * h
    _box(image, px, py, px + 0.22 * w, py + 0.15 * h, (96, 72, 48))
    _box(
        image,
        px + 0.015 * w,
        py + 0.012 * h,
        px + 0.205 * w,
        py + 0.138 * h,
        _shift((140, 170, 150), random, 40),
    )
    lamp = random.uniform(0.05, 0.95) * w
    cv2.line(image, (int(lamp), int(ground)), (int(lamp), int(0.36 * h)), (70, 60, 52), 4)
    shade = np.array(
        [
            [lamp - 0.06 * w, 0.37 * h],
            [lamp + 0.06 * w, 0.37 * h],
            [lamp + 0.035 * w, 0.29 * h],
            [lamp - 0.035 * w, 0.29 * h],
        ]
    )
    cv2.fillPoly(image, [shade.astype(np.int32)], (246, 226, 170), cv2.LINE_AA)
    return image


def _studio(w: int, h: int, ground: int, random: np.random.Generator) -> np.ndarray:
    tone = random.uniform(120, 236)
    wall = _shift((tone, tone, tone), random, 10)
    image = np.broadcast_to(np.array(wall, np.float32), (h, w, 3)).copy()
    ys, xs = np.mgrid[0:h, 0:w].astype(np.float32)
    far = ((xs - w * random.uniform(0.35, 0.65)) / w) ** 2 + ((ys - 0.4 * h) / h) ** 2
    image *= (1.06 - 0.7 * np.clip(far, 0, 0.5))[..., None]
    image[ground:] *= 0.93
    return cv2.GaussianBlur(image, (0, 0), 6)


def _mountains(w: int, h: int, ground: int, random: np.random.Generator) -> np.ndarray:
    image = _ground(
        w,
        h,
        ground,
        _shift((96, 150, 214), random),
        (206, 220, 234),
        _shift((110, 116, 78), random),
        (136, 140, 104),
    )
    for layer, tone in enumerate(((142, 156, 178), (110, 122, 134), (84, 100, 92))):
        points = [[0.0, float(ground)]]
        for x in np.linspace(0, w, 7 + 2 * layer):
            peak_y = ground - random.uniform(0.1, 0.75 - 0.2 * layer) * ground
            points += [[x + random.normal(0, 0.03 * w), peak_y]]
        points.append([float(w), float(ground)])
        cv2.fillPoly(image, [np.array(points).astype(np.int32)], _shift(tone, random, 8), cv2.LINE_AA)
        if layer == 0:
            for x, y in points[1:-1]:
                peak = np.array([[x, y], [x - 0.05 * w, y + 0.07 * h], [x + 0.05 * w, y + 0.07 * h]])
                cv2.fillPoly(image, [peak.astype(np.int32)], (240, 244, 248), cv2.LINE_AA)
    for _ in range(8):
        x, y = random.uniform(0, w), random.uniform(ground, h)
        cv2.ellipse(
            image,
            (int(x), int(y)),
            (int(0.05 * w), int(0.015 * h)),
            0,
            0,
            360,
            _shift((128, 126, 120), random),
            -1,
            cv2.LINE_AA,
        )
    return image


def _night(w: int, h: int, ground: int, random: np.random.Generator) -> np.ndarray:
    image = _ground(w, h, ground, (14, 18, 40), _shift((48, 44, 74), random, 8), (40, 42, 50), (58, 58, 66))
    x = -0.1 * w
    while x < w:
        wide, tall = random.uniform(0.12, 0.28) * w, random.uniform(0.4, 0.95) * ground
        _box(image, x, ground - tall, x + wide, ground, _shift((34, 36, 52), random, 6))
        step = 0.045 * w
        for wx in np.arange(x + 0.3 * step, x + wide - 0.6 * step, step):
            for wy in np.arange(ground - tall + 0.4 * step, ground - step, step * 1.3):
                if random.random() < 0.45:
                    _box(image, wx, wy, wx + 0.5 * step, wy + 0.6 * step, _shift((240, 206, 120), random, 20))
        x += wide
    for _ in range(6):
        centre = (int(random.uniform(0, w)), int(random.uniform(0.1, 1) * ground))
        glow = np.zeros_like(image)
        cv2.circle(glow, centre, int(0.03 * w), _shift((250, 190, 110), random, 30), -1, cv2.LINE_AA)
        image += 0.5 * glow
    return image


def draw_seat(
    canvas: Canvas, x: float, y: float, px_per_m: float, seat_m: float, random: np.random.Generator
) -> None:
    """A box to sit on; x, y the px on the ground below it."""
    colour = _shift((124, 92, 64), random, 30)
    half, top = 0.27 * px_per_m, y - seat_m * px_per_m
    body = np.array([[x - half, top], [x + half, top], [x + half * 0.94, y], [x - half * 0.94, y]])
    canvas.fill(body, Paint(colour), 255)
    lid = np.array(
        [
            [x - half * 1.06, top - 0.04 * px_per_m],
            [x + half * 1.06, top - 0.04 * px_per_m],
            [x + half * 1.06, top + 0.03 * px_per_m],
            [x - half * 1.06, top + 0.03 * px_per_m],
        ]
    )
    canvas.fill(lid, Paint(_shift(colour, random, 6)), 255)


def draw_shadow(canvas: Canvas, x: float, y: float, px_per_m: float) -> None:
    """A soft shadow on the ground."""
    for share in (1.0, 0.75, 0.5):
        canvas.fill(
            ellipse(np.array([x, y]), 0.42 * px_per_m * share, 0.1 * px_per_m * share),
            Paint((18, 18, 22)),
            255,
            alpha=0.16,
        )


def draw_occluder(
    canvas: Canvas, kind: str, x: float, y: float, px_per_m: float, random: np.random.Generator
) -> None:
    """A thing in front of people; its pixels are nobody's."""
    canvas.who = 0
    m = px_per_m
    base = np.array([x, y])
    if kind == "bush":
        green = _shift((58, 108, 52), random, 14)
        for _ in range(9):
            place = base + np.array([random.normal(0, 0.22), -random.uniform(0.05, 0.45)]) * m
            canvas.fill(ellipse(place, 0.17 * m, 0.15 * m), Paint(_shift(green, random, 8)), 0)
    elif kind == "pole":
        colour = _shift((88, 92, 96), random)
        half = random.uniform(0.03, 0.06) * m
        canvas.fill(
            np.array([[x - half, y - 3 * m], [x + half, y - 3 * m], [x + half, y], [x - half, y]]),
            Paint(colour),
            0,
        )
    elif kind == "bench":
        colour = _shift((132, 94, 58), random)
        for high in (0.42, 0.3, 0.18):
            plank = (
                base + np.array([[-0.8, -high], [0.8, -high], [0.8, -high + 0.08], [-0.8, -high + 0.08]]) * m
            )
            canvas.fill(plank, Paint(colour), 0)
    elif kind == "car":
        colour = _shift((150, 60, 60), random, 60)
        body = (
            base
            + np.array(
                [
                    [-1.7, -0.2],
                    [-1.6, -0.62],
                    [-1.0, -0.7],
                    [-0.6, -1.05],
                    [0.6, -1.05],
                    [1.0, -0.7],
                    [1.7, -0.6],
                    [1.75, -0.2],
                ]
            )
            * m
        )
        canvas.fill(body, Paint(colour), 0)
        canvas.fill(
            base + np.array([[-0.9, -0.7], [-0.55, -0.98], [0.55, -0.98], [0.9, -0.7]]) * m,
            Paint((70, 84, 98)),
            0,
        )
        for side in (-1.0, 1.0):
            canvas.fill(
                ellipse(base + np.array([side, -0.2]) * m, 0.26 * m, 0.26 * m), Paint((26, 26, 28)), 0
            )
    else:
        colour = _shift((170, 132, 92), random)
        canvas.fill(
            base + np.array([[-0.7, -0.75], [0.7, -0.75], [0.75, -0.66], [-0.75, -0.66]]) * m,
            Paint(colour),
            0,
        )
        for side in (-0.6, 0.55):
            canvas.fill(
                base + np.array([[side, -0.66], [side + 0.06, -0.66], [side + 0.06, 0], [side, 0]]) * m,
                Paint(colour),
                0,
            )


def poster_of(picture: np.ndarray, canvas: Canvas, x: float, y: float, height_px: float) -> None:
    """A framed picture of a person on a wall; x, y its lower middle. Nobody's pixels."""
    tall = int(max(height_px, 24))
    wide = int(tall * picture.shape[1] / picture.shape[0])
    small = cv2.resize(picture, (wide, tall), interpolation=cv2.INTER_AREA).astype(np.float32)
    left, top = int(x - wide / 2), int(y - tall)
    border = max(int(0.03 * tall), 3)
    frame = np.array(
        [
            [left - border, top - border],
            [left + wide + border, top - border],
            [left + wide + border, top + tall + border],
            [left - border, top + tall + border],
        ],
        float,
    )
    canvas.fill(frame, Paint((236, 234, 228)), 255)
    x0, y0, x1, y1 = (
        max(left, 0),
        max(top, 0),
        min(left + wide, canvas.owner.shape[1]),
        min(top + tall, canvas.owner.shape[0]),
    )
    if x1 > x0 and y1 > y0:
        faded = 0.86 * small[y0 - top : y1 - top, x0 - left : x1 - left] + 24
        canvas.image[y0:y1, x0:x1] = faded


def plinth(canvas: Canvas, x: float, y: float, px_per_m: float, tall_m: float) -> None:
    """What a statue stands on; x, y the px of its top middle."""
    half = 0.36 * px_per_m
    block = np.array(
        [
            [x - half, y - 0.02 * px_per_m],
            [x + half, y - 0.02 * px_per_m],
            [x + 1.1 * half, y + tall_m * px_per_m],
            [x - 1.1 * half, y + tall_m * px_per_m],
        ]
    )
    canvas.fill(hull(block), Paint((150, 150, 146)), 255)
