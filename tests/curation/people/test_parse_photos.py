"""Photos outside of a run: parsed by the demo's own stages and weights, for generation and evaluation."""

from pathlib import Path

import numpy as np
import pytest

from curation.people.parse_photos import NobodyError, PhotoParser
from curation.pipeline_file import load_pipeline
from demo.world import make_identity, make_outfits, snapshot
from demo.world.collection import Shot, jpeg, shoot
from tests.drawn_pipeline import ROOT


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    """Two photos of a person and one of another, of a world that nothing was trained on."""
    found = []
    for number, shot in ((0, 0), (0, 1), (1, 0)):
        person = make_identity(907_123, number)
        outfit = make_outfits(person, 1)[0]
        found.append(shoot(snapshot(person, outfit, shot, framing="full", view="front")))
    return found


@pytest.fixture(scope="module")
def files(shots: list[Shot], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    written = [folder / f"{number}.jpg" for number in range(len(shots))]
    for file, shot in zip(written, shots, strict=True):
        file.write_bytes(shot.data)
    return written


@pytest.fixture(scope="module")
def parser() -> PhotoParser:
    weights = ROOT / "demo" / "weights"
    return PhotoParser(load_pipeline(str(ROOT / "pipelines.yaml"), "demo", [f"models.path={weights}"]))


def test_the_largest_person_s_pixels_are_found(
    parser: PhotoParser, shots: list[Shot], files: list[Path]
) -> None:
    for shot, found in zip(shots, parser.parse(files), strict=True):
        true = next(person for person in shot.people if person.main)
        inside = np.zeros(found.labels.shape, bool)
        x0, y0 = np.floor(true.box[:2]).astype(int)
        height, width = true.labels.shape
        inside[y0 : y0 + height, x0 : x0 + width] = true.labels > 0
        both, either = (inside & (found.labels > 0)).sum(), (inside | (found.labels > 0)).sum()
        assert both / either > 0.8
        assert found.photo.shape == (*found.labels.shape, 3)


def test_faces_of_one_person_are_nearer_than_those_of_two(parser: PhotoParser, files: list[Path]) -> None:
    faces = parser.faces(files)
    a, b, other = (face for face in faces if face is not None)
    assert a @ b > a @ other


def test_a_photo_of_nobody_and_a_broken_one_are_one_line(parser: PhotoParser, tmp_path: Path) -> None:
    (tmp_path / "grey.jpg").write_bytes(jpeg(np.full((400, 300, 3), 128, np.uint8), 90))
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    for name, why in (
        ("grey.jpg", "no person was found"),
        ("broken.jpg", "Unknown"),
        ("none.jpg", "No such file"),
    ):
        with pytest.raises(NobodyError, match=why) as caught:
            parser.parse([tmp_path / name])
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    assert parser.faces([tmp_path / "grey.jpg", tmp_path / "broken.jpg"]) == [None, None]
