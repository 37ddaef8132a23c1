"""What a threshold would keep at each of its values, from what the run stored.

Rows are decided again by the stages' own code, pairs are cut elsewhere, faces are clustered again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.columns import join_rows, list_array, put_column
from curation.evaluation.answers import match_boxes, read_answers, who_is_shown, whose_faces
from curation.evaluation.groups import same_outfit
from curation.evaluation.identities import pair_counts
from curation.evaluation.truth import Truth
from curation.fragments import Fragment
from curation.identities.assign import assign
from curation.ledger import FAILED, KEPT, NOT_MEASURED, last_decisions
from curation.meters import CallCounter
from curation.models import Model
from curation.people.chain import ChainContext
from curation.people.detect import OF_PHOTO
from curation.people.stages import PeopleChain
from curation.photos.pixels import Pixels
from curation.photos.screen import Screen
from curation.run_folder import Run
from curation.settings import PipelineSettings
from curation.storage import read_table

MOST_PHOTOS = 5_000  # decided again for each value; of a larger run a part that is spread evenly


@dataclass(frozen=True)
class Point:
    """One value of the threshold. Numbers that cannot be known are None.

    kept        things of the sweep's unit that stay
    unmeasured  of those, or besides them: what no model was asked about, since an earlier rule was stricter
    """

    value: float
    kept: int
    unmeasured: int = 0
    precision: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class Sweep:
    """Points of one threshold; `unit` is what is counted, `says` how, `current` what the run had."""

    key: str
    current: float
    unit: str
    says: str
    seen: int
    points: list[Point]


@dataclass(frozen=True)
class Question:
    """What a sweep is about: a run's threshold, its values each with the settings that have it, the truth."""

    run: str
    key: str
    current: float
    settings: Sequence[tuple[float, PipelineSettings]]
    truth: Truth | None

    def answer(self, unit: str, says: str, seen: int, points: list[Point]) -> Sweep:
        """The sweep with these points."""
        return Sweep(self.key, self.current, unit, says, seen, points)


def share(part: int, whole: int) -> float | None:
    """part / whole with four digits; None of nothing."""
    return round(part / whole, 4) if whole else None


def sweep_people(asked: Question) -> Sweep:
    """People that are still in after the phase `people`.

    Precision: of those, the ones that are a main person of the truth. Recall: of all main people on
    photos that came into the phase.
    """
    truth, parts = asked.truth, list(_before_people(asked.run))
    wanted = 0 if truth is None else sum(_main_people(truth, photos) for photos, _ in parts)
    points = []
    for value, changed in asked.settings:
        chain = _chain(changed)
        kept = unmeasured = right = 0
        for photos, people in parts:
            photos, people = chain.decide(photos, people)
            verdicts = people["verdict"].to_pylist()
            kept += verdicts.count(KEPT)
            unmeasured += verdicts.count(FAILED) + _not_measured(photos)
            right += 0 if truth is None else _main_kept(truth, people)
        precision = None if truth is None else share(right, kept)
        points.append(
            Point(value, kept, unmeasured, precision, None if truth is None else share(right, wanted))
        )
    seen = sum(photos.num_rows for photos, _ in parts)
    says = f"people still in after the phase people, of {seen} photos that came into it"
    return asked.answer("people", says, seen, points)


def sweep_photos(asked: Question) -> Sweep:
    """Photos that the stage `screen` lets through; what a looser limit would read anew is not counted."""
    tables = []
    for table in Run(asked.run).screened.by_index(_SCREENED).values():
        lists = list_array(table["decisions"])
        first = lists.flatten().take(lists.offsets[:-1])
        read = table.filter(pc.equal(first.field("verdict"), KEPT))
        tables.append(read.drop_columns(["verdict", "decisions"]))
    points = []
    for value, changed in asked.settings:
        stage = Screen(changed.photos.screen)
        kept = sum(stage.decide(table)["verdict"].to_pylist().count(KEPT) for table in tables)
        points.append(Point(value, kept))
    seen = sum(table.num_rows for table in tables)
    says = f"photos that the stage screen lets through, of {seen} that were read"
    return asked.answer("photos", says, seen, points)


_SCREENED = [
    "photo_id",
    "n_bytes",
    "format",
    "width",
    "height",
    "frames",
    "phash",
    "undecoded",
    "licence",
    "consent",
    "verdict",
    "decisions",
]
# Large, and read by no rule of the phase: what matters is which entries are null.
_BULKY = ("mask", "labels", "appearance")


def _before_people(run: str) -> Iterator[tuple[pa.Table, pa.Table]]:
    """(photos, people) of fragments of `people/` as they came into the phase, measurements included."""
    photos_before, after = Run(run).photos, Run(run)
    decided = {fragment.index: fragment for fragment in photos_before.fragments()}
    rows = 0
    for fragment in _spread([found for found in after.people.fragments() if found.index in decided]):
        before = photos_before.read(decided[fragment.index], ["source_key", "verdict", "decisions"])
        photos = read_table(after.people_photos.path(fragment)).drop_columns(["verdict", "decisions"])
        if before["source_key"] != photos["source_key"]:
            continue
        photos = join_rows(before, photos, "source_key")
        photos = photos.filter(pc.equal(photos["verdict"], KEPT))
        people = read_table(after.people.path(fragment)).drop_columns(["verdict", "decisions"])
        for name in _BULKY:
            people = put_column(
                people, name, pc.if_else(people[name].is_valid(), b"", pa.scalar(None, pa.binary()))
            )
        rows += photos.num_rows
        yield photos, join_rows(people, photos.select(["source_key", *OF_PHOTO]), "source_key")
        if rows >= MOST_PHOTOS:
            return


