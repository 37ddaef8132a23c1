"""Plans: everything that one photo will show, chosen from a seed, before a pixel is drawn."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from demo.world.outfits import Garment, Outfit, make_outfits
from demo.world.scene import OCCLUDERS, SCENES, horizon_of
from demo.world.skeleton import Pose, draw_pose
from demo.world.traits import Identity, look_alike, make_identity

VIEWS = {"front": 0.52, "three_quarter": 0.24, "side": 0.1, "back": 0.14}
FRAMINGS = {"full": 0.74, "knees_up": 0.16, "waist_up": 0.1}
_POSE_ODDS = {"standing": 0.48, "walking": 0.28, "sitting": 0.24}
_ARM_ODDS = {"down": 0.55, "raised": 0.13, "waving": 0.17, "on_hips": 0.15}
_EXPRESSIONS = {"neutral": 0.4, "smiling": 0.42, "open_mouth": 0.18}
_OCCLUDED = 0.1
_WITH_COMPANY = 0.12
_OUTFITS_OWNED = (0.26, 0.3, 0.22, 0.12, 0.06, 0.04)  # shares of people with one to six
Wardrobe = Literal["drawn", "seen"]


@dataclass(frozen=True)
class Cast:
    """One figure of a photo.

    x: share of the width; foot: share of the height at which it stands; tall: height of an upright
    figure of 1.75 m as a share of the photo's; yaw in degrees. `statue` figures are stone.
    """

    identity: Identity
    outfit: Outfit
    pose: Pose
    view: str
    framing: str
    expression: str
    x: float
    foot: float
    tall: float
    yaw: float
    main: bool = True
    statue: bool = False


@dataclass(frozen=True)
class Light:
    """bright: factor; cast: RGB factors; side: -1 left to 1 right; noise: sigma of 255; blur: px."""

    bright: float
    cast: tuple[float, float, float]
    side: float
    noise: float
    blur: float


@dataclass(frozen=True)
class PhotoPlan:
    """A photo to be rendered; `seed` draws what the plan leaves open."""

    key: str
    kind: str
    width: int
    height: int
    scene: str
    horizon: float
    light: Light
    cast: tuple[Cast, ...]
    occluder: tuple[str, float, float] | None  # kind, x and foot as shares
    poster: tuple[Cast, float, float, float] | None  # who, x, lower edge, height as shares
    jpeg_quality: int
    seed: int
    copy_of: str | None = None


@dataclass(frozen=True)
class World:
    """A collection: its people, what each wears, and its photos."""

    seed: int
    identities: tuple[Identity, ...]
    outfits: dict[str, tuple[Outfit, ...]]  # by the key of an identity
    photos: tuple[PhotoPlan, ...]


def snapshot(
    identity: Identity,
    outfit: Outfit,
    seed: int,
    *,
    framing: str | None = None,
    pose: str | None = None,
    view: str | None = None,
    scene: str | None = None,
) -> PhotoPlan:
    """A plan of one person, main and largest; what is not given is drawn from `seed`.

    framing may also be "portrait" (head and shoulders), which worlds do not contain.
    """
    random = np.random.default_rng([*identity.seed, 3, seed])
    return _photo(random, f"{outfit.key}-{seed}", [(identity, outfit)], framing, pose, view, scene)


def make_world(seed: int, photos: int, wardrobe: Wardrobe = "drawn") -> World:
    """A collection of about `photos` photos, copies and distractors included; one seed, one world.

    wardrobe: "drawn": nine photos of a person on average, in runs of two or three of one outfit of the one
    to six that they own, so that many are seen in one outfit only. "seen": everyone is seen in one to six
    outfits, in three to six photos of each, so that who owns more clothes is in more photos.
    """
    if photos < 1:
        raise ValueError(f"a world needs at least one photo, not {photos}")
    random = np.random.default_rng([seed, 4])
    extra = {"crowd": 0.03, "poster": 0.025, "statue": 0.02, "empty": 0.02, "corrupt": 0.01}
    numbers = {kind: max(round(share * photos), 1) if photos >= 40 else 0 for kind, share in extra.items()}
    copies = round(0.05 * photos)
    subjects = photos - copies - sum(numbers.values())
    seen = _photos_of_outfits(random, subjects) if wardrobe == "seen" else []
    count = len(seen) or max(round(photos / 9), 1)
    identities = [make_identity(seed, number) for number in range(count)]
    for number in range(count // 25):
        identities[-1 - number] = look_alike(identities[number], seed, count + number)
    sizes = [len(worn) for worn in seen] or [int(random.choice(6, p=_OUTFITS_OWNED)) + 1 for _ in identities]
    outfits = {who.key: tuple(make_outfits(who, size)) for who, size in zip(identities, sizes, strict=True)}
    _uniforms(identities, outfits, [n for n, size in enumerate(sizes) if size == 1 or not seen], random)
    plans: list[PhotoPlan] = []
    order: list[tuple[Identity, Outfit]] = []
    for who, worn_in in zip(identities, seen, strict=False):
        for worn, times in zip(outfits[who.key], worn_in, strict=True):
            order += [(who, worn)] * times
    while len(order) < subjects:
        who = identities[int(random.integers(count))]
        worn = outfits[who.key][int(random.integers(len(outfits[who.key])))]
        order += [(who, worn)] * int(random.integers(2, 4))
    for number, (who, worn) in enumerate(order[:subjects]):
        cast = [(who, worn)]
        if random.random() < _WITH_COMPANY:
            other = identities[int(random.integers(count))]
            if other.key != who.key:
                cast.append((other, outfits[other.key][int(random.integers(len(outfits[other.key])))]))
        plans.append(_photo(random, f"{seed}-{number:06d}", cast))
    for kind, many in numbers.items():
        keys = [f"{seed}-{kind}-{number:04d}" for number in range(many)]
        plans += [_distractor(random, kind, key, identities, outfits) for key in keys]
    originals = [plan for plan in plans if plan.kind == "photo"]
    for number in range(copies):
        original = originals[int(random.integers(len(originals)))]
        plans.append(
            replace(
                original,
                key=f"{seed}-copy-{number:04d}",
                kind="photo",
                jpeg_quality=int(random.integers(55, 85)),
                copy_of=original.key,
            )
        )
    return World(seed, tuple(identities), outfits, tuple(plans))


def _photos_of_outfits(random: np.random.Generator, photos: int) -> list[list[int]]:
    """People, and for each of their outfits in how many photos it is, until there are at least `photos`."""
    people: list[list[int]] = []
    while sum(sum(worn) for worn in people) < photos:
        people.append(random.integers(3, 7, size=int(random.integers(1, 7))).tolist())
    return people


def _uniforms(
    identities: list[Identity],
    outfits: dict[str, tuple[Outfit, ...]],
    among: list[int],
    random: np.random.Generator,
) -> None:
    """Gives some people the same outfit, each under a key of their own; who owns more keeps theirs."""
    many = max(len(identities) // 12, 2)
    if len(identities) < 6 or len(among) < many:
        return
    worn = outfits[identities[0].key][0].garments
    for place in random.choice(len(among), many, replace=False):
        key = identities[among[int(place)]].key
        own = outfits[key]
        outfits[key] = (Outfit(own[0].key, worn), *own[1:]) if len(own) == 1 else own


def _pick(random: np.random.Generator, odds: dict[str, float]) -> str:
    return str(random.choice(list(odds), p=np.array(list(odds.values())) / sum(odds.values())))


def _yaw(random: np.random.Generator, view: str) -> float:
    sign = 1.0 if random.random() < 0.5 else -1.0
    if view == "front":
        return float(random.uniform(-20, 20))
    if view == "three_quarter":
        return sign * float(random.uniform(26, 40))
    if view == "side":
        return sign * float(random.uniform(78, 96))
    return 180.0 + float(random.uniform(-28, 28))


def _photo(
    random: np.random.Generator,
    key: str,
    people: list[tuple[Identity, Outfit]],
    framing: str | None = None,
    pose: str | None = None,
    view: str | None = None,
    scene: str | None = None,
) -> PhotoPlan:
    height = int(random.integers(640, 897))
    ratio = float(random.uniform(0.62, 0.8)) if len(people) == 1 else float(random.uniform(0.9, 1.25))
    width = int(height * ratio)
    if width > 900:
        width, height = 900, int(900 / ratio)
    scene = scene or str(random.choice(SCENES))
    cast: list[Cast] = []
    for number, (who, worn) in enumerate(people):
        framed = framing or (_pick(random, FRAMINGS) if number == 0 else cast[0].framing)
        x = 0.5 + random.normal(0, 0.05) if len(people) == 1 else 0.3 + 0.42 * number + random.normal(0, 0.03)
        cast.append(_figure(random, who, worn, framed, pose, view, float(x), 1.0 if number == 0 else 0.86))
    occluder = None
    if random.random() < _OCCLUDED and framing is None:
        occluder = (
            str(random.choice(OCCLUDERS)),
            float(random.uniform(0.2, 0.8)),
            float(random.uniform(0.97, 1.06)),
        )
    return PhotoPlan(
        key=key,
        kind="photo",
        width=width,
        height=height,
        scene=scene,
        horizon=horizon_of(scene, random),
        light=_light(random, scene),
        cast=tuple(cast),
        occluder=occluder,
        poster=None,
        jpeg_quality=int(random.integers(72, 96)),
        seed=int(random.integers(2**31)),
    )


def _figure(
    random: np.random.Generator,
    who: Identity,
    worn: Outfit,
    framing: str,
    pose: str | None,
    view: str | None,
    x: float,
    size: float,
) -> Cast:
    posed = pose or _pick(random, _POSE_ODDS)
    arms = _pick(random, _ARM_ODDS)
    view = view or _pick(random, VIEWS)
    sitting = posed == "sitting"
    # How tall an upright figure would be; a sitting one may be drawn larger, since it is lower.
    tall, foot = {
        "full": (random.uniform(0.68, 0.9) * (1.12 if sitting else 1), random.uniform(0.92, 0.975)),
        "knees_up": (random.uniform(1.05, 1.2), random.uniform(1.24, 1.32)),
        "waist_up": (random.uniform(1.4, 1.6), random.uniform(1.62, 1.8)),
        "portrait": (random.uniform(2.2, 2.8), random.uniform(2.5, 2.9)),
    }[framing]
    if arms in ("raised", "waving") and framing == "full" and not sitting:
        tall = min(tall, 0.76)
    if sitting and framing != "full":
        foot -= 0.22 * tall
    yaw = _yaw(random, view)
    return Cast(
        identity=who,
        outfit=worn,
        pose=draw_pose(random, posed, arms),
        view=view,
        framing=framing,
        expression=_pick(random, _EXPRESSIONS),
        x=x,
        foot=float(foot),
        tall=float(tall * size),
        yaw=yaw,
    )


def _light(random: np.random.Generator, scene: str) -> Light:
    dark = 0.82 if scene == "night" else 1.0
    warm = float(random.normal(0, 0.05))
    return Light(
        bright=float(np.clip(random.normal(1.0, 0.11), 0.72, 1.25)) * dark,
        cast=(1 + warm, 1.0, 1 - warm),
        side=float(random.uniform(-1, 1)),
        noise=float(random.uniform(0, 6)),
        blur=float(random.choice([0.0, 0.0, 0.0, random.uniform(0.4, 0.9)])),
    )


def _distractor(
    random: np.random.Generator,
    kind: str,
    key: str,
    identities: list[Identity],
    outfits: dict[str, tuple[Outfit, ...]],
) -> PhotoPlan:
    def somebody() -> tuple[Identity, Outfit]:
        who = identities[int(random.integers(len(identities)))]
        return who, outfits[who.key][int(random.integers(len(outfits[who.key])))]

    base = _photo(random, key, [somebody()], framing="full")
    base = replace(base, kind=kind, occluder=None)
    if kind == "crowd":
        many = min(int(random.integers(8, 13)), len(identities))
        seen: set[str] = set()
        place = random.permutation(many)
        crowd: list[Cast] = []
        while len(crowd) < many:
            who, worn = somebody()
            if who.key in seen:
                continue
            seen.add(who.key)
            number = len(crowd)
            foot = 0.74 + 0.22 * number / many
            # Side by side in a drawn order, so that most of each is seen.
            x = float((place[number] + random.uniform(0.3, 0.7)) / many)
            figure = _figure(random, who, worn, "full", "standing", None, x, 1.0)
            crowd.append(replace(figure, foot=foot, tall=0.42 * foot, main=False))
        return replace(base, width=880, height=640, cast=tuple(crowd))
    if kind == "statue":
        return replace(base, cast=(replace(base.cast[0], statue=True, tall=0.62, foot=0.8),))
    if kind == "poster":
        return replace(
            base,
            cast=(),
            poster=(base.cast[0], float(random.uniform(0.3, 0.7)), 0.72, float(random.uniform(0.3, 0.55))),
        )
    if kind == "empty":
        return replace(base, cast=())
    return base


__all__ = ["Cast", "Garment", "Light", "PhotoPlan", "World", "make_world", "snapshot"]
