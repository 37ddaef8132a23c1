"""Rendering: a plan becomes pixels and the truth about them. A pure function of the plan."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from demo.world.canvas import Canvas
from demo.world.figure import Figure
from demo.world.outfits import Garment
from demo.world.plan import Cast, PhotoPlan
from demo.world.scene import draw_occluder, draw_scene, draw_seat, draw_shadow, plinth, poster_of
from demo.world.skeleton import Camera

_LEAST_PX = 24  # fewer visible pixels of a person are no person
_STONE = 7.0


@dataclass(frozen=True)
class PersonTruth:
    """What is true of one person of a photo.

    box             float32 [4]: x0, y0, x1, y1 in px, tight around the visible pixels
    labels          uint8 [h, w]: ATR labels on the box grown to whole pixels; 0 where not this person
    keypoints       float32 [17, 3]: COCO's joints as x, y and 0 outside or turned away, 1 hidden, 2 seen
    face_visible    both eyes and the nose can be seen
    visible_share   visible pixels / all pixels of the figure, those outside the photo included
    facts           pose, arms, view, framing, scene, expression: keys of FACTS
    """

    identity: str
    outfit: str
    box: np.ndarray
    labels: np.ndarray
    keypoints: np.ndarray
    face_visible: bool
    visible_share: float
    facts: dict[str, str]
    garments: dict[str, Garment]
    main: bool


@dataclass(frozen=True)
class Rendered:
    """image uint8 [height, width, 3], RGB; people in the order of the plan, the invisible left out."""

    image: np.ndarray
    people: list[PersonTruth]
    scene: str


def render(plan: PhotoPlan) -> Rendered:
    """Draws a plan. The same plan gives the same pixels."""
    random = np.random.default_rng([plan.seed, 5])
    scene = draw_scene(plan.scene, plan.width, plan.height, plan.horizon, random)
    canvas = Canvas(scene, plan.light.side)
    if plan.poster is not None:
        _poster(canvas, plan)
    # Who stands lower in the photo is nearer.
    order = sorted(range(len(plan.cast)), key=lambda i: plan.cast[i].foot)
    figures = {i: _figure(plan, plan.cast[i]) for i in order}
    for i in order:
        _draw(canvas, plan, plan.cast[i], figures[i], i + 1, random)
    if plan.occluder is not None:
        kind, x, foot = plan.occluder
        draw_occluder(canvas, kind, x * plan.width, foot * plan.height, _px_per_m(plan, 0.8), random)
    people = [_truth(canvas, plan, plan.cast[i], figures[i], i + 1) for i in range(len(plan.cast))]
    return Rendered(_expose(canvas.image, plan, random), [p for p in people if p is not None], plan.scene)


def _px_per_m(plan: PhotoPlan, tall: float) -> float:
    return tall * plan.height / 1.75


def _figure(plan: PhotoPlan, cast: Cast) -> Figure:
    camera = Camera(cast.x * plan.width, cast.foot * plan.height, _px_per_m(plan, cast.tall), cast.yaw)
    return Figure(cast.identity, cast.outfit, cast.pose, camera, cast.expression)


def _draw(
    canvas: Canvas, plan: PhotoPlan, cast: Cast, figure: Figure, who: int, random: np.random.Generator
) -> None:
    camera = figure.camera
    draw_shadow(canvas, camera.x, camera.y - 0.03 * camera.px_per_m, camera.px_per_m)
    if cast.statue:
        _statue(canvas, figure)
        return
    if cast.pose.name == "sitting":
        pelvis = figure.joints["pelvis"]
        foot = camera.project(np.array([pelvis[0], 0.0, pelvis[2]]))
        draw_seat(canvas, float(foot[0]), float(foot[1]), camera.px_per_m, float(pelvis[1]) - 0.09, random)
    canvas.who = who
    figure.draw(canvas)
    canvas.who = 0


def _statue(canvas: Canvas, figure: Figure) -> None:
    """The figure in stone: its pixels are nobody's."""
    camera = figure.camera
    plinth(canvas, camera.x, camera.y, camera.px_per_m, 0.5)
    stone = Canvas(canvas.image.copy(), canvas.light)
    stone.who = 1
    figure.draw(stone)
    inside = stone.owner == 1
    grey = stone.image[inside].mean(1, keepdims=True)
    tint = np.array([[0.98, 1.0, 0.96]], np.float32)
    flat = np.float32(118) + np.float32(0.42) * (grey - np.float32(110))
    canvas.image[inside] = (
        flat * tint + np.float32(_STONE) * np.sin(np.arange(len(grey), dtype=np.float32))[:, None] * 0.3
    )


