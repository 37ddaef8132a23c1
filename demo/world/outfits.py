"""Outfits: what an identity wears. Later outfits of a person include the hard cases of a judge."""

from dataclasses import dataclass, replace

import numpy as np

from demo.world.traits import Identity

# Names a caption or a judge would use, with their usual RGB.
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (34, 34, 38),
    "white": (238, 238, 234),
    "grey": (138, 140, 144),
    "navy": (34, 48, 98),
    "blue": (48, 104, 196),
    "light blue": (148, 194, 230),
    "teal": (24, 128, 130),
    "green": (52, 138, 66),
    "olive": (112, 116, 52),
    "yellow": (236, 204, 60),
    "orange": (232, 128, 36),
    "red": (200, 38, 42),
    "burgundy": (112, 26, 48),
    "pink": (238, 150, 178),
    "purple": (118, 62, 150),
    "brown": (114, 72, 42),
    "beige": (212, 190, 152),
}
PATTERNS = ("plain", "stripes", "vertical stripes", "checks", "dots", "block", "print")
_PATTERN_ODDS = (0.5, 0.12, 0.06, 0.1, 0.08, 0.07, 0.07)
# Garments of one slot whose colours are nearer than this (CIE Lab) are taken for the same by people.
LEAST_DIFFERENCE = 28.0


@dataclass(frozen=True)
class Garment:
    """One piece of clothing.

    colour and second are names of COLOURS; shade is the RGB that was dyed, near the name's. length
    is 0 (short) to 1 (long), of sleeves for upper garments and of legs or hem for lower ones.
    """

    kind: str
    colour: str
    pattern: str
    shade: tuple[float, float, float]
    second: tuple[float, float, float]
    length: float = 1.0
    scale: float = 1.0
    loose: float = 1.0


@dataclass(frozen=True)
class Outfit:
    """All that is worn. A dress stands for upper and lower."""

    key: str
    garments: tuple[tuple[str, Garment], ...]

    def get(self, slot: str) -> Garment | None:
        """The garment of a slot: upper, lower, dress, shoes, outer, hat, scarf or bag."""
        return dict(self.garments).get(slot)


KINDS: dict[str, tuple[str, ...]] = {
    "upper": ("t-shirt", "shirt", "sweater", "top", "hoodie", "polo"),
    "lower": ("trousers", "jeans", "shorts", "skirt", "long skirt", "leggings"),
    "dress": ("dress", "long dress"),
    "outer": ("jacket", "coat", "vest", "cardigan"),
    "shoes": ("sneakers", "boots", "loafers", "sandals"),
    "hat": ("cap", "beanie", "brimmed hat"),
    "scarf": ("scarf",),
    "bag": ("shoulder bag", "backpack", "handbag"),
}
_WORN = {"outer": 0.24, "hat": 0.16, "scarf": 0.12, "bag": 0.2}
# How a later outfit comes from an earlier one, and how often.
_VARIANTS = {
    "fresh": 0.5,
    "other upper": 0.17,
    "other lower": 0.1,
    "jacket added": 0.13,
    "other colour": 0.1,
}


def make_outfits(identity: Identity, count: int) -> list[Outfit]:
    """`count` outfits, 1 to 26, keyed KEY-a, KEY-b and so on; any two differ to the eye."""
    outfits: list[Outfit] = []
    for number in range(count):
        random = np.random.default_rng([*identity.seed, 2, number])
        for _ in range(50):
            if outfits:
                variant = str(random.choice(list(_VARIANTS), p=list(_VARIANTS.values())))
                worn = _vary(dict(outfits[int(random.integers(len(outfits)))].garments), variant, random)
            else:
                worn = _fresh(random)
            if all(differ(worn, dict(other.garments)) for other in outfits):
                break
        key = f"{identity.key}-{chr(ord('a') + number)}"
        outfits.append(Outfit(key, tuple(sorted(worn.items()))))
    return outfits


def bareheaded(outfit: Outfit) -> Outfit:
    """The outfit without a hat."""
    return replace(outfit, garments=tuple((slot, worn) for slot, worn in outfit.garments if slot != "hat"))


def in_a_hat(outfit: Outfit, random: np.random.Generator) -> Outfit:
    """The outfit with a hat that is drawn from `random`, whatever was worn on the head before."""
    worn = {**dict(outfit.garments), "hat": _garment("hat", random)}
    return replace(outfit, garments=tuple(sorted(worn.items())))