def _spread(fragments: list[Fragment]) -> list[Fragment]:
    """All fragments, in an order whose every start is spread over the run."""
    return sorted(fragments, key=lambda fragment: int(f"{fragment.index:032b}"[::-1], 2))


def _chain(pipeline: PipelineSettings) -> PeopleChain:
    """The chain of the phase, to decide and never to measure: its weights are named, not opened."""
    models = {name: Model(name, "", "", card.licence) for name, card in pipeline.models.cards.items()}
    context = ChainContext(Pixels(pipeline.source), CallCounter(None), pipeline.people.measure, models)
    return PeopleChain.of(pipeline.people, context)


def _not_measured(photos: pa.Table) -> int:
    """Photos that an earlier rule kept from a model that it is now needed of: nobody on them is known."""
    reasons = last_decisions(photos).field("reason")
    return int(pc.sum(pc.equal(reasons, NOT_MEASURED)).as_py() or 0)


def _main_people(truth: Truth, photos: pa.Table) -> int:
    return sum(
        person["main"]
        for photo_id in photos["photo_id"].to_pylist()
        for person in truth.people.get(photo_id, [])
    )


def _main_kept(truth: Truth, people: pa.Table) -> int:
    """Kept people that are a main person of the truth, by the boxes that fit best."""
    boxes: dict[str, list[list[float]]] = {}
    for row in people.filter(pc.equal(people["verdict"], KEPT)).select(["photo_id", "box"]).to_pylist():
        boxes.setdefault(row["photo_id"], []).append(row["box"])
    right = 0
    for photo_id, found in boxes.items():
        true = truth.people.get(photo_id, [])
        for match in match_boxes(
            np.array(found), np.array([person["box"] for person in true]).reshape(-1, 4)
        ):
            right += match is not None and bool(true[match]["main"])
    return right


def sweep_pairs(asked: Question) -> Sweep:
    """Pairs that the judge would call the same. Another cut would also ask about other pairs: those are
    not in it. Precision and recall are of the pairs that are one person in one outfit."""
    pairs = [
        (pair["a"], pair["b"], pair["score"])
        for table in Run(asked.run).outfits.tables(["pairs"])
        for shown in table["pairs"].to_pylist()
        for pair in shown or []
        if pair["score"] is not None
    ]
    is_same: list[bool] = []
    if asked.truth is not None:
        true = who_is_shown(read_answers(asked.run, asked.truth).looked_at)
        is_same = [same_outfit(true.get(a), true.get(b)) for a, b, _ in pairs]
    points = []
    for value, _ in asked.settings:
        answers = [score >= value for _, _, score in pairs]
        precision = recall = None
        if asked.truth is not None:
            right = sum(yes and same for yes, same in zip(answers, is_same, strict=True))
            precision, recall = share(right, sum(answers)), share(right, sum(is_same))
        points.append(Point(value, sum(answers), 0, precision, recall))
    says = f"pairs that the judge calls the same, of {len(pairs)} that it was asked and could tell"
    return asked.answer("pairs", says, len(pairs), points)


def sweep_identities(asked: Question) -> Sweep:
    """Identities with two people's photos or more. Precision and recall are those of pairs of people that
    were put together (docs/operating.md, identity_pairwise_*)."""
    truth, people = asked.truth, Run(asked.run).people
    who: dict[str, str | None] = {}
    if truth is not None:
        who = whose_faces(read_answers(asked.run, truth).looked_at)
    points, seen = [], 0
    for value, changed in asked.settings:
        least = changed.identities.prototype_cosine
        found = assign(people, changed.identities, changed.seed)
        seen = found.num_rows
        columns = ("person_id", "identity", "prototype_cosine", "attach_cosine")
        # A face with an attach_cosine was attached to no cluster: it is ruled out, and in no pair.
        names = [
            identity if cosine >= least and attached is None else person_id
            for person_id, identity, cosine, attached in zip(
                *(found[column].to_pylist() for column in columns), strict=True
            )
        ]
        sizes: dict[str, int] = {}
        for name in names:
            sizes[name] = sizes.get(name, 0) + 1
        kept = sum(size > 1 for size in sizes.values())
        precision = recall = None
        if truth is not None:
            true = [who.get(person_id) for person_id in found["person_id"].to_pylist()]
            both, in_found, in_true = pair_counts(names, true)
            precision, recall = share(both, in_found), share(both, in_true)
        points.append(Point(value, kept, 0, precision, recall))
    says = f"identities with two photos or more, of {seen} people whose faces were compared"
    return asked.answer("identities", says, seen, points)
