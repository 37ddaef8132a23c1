"""Figures: a posed body with its clothes, drawn from back to front, and where its joints are."""

import numpy as np

from demo.world.canvas import Canvas, Frame, Paint, capsule, ellipse, hull
from demo.world.head import HEAD_SHARE, Head
from demo.world.outfits import Garment, Outfit
from demo.world.skeleton import SIDES, Camera, Joints, Pose, joints_of
from demo.world.traits import Identity

_UPPER, _SKIRT, _PANTS, _DRESS, _FACE, _BAG, _SCARF = 4, 5, 6, 7, 11, 16, 17
_SHOE, _LEG, _ARM = {"l": 9, "r": 10}, {"l": 12, "r": 13}, {"l": 14, "r": 15}
_DETAIL = 255
# COCO's order after the five of the head.
COCO_BODY = tuple(
    f"{joint}_{side}"
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("l", "r")
)
# Half width and half depth of the trunk in metres at 1.75 m, from the neck (0) to the pelvis (1).
_TRUNK = (
    (-0.04, 0.05, 0.05),
    (0.03, 0.1, 0.07),
    (0.1, 0.17, 0.09),
    (0.17, 0.188, 0.105),
    (0.35, 0.166, 0.12),
    (0.65, 0.138, 0.108),
    (0.92, 0.162, 0.122),
    (1.06, 0.17, 0.125),
)