def differ(a: dict[str, Garment], b: dict[str, Garment]) -> bool:
    """Whether a person would see two outfits: a main garment more, or one that looks different."""
    for slot in ("lower", "dress", "outer", "upper"):
        one, two = a.get(slot), b.get(slot)
        if slot == "upper" and "outer" in a:
            continue  # from behind, one and the same jacket hides what is under it
        if (one is None) != (two is None):
            return True
        if one is not None and two is not None and looks_different(one, two):
            return True
    return False


def looks_different(a: Garment, b: Garment) -> bool:
    """Whether two garments of a slot are told apart at a glance, by colour above all."""
    return float(np.linalg.norm(_lab(a.shade) - _lab(b.shade))) >= LEAST_DIFFERENCE


def _fresh(random: np.random.Generator) -> dict[str, Garment]:
    worn = {}
    if random.random() < 0.2:
        worn["dress"] = _garment("dress", random)
    else:
        worn["upper"] = _garment("upper", random)
        worn["lower"] = _garment("lower", random)
    worn["shoes"] = _garment("shoes", random)
    for slot, odds in _WORN.items():
        if random.random() < odds:
            worn[slot] = _garment(slot, random)
    return worn


def _vary(worn: dict[str, Garment], variant: str, random: np.random.Generator) -> dict[str, Garment]:
    top = "dress" if "dress" in worn else "upper"
    if variant == "other upper" or (variant == "other lower" and top == "dress"):
        return {**worn, top: _other(worn[top], top, random)}
    if variant == "other lower":
        return {**worn, "lower": _other(worn["lower"], "lower", random)}
    if variant == "jacket added":
        if "outer" in worn:
            return {slot: garment for slot, garment in worn.items() if slot != "outer"}
        outer = _garment("outer", random)
        while not looks_different(outer, worn[top]):
            outer = _garment("outer", random)
        return {**worn, "outer": outer}
    if variant == "other colour":
        changed = _other(worn[top], top, random)
        return {
            **worn,
            top: replace(worn[top], colour=changed.colour, shade=changed.shade, second=changed.second),
        }
    return _fresh(random)


def _other(old: Garment, slot: str, random: np.random.Generator) -> Garment:
    new = _garment(slot, random)
    while not looks_different(new, old):
        new = _garment(slot, random)
    return new


def _garment(slot: str, random: np.random.Generator) -> Garment:
    kind = str(random.choice(KINDS[slot]))
    name = str(random.choice(list(COLOURS)))
    if kind == "jeans":
        name = str(random.choice(["blue", "navy", "light blue", "black", "grey"]))
    shade = np.clip(np.array(COLOURS[name]) + random.normal(0, 7, 3), 12, 246)
    others = [other for other in COLOURS if np.linalg.norm(_lab(COLOURS[other]) - _lab(shade)) > 35]
    second = np.array(COLOURS[str(random.choice(others))], float)
    patterned = slot in ("upper", "dress", "scarf") or (slot in ("lower", "outer") and random.random() < 0.4)
    pattern = str(random.choice(PATTERNS, p=_PATTERN_ODDS)) if patterned and kind != "jeans" else "plain"
    if slot in ("lower", "scarf", "outer") and pattern in ("block", "print"):
        pattern = "plain"
    length = {
        "t-shirt": random.uniform(0.2, 0.45),
        "polo": random.uniform(0.25, 0.45),
        "top": random.uniform(0.0, 0.12),
        "dress": random.choice([0.0, 0.3, 1.0]),
        "long dress": random.choice([0.0, 0.3, 1.0]),
        "shorts": random.uniform(0.3, 0.48),
        "skirt": random.uniform(0.3, 0.5),
        "vest": 0.0,
        "boots": random.uniform(0.5, 1.0),
    }.get(kind, 1.0)
    return Garment(
        kind,
        name,
        pattern,
        (float(shade[0]), float(shade[1]), float(shade[2])),
        (float(second[0]), float(second[1]), float(second[2])),
        float(length),
        float(random.uniform(0.8, 1.5)),
        float(random.uniform(0.95, 1.3)),
    )


def _lab(rgb: "tuple[float, ...] | np.ndarray") -> np.ndarray:
    """CIE Lab (D65) of an sRGB colour, 0 to 255; formulas of IEC 61966-2-1 and CIE 15."""
    values = np.asarray(rgb, float) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
