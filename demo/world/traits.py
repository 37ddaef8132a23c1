"""Identities: the stable traits of a face and a body. All vary continuously, so that no two agree."""

from dataclasses import dataclass, field, fields, replace

import numpy as np

SKIN_TONES = np.array(
    [[244, 212, 190], [232, 188, 158], [208, 158, 122], [172, 118, 84], [128, 84, 58], [88, 58, 42]], float
)
HAIR_TONES = np.array(
    [
        [28, 24, 24],
        [62, 40, 28],
        [110, 70, 40],
        [168, 120, 66],
        [220, 186, 118],
        [150, 62, 34],
        [168, 166, 164],
    ],
    float,
)
EYE_TONES = np.array([[62, 40, 24], [104, 72, 40], [84, 112, 72], [76, 116, 156], [110, 122, 130]], float)
HAIR_FORMS = ("bald", "short", "crop", "curly", "bob", "long", "ponytail", "bun")
BEARDS = ("none", "none", "none", "stubble", "moustache", "goatee", "full")
GLASSES = ("none", "none", "none", "round", "square", "dark")


@dataclass(frozen=True)
class Face:
    """Shape of a head and its features, in heads: 1 is the height from chin to crown.

    Feature heights count from the middle of the head upwards, distances from its axis.
    """

    width: float  # of the head / its height
    jaw: float  # width at the jaw / width at the cheeks
    chin: float  # width at the chin / width at the cheeks
    forehead: float
    eye_height: float
    eye_distance: float  # from the axis to an eye's middle
    eye_width: float
    eye_open: float
    eye_slant: float
    brow_gap: float
    brow_thick: float
    brow_arch: float
    nose_length: float
    nose_width: float
    mouth_height: float
    mouth_width: float
    lip_thick: float
    ear_size: float
    hairline: float


# Ranges of each trait: roughly what adults show (mean ± 2 standard deviations of face anthropometry),
# widened a little so that faces of 30 px still differ.
FACE_RANGES: dict[str, tuple[float, float]] = {
    "width": (0.62, 0.82),
    "jaw": (0.66, 0.95),
    "chin": (0.22, 0.52),
    "forehead": (0.80, 1.0),
    "eye_height": (-0.02, 0.07),
    "eye_distance": (0.125, 0.185),
    "eye_width": (0.095, 0.15),
    "eye_open": (0.035, 0.07),
    "eye_slant": (-0.02, 0.025),
    "brow_gap": (0.055, 0.105),
    "brow_thick": (0.012, 0.045),
    "brow_arch": (0.0, 0.035),
    "nose_length": (0.13, 0.24),
    "nose_width": (0.05, 0.105),
    "mouth_height": (-0.34, -0.25),
    "mouth_width": (0.09, 0.17),
    "lip_thick": (0.016, 0.05),
    "ear_size": (0.07, 0.13),
    "hairline": (0.26, 0.38),
}


@dataclass(frozen=True)
class Identity:
    """A person of the world: who stays the same through all clothes, poses and scenes.

    skin, hair_colour and eye_colour are RGB, 0 to 255; height in metres; build scales all widths.
    """

    key: str
    face: Face
    skin: tuple[float, float, float]
    hair_colour: tuple[float, float, float]
    eye_colour: tuple[float, float, float]
    hair: str
    hair_volume: float
    hair_length: float
    parting: float
    beard: str
    glasses: str
    height: float
    build: float
    shoulders: float
    hips: float
    legs: float
    seed: tuple[int, int] = field(repr=False)


def make_identity(seed: int, number: int) -> Identity:
    """The identity `number` of the world `seed`; the same for the same two numbers."""
    random = np.random.default_rng([seed, number, 1])
    face = Face(**{name: float(random.uniform(*FACE_RANGES[name])) for name in FACE_RANGES})
    skin = _between(SKIN_TONES, random) + random.normal(0, 4, 3)
    grey = random.random() < 0.1
    hair_colour = HAIR_TONES[6] if grey else _between(HAIR_TONES[:6], random)
    womanly = random.random() < 0.5
    forms = (
        ("curly", "bob", "long", "ponytail", "bun", "crop")
        if womanly
        else ("short", "crop", "curly", "bald", "short", "bob")
    )
    return Identity(
        key=f"s{seed}-{number:05d}",
        face=face,
        skin=_rgb(skin),
        hair_colour=_rgb(hair_colour + random.normal(0, 8, 3)),
        eye_colour=_rgb(_between(EYE_TONES, random)),
        hair=str(random.choice(forms)),
        hair_volume=float(random.uniform(0.02, 0.11)),
        hair_length=float(random.uniform(0.3, 1.4)),
        parting=float(random.uniform(-0.7, 0.7)),
        beard="none" if womanly else str(random.choice(BEARDS)),
        glasses=str(random.choice(GLASSES)),
        height=float(np.clip(random.normal(1.65 if womanly else 1.78, 0.07), 1.48, 1.98)),
        build=float(random.uniform(0.84, 1.25)),
        shoulders=float(random.uniform(0.9, 1.0) if womanly else random.uniform(0.98, 1.12)),
        hips=float(random.uniform(1.0, 1.14) if womanly else random.uniform(0.92, 1.02)),
        legs=float(random.uniform(0.97, 1.03)),
        seed=(seed, number),
    )


def look_alike(of: Identity, seed: int, number: int, likeness: float = 0.6) -> Identity:
    """Another person who resembles `of`: same hair form and beard, features drawn towards theirs.

    likeness is how far, 0 (not at all) to 1 (a twin).
    """
    other = make_identity(seed, number)
    face = Face(
        **{
            f.name: likeness * getattr(of.face, f.name) + (1 - likeness) * getattr(other.face, f.name)
            for f in fields(Face)
        }
    )

    def near(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float, float]:
        return _rgb(likeness * np.array(a) + (1 - likeness) * np.array(b))

    return replace(
        other,
        face=face,
        skin=near(of.skin, other.skin),
        hair_colour=near(of.hair_colour, other.hair_colour),
        hair=of.hair,
        beard=of.beard,
        height=likeness * of.height + (1 - likeness) * other.height,
        build=likeness * of.build + (1 - likeness) * other.build,
    )


def _between(tones: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A tone between two neighbours of a scale."""
    place = random.uniform(0, len(tones) - 1)
    low = min(int(place), len(tones) - 2)
    return np.asarray(tones[low] + (place - low) * (tones[low + 1] - tones[low]))


def _rgb(values: np.ndarray) -> tuple[float, float, float]:
    r, g, b = np.clip(values, 8, 250)
    return float(r), float(g), float(b)
