"""Pictures of a run for its page: groups as they lie in the shards, and who was ruled out, by reason."""

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from curation.funnel import stages_before_people
from curation.identities.phase import Identity
from curation.ledger import KEPT
from curation.photos.decode import decode_rgb
from curation.run_folder import Run
from curation.sources.photo_bytes import PhotoBytes
from shards.format.members import is_picture
from shards.reading.folder import DatasetFolder

_HEIGHT_PX = 176
_WIDEST = 1.5  # a wider photo is cut to this many times its height
_AROUND = 0.08  # of a person's box, on each side


@dataclass(frozen=True)
class Picture:
    """A thumbnail as data URL (None where the file cannot be shown) and what to say of it."""

    url: str | None
    says: str


@dataclass
class Shown:
    """A row of pictures: a packed group, or some of those that one reason ruled out."""

    title: str
    count: int
    pictures: list[Picture] = field(default_factory=list)


def packed_groups(run: Path, groups: int, photos_each: int) -> list[Shown]:
    """The groups with the most photos, read from the shards by their index."""
    folder = DatasetFolder(str(run / "shards"))
    numbers = sorted(range(len(folder)), key=lambda number: (-folder.index.people(number), number))[:groups]
    shown = []
    for number in sorted(numbers):
        sample = folder.read(number)
        names = [name for name in sample.members if is_picture(name)]
        pictures = []
        for name in names[:photos_each]:
            record = json.loads(sample.members[name.rsplit(".", 1)[0] + ".json"])
            pictures.append(Picture(_thumbnail(sample.members[name], record["box"]), record["caption"]))
        shown.append(Shown(sample.key, len(names), pictures))
    return shown


def ruled_out(run: Path, each: int) -> list[Shown]:
    """For every stage and reason that ruled something out, up to `each` pictures, in order of the funnel."""
    photos = PhotoBytes(Run(str(run)).pipeline()[1].source)
    places: dict[str, dict[str, Any]] = {}
    found: dict[tuple[str, str], Shown] = {}

    def note(decision: dict[str, Any], photo: dict[str, Any], box: list[float] | None) -> None:
        title = f"{decision['stage']}: {decision['reason']}"
        shown = found.setdefault((decision["stage"], decision["reason"]), Shown(title, 0))
        shown.count += 1
        if len(shown.pictures) < each:
            shown.pictures.append(Picture(_picture(photos, photo, box), _numbers(decision)))

    columns = ["photo_id", "uri", "offset", "length", "row", "orientation", "verdict", "decisions"]
    shown = Run(str(run)).photos_with_people(columns, ["person_id", "box", "verdict", "decisions"])
    for photo, people in sorted(shown, key=lambda one: one[0]["photo_id"] or ""):
        last = photo["decisions"][-1]
        if photo["verdict"] != KEPT and last["stage"] in stages_before_people():
            note(last, photo, None)
            continue
        for person in people:
            places[person["person_id"]] = {**photo, "box": person["box"]}
            if person["verdict"] != KEPT:
                note(person["decisions"][-1], photo, person["box"])
    for row in Run(str(run)).identities.rows(["person_id", "verdict", "decisions"]):
        last = row["decisions"][-1]
        if row["verdict"] != KEPT and last["stage"] == Identity.name:
            note(last, places[row["person_id"]], places[row["person_id"]]["box"])
    for row in Run(str(run)).outfits.rows(["person_ids", "person_verdicts", "person_decisions"]):
        for i, person_id in enumerate(row["person_ids"]):
            if row["person_verdicts"][i] != KEPT:
                note(row["person_decisions"][i][-1], places[person_id], places[person_id]["box"])
    return list(found.values())


def _numbers(decision: dict[str, Any]) -> str:
    if decision["score"] is None:
        return str(decision["detail"])[:60]
    return f"{decision['score']:g}, threshold {decision['threshold']:g}"


def _picture(photos: PhotoBytes, row: dict[str, Any], box: list[float] | None) -> str | None:
    try:
        return _thumbnail(photos.read(row), box, row["orientation"] or 1)
    except (OSError, EOFError, ValueError):  # what the run could not read, the page cannot show
        return None


def _thumbnail(data: bytes, box: list[float] | None, told: int = 1) -> str:
    image = Image.fromarray(decode_rgb(data, told=told))
    if box is not None:
        x, y = _AROUND * (box[2] - box[0]), _AROUND * (box[3] - box[1])
        left, top = max(box[0] - x, 0), max(box[1] - y, 0)
        image = image.crop(
            (
                round(left),
                round(top),
                round(min(box[2] + x, image.width)),
                round(min(box[3] + y, image.height)),
            )
        )
    size = (
        max(min(round(image.width * _HEIGHT_PX / image.height), round(_WIDEST * _HEIGHT_PX)), 1),
        _HEIGHT_PX,
    )
    sink = io.BytesIO()
    ImageOps.fit(image, size).save(sink, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