class Figure:
    """One person on a canvas."""

    def __init__(
        self, identity: Identity, outfit: Outfit, pose: Pose, camera: Camera, expression: str
    ) -> None:
        self.identity, self.outfit, self.pose, self.camera = identity, outfit, pose, camera
        self.expression = expression
        self.joints: Joints = joints_of(identity, pose)
        self.size = identity.height / 1.75
        self.px = camera.px_per_m
        self._wide = self.size * identity.build
        self._at = {name: camera.project(place) for name, place in self.joints.items()}
        self._z = {name: float(camera.turn(place)[2]) for name, place in self.joints.items()}
        near = 1 + 0.12 * self._z["head"]
        turn = 0.0 if abs(camera.yaw) > 130 else pose.head_turn
        self.head = Head(identity, self._at["head"], camera.turned(turn), near, pose.head_tilt)

    def keypoints(self) -> tuple[np.ndarray, np.ndarray]:
        """px [17, 2] in COCO's order, and [17] whether the head's points face the camera."""
        points = self.head.points()
        places = np.concatenate([points.places, np.array([self._at[name] for name in COCO_BODY])])
        return places, np.concatenate([points.seen, np.ones(12, bool)])

    def draw(self, canvas: Canvas) -> None:
        """Everything, from back to front."""
        behind = [s for s, _ in SIDES if self._z[f"elbow_{s}"] < self._z["chest"] - 0.09]
        ahead = [s for s, _ in SIDES if s not in behind]
        legs = sorted((s for s, _ in SIDES), key=lambda s: self._z[f"knee_{s}"] + self._z[f"ankle_{s}"])
        lap = self._z["knee_l"] > self._z["hip_l"] + 0.2
        back = abs(self.camera.yaw) > 100
        bag = self.outfit.get("bag")
        if bag is not None and not back:
            self._bag(canvas, bag, behind=True)
        for side in behind:
            self._arm(canvas, side)
        if not lap:
            self._lower(canvas, legs)
        self._trunk(canvas)
        if lap:
            self._lower(canvas, legs)
        self._over(canvas)
        hat, scarf = self.outfit.get("hat"), self.outfit.get("scarf")
        if back:
            self._neck(canvas)
            if scarf is not None:
                self._scarf(canvas, scarf)
            self.head.draw(canvas, self.expression, hat)
            self.head.draw_behind(canvas) if self.identity.hair in (
                "long",
                "bob",
                "ponytail",
                "bun",
            ) else None
            if hat is not None:
                self.head._hat(canvas, hat)
        if bag is not None:
            self._bag(canvas, bag, behind=False)
        if not back:
            self.head.draw_behind(canvas)
            self._neck(canvas)
            if scarf is not None:
                self._scarf(canvas, scarf)
        for side in ahead:
            self._arm(canvas, side)
        if not back:
            self.head.draw(canvas, self.expression, hat)

    # Skin and clothes of a limb are capsules; clothes are wider by `ease` metres.
    def _limb(self, canvas: Canvas, a: str, b: str, radii: tuple[float, float], paint: Paint, label: int,
              ease: float = 0.0, start: float = 0.0, end: float = 1.0) -> None:  # fmt: skip
        pa, pb = self._at[a], self._at[b]
        ra, rb = ((r * self._wide + ease) * self.px for r in radii)
        canvas.limb(
            pa + start * (pb - pa),
            pa + end * (pb - pa),
            ra + start * (rb - ra),
            ra + end * (rb - ra),
            paint,
            label,
            self.px,
        )

    def _skin(self, round: float = 0.6) -> Paint:
        return Paint(self.identity.skin, round=round)

    def _arm(self, canvas: Canvas, side: str) -> None:
        skin = self._skin()
        upper, fore = (f"shoulder_{side}", f"elbow_{side}"), (f"elbow_{side}", f"wrist_{side}")
        self._limb(canvas, *upper, (0.05, 0.041), skin, _ARM[side])
        self._limb(canvas, *fore, (0.042, 0.03), skin, _ARM[side])
        self._limb(canvas, f"wrist_{side}", f"hand_{side}", (0.034, 0.036), skin, _ARM[side])
        top = self.outfit.get("dress") or self.outfit.get("upper")
        if top is not None:
            self._sleeve(canvas, side, top, _DRESS if self.outfit.get("dress") else _UPPER, 0.012)
        outer = self.outfit.get("outer")
        if outer is not None:
            self._sleeve(canvas, side, outer, _UPPER, 0.022)
        bag = self.outfit.get("bag")
        if bag is not None and bag.kind == "handbag" and side == "l":
            self._handbag(canvas, bag)

    def _sleeve(self, canvas: Canvas, side: str, garment: Garment, label: int, ease: float) -> None:
        if garment.length <= 0.02:
            return
        paint = Paint.of(garment, 0.6)
        ease *= garment.loose
        upper = min(garment.length * 2, 1.0)
        if garment.length > 0.5:
            self._limb(canvas, f"elbow_{side}", f"wrist_{side}", (0.042, 0.033), paint, label, ease,
                       end=min(garment.length * 2 - 1, 0.97))  # fmt: skip
        self._limb(canvas, f"shoulder_{side}", f"elbow_{side}", (0.051, 0.044), paint, label, ease, end=upper)

    def _lower(self, canvas: Canvas, legs: list[str]) -> None:
        lower = self.outfit.get("dress") or self.outfit.get("lower")
        shoes = self.outfit.get("shoes")
        skirt = lower is not None and (self.outfit.get("dress") is not None or "skirt" in lower.kind)
        for side in legs:
            self._limb(canvas, f"hip_{side}", f"knee_{side}", (0.086, 0.058), self._skin(), _LEG[side])
            self._limb(canvas, f"knee_{side}", f"ankle_{side}", (0.058, 0.036), self._skin(), _LEG[side])
            if lower is not None and not skirt:
                self._trouser_leg(canvas, side, lower)
            if shoes is not None:
                self._shoe(canvas, side, shoes)
        if lower is None:
            return
        if skirt:
            self._skirt(canvas, lower, _DRESS if self.outfit.get("dress") else _SKIRT)
        else:
            self._seat(canvas, Paint.of(lower), _PANTS)

    def _trouser_leg(self, canvas: Canvas, side: str, lower: Garment) -> None:
        tight = lower.kind == "leggings"
        ease = 0.004 if tight else 0.014 * lower.loose
        paint = Paint.of(lower, 0.65)
        if lower.length > 0.5:
            cuff = 0.036 if tight else 0.05 * lower.loose
            self._limb(canvas, f"knee_{side}", f"ankle_{side}", (0.058, cuff), paint, _PANTS, ease, end=0.94)
        self._limb(canvas, f"hip_{side}", f"knee_{side}", (0.09, 0.062), paint, _PANTS, ease,
                   end=min(2 * lower.length, 1.0))  # fmt: skip

    def _seat(self, canvas: Canvas, paint: Paint, label: int) -> None:
        """Hips, between waist and legs."""
        middle = self._at["pelvis"]
        w = self.px * self._wide * self.identity.hips
        wide = w * float(np.hypot(0.158 * np.cos(np.radians(self.camera.yaw)), 0.125))
        wide = min(wide, 0.172 * w)
        outline = np.concatenate(
            [middle + np.array([[-wide * 0.88, -0.1 * self.px], [wide * 0.88, -0.1 * self.px]])]
            + [ellipse(self._at[f"hip_{s}"], 0.088 * w, 0.092 * w) for s, _ in SIDES]
        )
        frame = Frame(middle, np.array([0.0, 1.0]), self.px, wide)
        canvas.fill(hull(outline), paint, label, frame)

    def _skirt(self, canvas: Canvas, garment: Garment, label: int) -> None:
        long = garment.kind.startswith("long")
        reach = 0.75 if long else 0.0
        hem = []
        for side, _ in SIDES:
            knee, ankle, hip = self._at[f"knee_{side}"], self._at[f"ankle_{side}"], self._at[f"hip_{side}"]
            end = knee + reach * (ankle - knee) if long else hip + (0.75 + 0.2 * garment.scale) * (knee - hip)
            radius = (0.1 + (0.05 if long else 0.025) * garment.loose) * self.px * self._wide
            hem.append(ellipse(end, radius, radius * 0.45))
        w = self.px * self._wide * self.identity.hips
        middle = self._at["pelvis"]
        yaw = np.radians(self.camera.yaw)
        waist = w * float(np.hypot(0.145 * np.cos(yaw), 0.115 * np.sin(yaw)))
        hips = w * float(np.hypot(0.18 * np.cos(yaw), 0.14 * np.sin(yaw)))
        tops = middle + np.array(
            [
                [-waist, -0.13 * self.px],
                [waist, -0.13 * self.px],
                [-hips, 0.02 * self.px],
                [hips, 0.02 * self.px],
            ]
        )
        outline = hull(np.concatenate([tops, *hem]))
        frame = Frame(middle, np.array([0.0, 1.0]), self.px, hips * 1.25)
        canvas.fill(outline, Paint.of(garment, 0.5), label, frame)
        # Folds that fall from the waist.
        low = np.concatenate(hem)
        for share in (0.25, 0.5, 0.75):
            x = low[:, 0].min() + share * np.ptp(low[:, 0])
            y = float(low[:, 1].mean())
            start = middle + np.array([(share - 0.5) * 1.2 * hips, 0.04 * self.px])
            canvas.line(np.array([start, [x, y - 0.02 * self.px]]), 0.012 * self.px, (10, 10, 12), 0.16)

    def _shoe(self, canvas: Canvas, side: str, shoes: Garment) -> None:
        ankle, toe = self._at[f"ankle_{side}"], self._at[f"toe_{side}"]
        w, label = self.px * self.size, _SHOE[side]
        paint = Paint.of(shoes, 0.4)
        heel = ankle + (ankle - toe) * 0.18 + np.array([0, 0.022 * w])
        foot = hull(
            np.concatenate(
                [
                    ellipse(ankle + np.array([0, 0.006 * w]), 0.044 * w, 0.04 * w),
                    ellipse(heel, 0.036 * w, 0.03 * w),
                    ellipse(toe + np.array([0, -0.002 * w]), 0.045 * w, 0.034 * w),
                ]
            )
        )
        if shoes.kind == "boots":
            knee = self._at[f"knee_{side}"]
            top = ankle + (0.25 + 0.35 * shoes.length) * (knee - ankle)
            canvas.limb(ankle, top, 0.048 * w, 0.062 * w, paint, label, self.px)
        canvas.fill(foot, paint, label)
        low = foot[foot[:, 1] > np.percentile(foot[:, 1], 60)]
        if len(low) > 1:
            sole = low[np.argsort(low[:, 0])]
            white = shoes.kind == "sneakers"
            colour = (236.0, 236.0, 232.0) if white else (30.0, 24.0, 20.0)
            canvas.line(sole, max(0.018 * w, 1.0), colour, 0.9)
        if shoes.kind == "sandals":
            middle = (ankle + toe) / 2
            canvas.fill(ellipse(middle, 0.022 * w, 0.018 * w), self._skin(), _DETAIL)

    def _outline(self, start: float, end: float, ease: float) -> tuple[np.ndarray, Frame]:
        """The trunk between two levels as a px outline, with coordinates for its paint."""
        yaw = np.radians(self.camera.yaw)
        neck, pelvis = self.joints["neck"], self.joints["pelvis"]
        levels = np.array([level for level, _, _ in _TRUNK])
        rows = np.unique(np.concatenate([[start, end], levels[(levels > start) & (levels < end)]]))
        left, right = [], []
        widest = 0.0
        for level in rows:
            half = float(np.interp(level, levels, [w for _, w, _ in _TRUNK]))
            deep = float(np.interp(level, levels, [d for _, _, d in _TRUNK]))
            own = self.identity.shoulders if level < 0.3 else self.identity.hips if level > 0.8 else 1.0
            shoulders = self.size if level < 0.2 else self._wide
            wide = float(
                np.hypot(
                    (half * own * shoulders + ease) * np.cos(yaw), (deep * self._wide + ease) * np.sin(yaw)
                )
            )
            middle = self.camera.project(neck + level * (pelvis - neck))
            left.append(middle - np.array([wide * self.px, 0]))
            right.append(middle + np.array([wide * self.px, 0]))
            widest = max(widest, wide)
        top, low = self._at["neck"], self._at["pelvis"]
        axis = (low - top) / max(float(np.hypot(*(low - top))), 1e-6)
        return np.array(left + right[::-1]), Frame(top, axis, self.px, widest * self.px)

    def _trunk(self, canvas: Canvas) -> None:
        upper, dress = self.outfit.get("upper"), self.outfit.get("dress")
        outline, frame = self._outline(-0.04, 1.06, 0.0)
        canvas.fill(outline, self._skin(), _FACE, frame)
        garment = dress or upper
        if garment is None:
            return
        label = _DRESS if dress else _UPPER
        hem = {"top": 0.9, "sweater": 1.12, "hoodie": 1.15}.get(garment.kind, 1.06)
        outline, frame = self._outline(-0.01, min(hem, 1.06), 0.012 * garment.loose)
        canvas.fill(outline, Paint.of(garment, 0.5), label, frame)
        if hem > 1.06 or not dress:
            self._folds(canvas)
        if abs(self.camera.yaw) < 80:
            self._front(canvas, garment)

    def _folds(self, canvas: Canvas) -> None:
        low, top = self._at["pelvis"], self._at["chest"]
        for share in (-0.5, 0.45):
            a = low + np.array([share * 0.16 * self.px, -0.02 * self.px])
            b = low + 0.45 * (top - low) + np.array([share * 0.09 * self.px, 0])
            canvas.line(np.array([a, b]), 0.014 * self.px, (8, 8, 10), 0.12)

    def _front_point(self, level: float, depth: float = 0.115) -> np.ndarray:
        neck, pelvis = self.joints["neck"], self.joints["pelvis"]
        place = neck + level * (pelvis - neck) + np.array([0, 0, depth * self._wide])
        return self.camera.project(place)

    def _front(self, canvas: Canvas, garment: Garment) -> None:
        """Neckline, collar, buttons, pocket."""
        px, facing = self.px, float(np.cos(np.radians(self.camera.yaw)))
        neck = self._front_point(0.0, 0.06)
        deep = 0.09 if garment.kind in ("top", "dress", "long dress") else 0.035
        if garment.kind in ("shirt", "polo"):
            dark = _darker(garment.shade)
            v = self._front_point(0.16)
            for sign in (1, -1):
                corner = neck + np.array([sign * 0.075 * px * facing, 0.0])
                canvas.fill(
                    np.array([neck, corner, v + np.array([sign * 0.045 * px * facing, 0])]),
                    Paint(dark),
                    _DETAIL,
                )
            canvas.fill(
                np.array([_aside(neck, -0.04 * px * facing), _aside(neck, 0.04 * px * facing), v]),
                self._skin(),
                _FACE,
            )
            levels = np.arange(0.25, 1.0, 0.14) if garment.kind == "shirt" else np.array([0.22])
            for level in levels:
                canvas.fill(
                    ellipse(self._front_point(float(level)), 0.009 * px, 0.009 * px, steps=8),
                    Paint(dark),
                    _DETAIL,
                )
        else:
            canvas.fill(ellipse(neck, 0.07 * px * max(facing, 0.3), deep * px), self._skin(0.2), _FACE)
        if garment.kind == "hoodie":
            a, b = self._front_point(0.68), self._front_point(0.92)
            wide = 0.1 * px * facing
            pocket = np.array(
                [_aside(a, -wide * 0.7), _aside(a, wide * 0.7), _aside(b, wide), _aside(b, -wide)]
            )
            canvas.line(np.concatenate([pocket, pocket[:1]]), 0.012 * px, _darker(garment.shade), 0.8)

    def _over(self, canvas: Canvas) -> None:
        """The outer layer: open in front, so that what is under it shows."""
        outer = self.outfit.get("outer")
        if outer is None:
            return
        end = {"jacket": 1.02, "cardigan": 1.06, "vest": 0.98}.get(outer.kind, 1.06)
        ease = 0.026 * outer.loose
        outline, frame = self._outline(-0.02, end, ease)
        coat = outer.kind == "coat"
        yaw = np.radians(self.camera.yaw)
        paint = Paint.of(outer, 0.5)
        if coat:
            reach = [
                self._at[f"hip_{s}"] + 0.8 * (self._at[f"knee_{s}"] - self._at[f"hip_{s}"]) for s, _ in SIDES
            ]
            radius = 0.125 * self.px * self._wide
            hips = self._outline(0.9, 1.06, ease)[0]
            tails = hull(np.concatenate([hips, *(ellipse(p, radius, radius * 0.4) for p in reach)]))
            pieces = [outline, tails]
        else:
            pieces = [outline]
        for piece in pieces:
            for part in self._opened(piece, yaw):
                canvas.fill(part, paint, _UPPER, frame)
        if abs(self.camera.yaw) < 80:
            dark = _darker(outer.shade)
            for sign in (1, -1):
                gap = 0.05 * np.cos(yaw)
                lapel = np.array(
                    [
                        _aside(self._front_point(level), sign * gap * (1 + (0.2 - level)) * self.px)
                        for level in (0.02, 0.35, 0.95)
                    ]
                )
                canvas.line(lapel, 0.016 * self.px, dark, 0.9)

    def _opened(self, outline: np.ndarray, yaw: float) -> list[np.ndarray]:
        """A closed outline, or its left and right parts beside the opening in front."""
        if np.cos(yaw) < 0.15:
            return [outline]
        middle = self._front_point(0.6)[0]
        gap = 0.05 * float(np.cos(yaw)) * self.px
        parts = [_clip(outline, middle - gap, below=True), _clip(outline, middle + gap, below=False)]
        return [part for part in parts if len(part) > 2]

    def _neck(self, canvas: Canvas) -> None:
        head = self._at["head"]
        neck = self._at["neck"] + np.array([0, 0.02 * self.px])
        jaw = neck + 0.75 * (head - neck)
        radius = 0.047 * np.sqrt(self.identity.build) * self.size * self.px
        skin = np.array(self.identity.skin) * 0.88
        canvas.limb(
            neck,
            jaw,
            radius * 1.1,
            radius,
            Paint((float(skin[0]), float(skin[1]), float(skin[2]))),
            _FACE,
            self.px,
        )

    def _scarf(self, canvas: Canvas, scarf: Garment) -> None:
        px, paint = self.px * self.size, Paint.of(scarf, 0.6)
        neck = self._at["neck"]
        frame = Frame(neck, np.array([0.0, 1.0]), self.px, 0.1 * px)
        if abs(self.camera.yaw) < 90:
            end = self._front_point(0.52) + np.array([0.05 * px, 0])
            canvas.limb(self._front_point(0.05), end, 0.045 * px, 0.05 * px, paint, _SCARF, self.px)
        canvas.fill(ellipse(neck + np.array([0, 0.005 * px]), 0.105 * px, 0.06 * px), paint, _SCARF, frame)

    def _bag(self, canvas: Canvas, bag: Garment, behind: bool) -> None:
        px, paint = self.px * self.size, Paint.of(bag, 0.4)
        back = abs(self.camera.yaw) > 100
        if bag.kind == "backpack":
            if behind or back:
                neck, pelvis = self.joints["neck"], self.joints["pelvis"]
                top, low = (
                    self.camera.project(neck + t * (pelvis - neck) + [0, 0, -0.2 * self.size])
                    for t in (0.15, 0.85)
                )
                wide = px * float(np.hypot(0.15 * np.cos(np.radians(self.camera.yaw)), 0.09))
                canvas.fill(
                    hull(
                        np.concatenate([ellipse(top, wide * 0.8, 0.06 * px), ellipse(low, wide, 0.06 * px)])
                    ),
                    paint,
                    _BAG,
                )
            elif abs(self.camera.yaw) < 80:
                for side, sign in SIDES:
                    a, b = (
                        self._at[f"shoulder_{side}"],
                        self._at["pelvis"] + 0.45 * (self._at["chest"] - self._at["pelvis"]),
                    )
                    start = a + np.array([-sign * 0.05 * px * np.cos(np.radians(self.camera.yaw)), 0.0])
                    stop = np.array([a[0] + 0.3 * (b[0] - a[0]), b[1]])
                    canvas.limb(start, stop, 0.02 * px, 0.018 * px, paint, _BAG, self.px)
        elif bag.kind == "shoulder bag" and not behind:
            start, stop = self._at["shoulder_r"], self._at["hip_l"]
            canvas.limb(start, stop, 0.013 * px, 0.013 * px, paint, _BAG, self.px)
            middle = stop + np.array([0.02 * px, 0.06 * px])
            box = middle + np.array([[-0.1, -0.07], [0.1, -0.07], [0.11, 0.08], [-0.11, 0.08]]) * px
            canvas.fill(box, paint, _BAG)
            canvas.line(box[:2] + np.array([0, 0.05 * px]), 0.012 * px, _darker(bag.shade), 0.8)

    def _handbag(self, canvas: Canvas, bag: Garment) -> None:
        px = self.px * self.size
        hand = self._at["hand_l"]
        box = hand + np.array([[-0.1, 0.05], [0.1, 0.05], [0.12, 0.22], [-0.12, 0.22]]) * px
        canvas.line(
            np.array([box[0] + [0.03 * px, 0], hand, box[1] - [0.03 * px, 0]]), 0.016 * px, _darker(bag.shade)
        )
        canvas.fill(box, Paint.of(bag, 0.4), _BAG)

    @property
    def head_px(self) -> float:
        """Height of the head in px."""
        return self.px * HEAD_SHARE * self.identity.height


def _aside(point: np.ndarray, px: float) -> np.ndarray:
    return point + np.array([px, 0.0])


def _darker(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    return colour[0] * 0.62, colour[1] * 0.62, colour[2] * 0.62


def _clip(outline: np.ndarray, x: float, below: bool) -> np.ndarray:
    """The part of a polygon on one side of a vertical line (Sutherland-Hodgman)."""
    kept: list[np.ndarray] = []
    for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        inside_a, inside_b = ((a[0] <= x) == below), ((b[0] <= x) == below)
        if inside_a:
            kept.append(a)
        if inside_a != inside_b:
            t = (x - a[0]) / (b[0] - a[0])
            kept.append(a + t * (b - a))
    return np.array(kept).reshape(-1, 2)


__all__ = ["COCO_BODY", "Figure", "capsule"]