def _poster(canvas: Canvas, plan: PhotoPlan) -> None:
    assert plan.poster is not None
    who, x, low, tall = plan.poster
    inner = replace(plan, width=300, height=440, kind="photo", cast=(who,), poster=None, occluder=None)
    poster_of(render(inner).image, canvas, x * plan.width, low * plan.height, tall * plan.height)


def _expose(image: np.ndarray, plan: PhotoPlan, random: np.random.Generator) -> np.ndarray:
    light = plan.light
    out = image * (np.float32(light.bright) * np.array(light.cast, np.float32))
    across = np.linspace(-1, 1, plan.width, dtype=np.float32)[None, :, None]
    out *= 1 + np.float32(0.07 * light.side) * across
    if light.blur > 0:
        out = cv2.GaussianBlur(out, (0, 0), light.blur)
    if light.noise > 0.3:
        grain = random.standard_normal(out.shape[:2], np.float32)  # sensors' noise is mostly of brightness
        out += grain[..., None] * np.float32(light.noise)
    return np.asarray(np.clip(out, 0, 255).astype(np.uint8))


def _truth(canvas: Canvas, plan: PhotoPlan, cast: Cast, figure: Figure, who: int) -> PersonTruth | None:
    if cast.statue:
        return None
    visible_mask = canvas.owner == who
    visible_mask &= canvas.label > 0
    ys, xs = np.flatnonzero(visible_mask.any(1)), np.flatnonzero(visible_mask.any(0))
    visible = int(visible_mask.sum())
    if visible < _LEAST_PX:
        return None
    x0, y0, x1, y1 = int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
    labels = np.where(visible_mask, canvas.label, 0)[y0:y1, x0:x1]
    places, facing = figure.keypoints()
    keypoints = np.zeros((17, 3), np.float32)
    for joint, ((x, y), turned_here) in enumerate(zip(places, facing, strict=True)):
        inside = 0 <= x < plan.width and 0 <= y < plan.height
        if inside and turned_here:
            keypoints[joint] = x, y, 2 if _near(canvas.owner, who, x, y) else 1
    face_visible = bool((keypoints[:3, 2] == 2).all())
    full = _full_pixels(plan, cast, figure, visible, visible_mask)
    facts = {
        "pose": cast.pose.name,
        "arms": cast.pose.arms,
        "view": cast.view,
        "framing": cast.framing,
        "scene": plan.scene,
        "expression": cast.expression if face_visible else "hidden",
    }
    return PersonTruth(
        identity=cast.identity.key,
        outfit=cast.outfit.key,
        box=np.array([x0, y0, x1, y1], np.float32),
        labels=np.ascontiguousarray(labels),
        keypoints=keypoints,
        face_visible=face_visible,
        visible_share=visible / max(full, visible),
        facts=facts,
        garments=dict(cast.outfit.garments),
        main=cast.main,
    )


def _near(owner: np.ndarray, who: int, x: float, y: float) -> bool:
    """Whether the person's own pixels are within 3 px of a joint."""
    xi, yi = int(x), int(y)
    return bool((owner[max(yi - 3, 0) : yi + 4, max(xi - 3, 0) : xi + 4] == who).any())


def _full_pixels(plan: PhotoPlan, cast: Cast, figure: Figure, visible: int, visible_mask: np.ndarray) -> int:
    """Pixels of the whole figure, drawn alone and small on a canvas that holds all of it."""
    alone = plan.occluder is None and len(plan.cast) == 1
    edge = (
        visible_mask[0].any()
        or visible_mask[-1].any()
        or visible_mask[:, 0].any()
        or visible_mask[:, -1].any()
    )
    if alone and not edge:
        return visible
    scale = 160 / max(figure.px * 1.75, 1)
    camera = replace(figure.camera, x=160.0, y=235.0, px_per_m=figure.px * scale)
    canvas = Canvas(np.zeros((300, 320, 3), np.float32))
    canvas.who = 1
    Figure(cast.identity, cast.outfit, cast.pose, camera, cast.expression).draw(canvas)
    return int((canvas.label > 0).sum() / scale**2)
