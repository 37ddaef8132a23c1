"""Poses: a real skeleton in metres, from joint angles, turned and projected by a simple camera.

Axes of a person who faces the camera: x to the person's left (right in the photo), y up, z towards
the camera. Directions of limbs are given by two angles: `out` away from the body's middle and
`ahead` forwards, both in degrees, 0 straight down.
"""

from dataclasses import dataclass, replace

import numpy as np

from demo.world.traits import Identity

Joints = dict[str, np.ndarray]
SIDES = (("l", 1.0), ("r", -1.0))


@dataclass(frozen=True)
class Pose:
    """Angles in degrees. Limbs are pairs (person's left, person's right)."""

    name: str
    arms: str
    thigh_ahead: tuple[float, float]
    thigh_out: tuple[float, float]
    knee_bend: tuple[float, float]
    arm_out: tuple[float, float]
    arm_ahead: tuple[float, float]
    forearm_out: tuple[float, float]
    forearm_ahead: tuple[float, float]
    lean: float = 0.0
    head_turn: float = 0.0
    head_tilt: float = 0.0


POSES = ("standing", "walking", "sitting")
ARMS = ("down", "raised", "waving", "on_hips")


def draw_pose(random: np.random.Generator, name: str, arms: str) -> Pose:
    """A pose of POSES with arms of ARMS; the rest is drawn."""

    def around(mean: float, spread: float) -> float:
        return float(random.normal(mean, spread))

    if name == "walking":
        stride = around(27, 4)
        lead = 1 if random.random() < 0.5 else -1
        thigh = (lead * stride, -lead * stride * 0.75)
        bend = (8.0, around(42, 8)) if lead > 0 else (around(42, 8), 8.0)
        out = (around(2, 1), around(2, 1))
    elif name == "sitting":
        thigh = (around(80, 5), around(80, 5))
        bend = (around(82, 8), around(82, 8))
        out = (abs(around(12, 5)), abs(around(12, 5)))
    else:
        thigh = (around(0, 3), around(0, 3))
        bend = (abs(around(0, 4)), abs(around(0, 4)))
        out = (abs(around(6, 3)), abs(around(6, 3)))

    def limb(kind: str, lead_sign: float) -> tuple[float, float, float, float]:
        if kind == "raised":
            return around(150, 9), around(5, 8), around(168, 8), around(5, 8)
        if kind == "on_hips":
            return around(48, 4), around(-8, 3), around(-42, 4), around(14, 4)
        swing = -lead_sign * around(24, 5) if name == "walking" else around(2, 4)
        rest = 34.0 if name == "sitting" else 0.0
        return abs(around(9, 3)), swing + rest, around(3, 4), swing + rest + abs(around(14, 7))

    first = 1.0 if thigh[0] > 0 else -1.0
    kinds = {"raised": ("raised",) * 2, "on_hips": ("on_hips",) * 2, "down": ("down",) * 2}.get(arms)
    if kinds is None:
        kinds = ("raised", "down") if random.random() < 0.5 else ("down", "raised")
    left, right = limb(kinds[0], first), limb(kinds[1], -first)
    return Pose(
        name,
        arms,
        thigh,
        out,
        bend,
        (left[0], right[0]),
        (left[1], right[1]),
        (left[2], right[2]),
        (left[3], right[3]),
        lean=around(3 if name == "walking" else 0, 2),
        head_turn=around(0, 9),
        head_tilt=around(0, 3),
    )


def _direction(out: float, ahead: float, side: float) -> np.ndarray:
    o, a = np.radians(out), np.radians(ahead)
    return np.array([side * np.sin(o), -np.cos(o) * np.cos(a), np.cos(o) * np.sin(a)])


def joints_of(identity: Identity, pose: Pose) -> Joints:
    """Joints in metres, feet on y = 0: head, neck, shoulders, elbows, wrists, hips, knees, ankles, toes."""
    tall = identity.height
    thigh, shin = 0.245 * tall * identity.legs, 0.245 * tall * identity.legs
    trunk = 0.295 * tall
    lean = np.radians(pose.lean)
    up = np.array([0.0, np.cos(lean), np.sin(lean)])
    joints: Joints = {"pelvis": np.zeros(3)}
    joints["neck"] = trunk * up
    joints["chest"] = 0.7 * trunk * up
    for i, (name, side) in enumerate(SIDES):
        hip = np.array([side * 0.052 * tall * identity.hips, -0.01 * tall, 0])
        knee = hip + thigh * _direction(pose.thigh_out[i], pose.thigh_ahead[i], side)
        shin_ahead = pose.thigh_ahead[i] - pose.knee_bend[i]
        ankle = knee + shin * _direction(pose.thigh_out[i] * 0.5, shin_ahead, side)
        toe = ankle + np.array([side * 0.018 * tall, -0.035 * tall, 0.085 * tall])
        shoulder = (
            joints["neck"] - 0.052 * tall * up + np.array([side * 0.091 * tall * identity.shoulders, 0, 0])
        )
        elbow = shoulder + 0.168 * tall * _direction(pose.arm_out[i], pose.arm_ahead[i], side)
        wrist = elbow + 0.148 * tall * _direction(pose.forearm_out[i], pose.forearm_ahead[i], side)
        hand = wrist + 0.045 * tall * _direction(pose.forearm_out[i], pose.forearm_ahead[i], side)
        for joint, place in zip(
            ("hip", "knee", "ankle", "toe", "shoulder", "elbow", "wrist", "hand"),
            (hip, knee, ankle, toe, shoulder, elbow, wrist, hand),
            strict=True,
        ):
            joints[f"{joint}_{name}"] = place
    joints["head"] = joints["neck"] + 0.087 * tall * (up + np.array([0, 0, 0.12]))
    floor = min(joints["ankle_l"][1], joints["ankle_r"][1]) - 0.045 * tall
    return {name: place - np.array([0, floor, 0]) for name, place in joints.items()}


@dataclass(frozen=True)
class Camera:
    """Where a figure stands in the photo.

    x, y: px of the point on the ground below the pelvis; px_per_m; yaw: degrees that the person is
    turned away (0 front, 90 to the photo's right, 180 back); pitch: degrees that it looks down.
    """

    x: float
    y: float
    px_per_m: float
    yaw: float
    pitch: float = 6.0

    def turn(self, point: np.ndarray) -> np.ndarray:
        """A point in metres, turned by yaw: x right in the photo, y up, z towards the camera."""
        a = np.radians(self.yaw)
        x, y, z = point
        return np.array([x * np.cos(a) + z * np.sin(a), y, -x * np.sin(a) + z * np.cos(a)])

    def project(self, point: np.ndarray) -> np.ndarray:
        """px [2] of a point in metres; near things are a little larger."""
        x, y, z = self.turn(point)
        p = np.radians(self.pitch)
        near = self.px_per_m * (1 + 0.12 * z)
        return np.array([self.x + near * x, self.y - near * (y * np.cos(p) - z * np.sin(p))])

    def turned(self, degrees: float) -> "Camera":
        """The same camera for a part turned further, such as a head."""
        return replace(self, yaw=self.yaw + degrees)
