"""Heads: an ellipsoid whose features, hair, beard, glasses and hat turn with it."""

from dataclasses import dataclass

import numpy as np

from demo.world.canvas import Canvas, Paint, capsule, ellipse, hull
from demo.world.outfits import Garment
from demo.world.skeleton import Camera
from demo.world.traits import Identity

HEAD_SHARE = 0.148  # of the body's height
_DEPTH = 0.42  # half depth of a head, in heads
_HAT, _HAIR, _SUNGLASSES, _FACE = 1, 2, 3, 11
_DETAIL = 255
_HIDES_EARS = ("bob", "long", "curly")
_FALLS = {"bob": 0.62, "long": 1.0}


@dataclass(frozen=True)
class HeadPoints:
    """px of nose, left eye, right eye, left ear, right ear (the person's left) and which are seen."""

    places: np.ndarray
    seen: np.ndarray


class Head:
    """Draws one head. Coordinates are in heads: x to the person's left, y up, z to the front."""

    def __init__(
        self, identity: Identity, centre: np.ndarray, camera: Camera, near: float, tilt: float
    ) -> None:
        self._who = identity
        self._face = identity.face
        self._centre = centre
        self._px = camera.px_per_m * near * HEAD_SHARE * identity.height
        self._yaw = np.radians(camera.yaw)
        self._tilt = np.radians(tilt)
        self._half = identity.face.width / 2

    def project(self, x: float, y: float, z: float) -> np.ndarray:
        """px of a point of the head."""
        across = x * np.cos(self._yaw) + z * np.sin(self._yaw)
        c, s = np.cos(self._tilt), np.sin(self._tilt)
        return self._centre + self._px * np.array([c * across - s * -y, s * across + c * -y])

    def surface(self, x: float, y: float) -> tuple[float, float]:
        """Depth of the front at a place, and how squarely it faces the camera (1 fully, 0 or less hidden)."""
        a, b = x / self._half, y / 0.5
        z = _DEPTH * np.sqrt(max(1 - a * a - b * b, 0.0))
        normal = np.array([x / self._half**2, y / 0.25, z / _DEPTH**2])
        normal /= np.linalg.norm(normal)
        return float(z), float(-normal[0] * np.sin(self._yaw) + normal[2] * np.cos(self._yaw))

    def points(self) -> HeadPoints:
        """Where the five head joints of COCO are."""
        face = self._face
        eye_z, _ = self.surface(face.eye_distance, face.eye_height)
        nose_y = face.eye_height - face.nose_length
        nose_z, nose_facing = self.surface(0, nose_y)
        places = [
            self.project(0, nose_y + 0.02, nose_z + 0.07),
            self.project(face.eye_distance, face.eye_height, eye_z),
            self.project(-face.eye_distance, face.eye_height, eye_z),
            self.project(self._half, -0.02, 0),
            self.project(-self._half, -0.02, 0),
        ]
        seen = [nose_facing > 0.0]
        seen += [self.surface(s * face.eye_distance, face.eye_height)[1] > 0.16 for s in (1, -1)]
        seen += [-s * np.sin(self._yaw) > -0.55 for s in (1, -1)]
        return HeadPoints(np.array(places), np.array(seen))

    def outline(self, grow: float = 1.0) -> np.ndarray:
        """px outline [n, 2] of the head without hair."""
        face = self._face
        rows = [
            (0.5, 0.0),
            (0.485, 0.3),
            (0.43, 0.62),
            (0.3, 0.9 * face.forehead),
            (0.1, 1.0),
            (-0.08, 0.98),
            (-0.24, face.jaw),
            (-0.38, (face.jaw + face.chin) / 2 * 0.98),
            (-0.47, face.chin),
            (-0.5, face.chin * 0.6),
        ]
        left, right = [], []
        s, c = np.sin(self._yaw), np.cos(self._yaw)
        for y, share in rows:
            half = self._half * share
            deep = _DEPTH * (share if y > -0.1 else share * 0.8)
            wide = float(np.hypot(half * c, deep * s))
            # The jaw lies in front of the neck: it moves to the side that the face is turned to.
            shift = 0.1 * s * min(max((0.1 - y) / 0.5, 0), 1)
            left.append((shift - wide * grow, y))
            right.append((shift + wide * grow, y))
        ct, st = np.cos(self._tilt), np.sin(self._tilt)
        across = np.array(right + left[::-1])
        u, v = across[:, 0], -across[:, 1] * grow
        return self._centre + self._px * np.stack([ct * u - st * v, st * u + ct * v], 1)

    def draw_behind(self, canvas: Canvas) -> None:
        """Hair that hangs behind the face; drawn before neck and face."""
        who, px = self._who, self._px
        if who.hair == "bald":
            return
        paint = Paint(who.hair_colour, round=0.7)
        volume = 1 + who.hair_volume
        facing = np.cos(self._yaw)
        if who.hair in _FALLS:
            fall = 0.5 + 0.75 * who.hair_length * _FALLS[who.hair]
            wide = np.hypot(self._half * facing, _DEPTH * np.sin(self._yaw)) * volume * 1.08
            back = -0.12 * np.sin(self._yaw)
            top = self._centre + px * np.array([back, -0.3])
            low = self._centre + px * np.array([back * 1.5, fall - 0.35])
            canvas.fill(capsule(top, low, px * wide, px * wide * 0.86, 14), paint, _HAIR)
        elif who.hair == "ponytail":
            root = self.project(0, 0.2, -_DEPTH)
            tip = root + px * np.array([-0.1 * np.sin(self._yaw), 0.45 + 0.55 * who.hair_length])
            canvas.fill(capsule(root, tip, px * 0.13, px * 0.07), paint, _HAIR)
        elif who.hair == "bun":
            canvas.fill(ellipse(self.project(0, 0.48, -0.3), px * 0.2, px * 0.18), paint, _HAIR)
        if who.hair == "curly":
            wide = np.hypot(self._half * facing, _DEPTH * np.sin(self._yaw)) + 0.08 + who.hair_volume
            middle = self._centre + px * np.array([-0.05 * np.sin(self._yaw), -0.1])
            turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            ripple = 1 + 0.05 * np.sin(turn * 13)
            ring = np.stack(
                [np.cos(turn) * wide * ripple, np.sin(turn) * (0.5 + who.hair_volume) * ripple], 1
            )
            canvas.fill(middle + px * ring, paint, _HAIR)
        else:
            crown = self.outline(volume)
            keep = crown[:, 1] < self._centre[1] + 0.08 * px
            canvas.fill(hull(crown[keep]), paint, _HAIR)

    def draw(self, canvas: Canvas, expression: str, hat: Garment | None) -> None:
        """The head with everything on it."""
        self._ears(canvas, behind=True)
        outline = self.outline()
        canvas.fill(outline, Paint(self._who.skin), _FACE)
        self._shade_and_hair(canvas, outline, hat is not None)
        self._ears(canvas, behind=False)
        if np.cos(self._yaw) > -0.35:
            self._features(canvas, expression)
        if hat is not None:
            self._hat(canvas, hat)

    def _shade_and_hair(self, canvas: Canvas, outline: np.ndarray, hat: bool) -> None:
        """Per pixel: which place of the ellipsoid it shows, hence shade, hair and beard."""
        height, width = canvas.owner.shape
        x0, y0 = np.floor(outline.min(0)).astype(int) - 1
        x1, y1 = np.ceil(outline.max(0)).astype(int) + 2
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if x1 <= x0 or y1 <= y0:
            return
        import cv2

        cover = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(cover, [np.round((outline - [x0, y0]) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        sx = (np.arange(x0, x1, dtype=np.float32) - self._centre[0]) / self._px
        sy = -(np.arange(y0, y1, dtype=np.float32)[:, None] - self._centre[1]) / self._px
        ct, st = np.float32(np.cos(self._tilt)), np.float32(np.sin(self._tilt))
        u, v = sx * ct - sy * st, sx * st + sy * ct
        s, c = np.float32(np.sin(self._yaw)), np.float32(np.cos(self._yaw))
        wide = np.float32(np.hypot(self._half * c, _DEPTH * s))
        a, b = np.clip(u / wide, -1, 1), np.clip(v / 0.52, -1, 1)
        facing = np.sqrt(np.clip(1 - a * a - b * b, 0, 1))
        # Back from the camera to the head's own axes.
        depth = facing * np.float32(np.hypot(self._half * s, _DEPTH * c))
        x, z = u * c - depth * s, u * s + depth * c
        area = (slice(y0, y1), slice(x0, x1))
        patch = canvas.image[area]
        share = cover[..., None] / np.float32(255)
        tone = (
            1 - np.float32(0.26) * np.clip(a - 0.2 * canvas.light, -1, 1) ** 2 - np.float32(0.06) * (v < -0.4)
        )
        patch *= 1 - share * (1 - tone[..., None])
        inside = cover >= 128
        beard = self._beard(x, v, z)
        if beard is not None:
            where, strength = beard
            mixed = (where & inside)[..., None] * np.float32(strength)
            patch += (np.array(self._who.hair_colour, np.float32) * 0.9 - patch) * mixed * share
        hair = self._hair(x, v, z)
        if hair is not None:
            strands = 1 + 0.1 * np.sin(x * 70 + 7 * v)
            colour = (
                np.array(self._who.hair_colour, np.float32) * (strands * (0.75 + 0.3 * facing))[..., None]
            )
            patch += (colour - patch) * hair[..., None] * share
            canvas.label[area][hair & inside] = _HAIR

    def _hair(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray | None:
        who = self._who
        if who.hair == "bald":
            return None
        line = who.face.hairline - 0.5 * (x - 0.05 * who.parting) ** 2 / self._half
        low = {"short": -0.22, "crop": -0.28, "ponytail": -0.3, "bun": -0.3, "curly": -0.5}.get(
            who.hair, -0.55
        )
        side = {"short": -0.03, "crop": -0.06}.get(who.hair, -0.12 if who.hair not in _HIDES_EARS else -0.5)
        front = y > line + 0.05 * who.parting * x / self._half
        fringe = who.hair in ("bob", "crop") and who.parting > 0.1
        if fringe:
            front |= (y > line - 0.09) & (np.abs(x) < 0.8 * self._half)
        flanks = (z < 0.12) & (y > side)
        back = (z < -0.02) & (y > low)
        return np.asarray(front | flanks | back)

    def _beard(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, float] | None:
        face, kind = self._face, self._who.beard
        if kind == "none":
            return None
        lip = face.mouth_height + 0.5 * face.lip_thick
        over = (y > lip) & (y < lip + 0.055) & (np.abs(x) < face.mouth_width * 0.72)
        below = (y < face.mouth_height - 0.5 * face.lip_thick) & (np.abs(x) < face.mouth_width * 0.8)
        full = (y < -0.13 - 0.35 * np.clip(self._half - np.abs(x), 0, 0.2)) | (y < face.mouth_height - 0.02)
        where = {"moustache": over, "goatee": over | below}.get(kind, full | over)
        return np.asarray(where & (z > -0.02)), 0.42 if kind == "stubble" else 0.92

    def _ears(self, canvas: Canvas, behind: bool) -> None:
        if self._who.hair in _HIDES_EARS:
            return
        px = self._px
        for side in (1, -1):
            nearness = -side * np.sin(self._yaw)
            if (nearness < 0.3) != behind:
                continue
            middle = self.project(side * self._half * 0.98, -0.02, -0.02)
            size = self._face.ear_size
            wide = size * (0.35 + 0.45 * max(nearness, 0))
            dark = np.array(self._who.skin)
            outer = (float(dark[0]) * 0.93, float(dark[1]) * 0.88, float(dark[2]) * 0.86)
            canvas.fill(ellipse(middle, px * wide, px * size), Paint(outer), _FACE)

    def _features(self, canvas: Canvas, expression: str) -> None:
        face, who, px = self._face, self._who, self._px
        skin = np.array(who.skin)
        dark = _tone(skin, 0.55)
        for side in (1.0, -1.0):
            z, facing = self.surface(side * face.eye_distance, face.eye_height)
            if facing < 0.1:
                continue
            middle = self.project(side * face.eye_distance, face.eye_height, z)
            wide = px * face.eye_width * 0.5 * facing
            tall = px * face.eye_open * 0.5 * (0.75 if expression == "smiling" else 1.0)
            tilt = -side * face.eye_slant * 6 + self._tilt
            canvas.fill(
                ellipse(middle, wide * 1.25, tall * 1.7, tilt), Paint(_tone(skin, 0.82)), _DETAIL, alpha=0.6
            )
            canvas.fill(ellipse(middle, wide, tall, tilt), Paint((240, 238, 234)), _DETAIL)
            iris = min(tall * 1.05, wide * 0.62)
            canvas.fill(ellipse(middle, iris * facing, iris), Paint(who.eye_colour), _DETAIL)
            canvas.fill(ellipse(middle, iris * 0.5 * facing, iris * 0.5), Paint((12, 10, 10)), _DETAIL)
            turn = np.linspace(np.pi, 2 * np.pi, 7)
            lid = middle + np.stack([wide * 1.05 * np.cos(turn), tall * 1.1 * np.sin(turn)], 1)
            canvas.line(lid, max(px * 0.014, 0.8), (34, 24, 22))
            self._brow(canvas, side)
        self._nose(canvas, dark)
        self._mouth(canvas, expression)
        if who.glasses != "none":
            self._glasses(canvas)

    def _brow(self, canvas: Canvas, side: float) -> None:
        face = self._face
        height = face.eye_height + face.brow_gap
        points = []
        for share, rise in ((-0.62, -0.3), (-0.1, 0.9), (0.35, 1.0), (0.8, -0.2)):
            x = side * (face.eye_distance + share * face.eye_width)
            z, _ = self.surface(x, height)
            points.append(self.project(x, height + rise * face.brow_arch, z))
        colour = _tone(np.array(self._who.hair_colour), 0.8)
        canvas.line(np.array(points), max(self._px * face.brow_thick, 0.8), colour, 0.9)

    def _nose(self, canvas: Canvas, dark: tuple[float, float, float]) -> None:
        face, px = self._face, self._px
        low = face.eye_height - face.nose_length
        base_z, facing = self.surface(0, low)
        top_z, _ = self.surface(0, face.eye_height)
        top = self.project(0, face.eye_height - 0.02, top_z)
        tip = self.project(0, low + 0.03, base_z + 0.1)
        half = face.nose_width / 2
        left, right = self.project(half, low, base_z), self.project(-half, low, base_z)
        outside = abs(np.sin(self._yaw)) > 0.6
        skin = Paint(self._who.skin)
        canvas.fill(hull(np.array([top, tip, left, right])), skin, _FACE if outside else _DETAIL)
        shaded = left if np.sin(self._yaw) - 0.3 * canvas.light < 0 else right
        canvas.fill(np.array([top, tip, shaded]), Paint(dark), _DETAIL, alpha=0.4)
        if facing > 0.3:
            for place in (left, right):
                canvas.fill(
                    ellipse(0.65 * place + 0.35 * self.project(0, low, base_z), px * 0.02, px * 0.013),
                    Paint(_tone(np.array(dark), 0.7)),
                    _DETAIL,
                )
        canvas.line(
            np.array([left, self.project(0, low - 0.012, base_z + 0.02), right]),
            max(px * 0.012, 0.7),
            dark,
            0.7,
        )

    def _mouth(self, canvas: Canvas, expression: str) -> None:
        face, px = self._face, self._px
        skin = np.array(self._who.skin)
        lip = (float(skin[0]) * 0.82, float(skin[1]) * 0.56, float(skin[2]) * 0.56)
        stretch = {"smiling": 1.3, "open_mouth": 0.9}.get(expression, 1.0)
        curve = {"smiling": 0.05, "open_mouth": 0.0}.get(expression, -0.004)
        tall = {"smiling": 0.04, "open_mouth": 0.13}.get(expression, 0.0)
        xs = np.linspace(-1, 1, 9)
        top, bottom, inner_top, inner_bottom = [], [], [], []
        for t in xs:
            x = t * face.mouth_width * stretch
            rise = curve * (t * t - 0.3)
            bow = 1 - t * t
            z, facing = self.surface(x, face.mouth_height)
            if facing < -0.1:
                continue
            y = face.mouth_height + rise
            top.append(self.project(x, y + face.lip_thick * 0.6 * bow + tall * 0.35 * bow, z))
            bottom.append(self.project(x, y - face.lip_thick * 0.75 * bow - tall * 0.65 * bow, z))
            inner_top.append(self.project(x, y + tall * 0.35 * bow, z))
            inner_bottom.append(self.project(x, y - tall * 0.65 * bow, z))
        if len(top) < 3:
            return
        canvas.fill(np.array(top + bottom[::-1]), Paint(lip), _DETAIL)
        if tall:
            inner = (246.0, 244.0, 240.0) if expression == "smiling" else (66.0, 20.0, 22.0)
            canvas.fill(np.array(inner_top + inner_bottom[::-1]), Paint(inner), _DETAIL)
        else:
            canvas.line(np.array(inner_top), max(px * 0.01, 0.7), _tone(np.array(lip), 0.5), 0.8)

    def _glasses(self, canvas: Canvas) -> None:
        face, px, kind = self._face, self._px, self._who.glasses
        thick = max(px * 0.014, 0.9)
        rims = []
        for side in (1.0, -1.0):
            z, facing = self.surface(side * face.eye_distance, face.eye_height)
            if facing < 0.1:
                continue
            middle = self.project(side * face.eye_distance, face.eye_height - 0.01, z + 0.03)
            wide, tall = px * 0.105 * facing, px * (0.095 if kind != "square" else 0.075)
            steps = 4 if kind == "square" else 16
            rim = ellipse(
                middle, wide * (1.3 if steps == 4 else 1), tall * (1.3 if steps == 4 else 1), steps=steps
            )
            if steps == 4:
                corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [wide, tall]
                rim = middle + corners
            if kind == "dark":
                canvas.fill(rim, Paint((22, 22, 28)), _SUNGLASSES, alpha=0.94)
            canvas.line(np.concatenate([rim, rim[:1]]), thick, (24, 22, 26))
            ear_z = -0.02
            near = -side * np.sin(self._yaw) > 0.1
            if near:
                canvas.line(
                    np.array([middle, self.project(side * self._half, 0.0, ear_z)]), thick, (24, 22, 26)
                )
            rims.append(middle)
        if len(rims) == 2:
            canvas.line(np.array(rims)[::-1], thick, (24, 22, 26), 0.7)

    def _hat(self, canvas: Canvas, hat: Garment) -> None:
        px = self._px
        base = 0.2 if hat.kind != "beanie" else 0.17
        grow = 1.09 if hat.kind != "brimmed hat" else 1.05
        turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)

        def ring(y: float, share: float) -> np.ndarray:
            return np.array(
                [self.project(self._half * share * np.cos(t), y, _DEPTH * share * np.sin(t)) for t in turn]
            )

        top = {"beanie": 0.66, "brimmed hat": 0.64}.get(hat.kind, 0.58)
        dome = [
            ring(base + (top - base) * k, grow * np.sqrt(max(1 - (0.93 * k) ** 2, 0.05)))
            for k in (0, 0.35, 0.7, 1.0)
        ]
        paint = Paint.of(hat, 0.8)
        if hat.kind == "brimmed hat":
            brim = ring(base, 1.62)
            brim[:, 1] += px * 0.05 * np.cos(turn)
            canvas.fill(hull(brim), Paint(_tone(np.array(hat.shade), 0.82)), _HAT)
        canvas.fill(hull(np.concatenate(dome)), paint, _HAT)
        if hat.kind == "cap" and np.cos(self._yaw) > -0.6:
            front = [
                self.project(x, base - 0.015, _DEPTH * 1.05 + 0.24 * (1 - (x / self._half) ** 2))
                for x in np.linspace(-0.8, 0.8, 7) * self._half
            ]
            back = [
                self.project(x, base + 0.06, _DEPTH * 0.9) for x in np.linspace(0.8, -0.8, 7) * self._half
            ]
            peak = np.array(front + back)
            peak[:7, 1] += px * 0.03
            canvas.fill(hull(peak), Paint(_tone(np.array(hat.shade), 0.78)), _HAT)
        if hat.kind == "beanie":
            band = np.concatenate([ring(base, grow * 1.03), ring(base + 0.1, grow * 1.02)])
            canvas.fill(hull(band), Paint(_tone(np.array(hat.shade), 0.85)), _HAT)


def _tone(colour: np.ndarray, share: float) -> tuple[float, float, float]:
    r, g, b = np.asarray(colour, float) * share
    return float(r), float(g), float(b)
