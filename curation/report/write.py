"""Writes the report of a run: the data of its page in files, the page itself last."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from curation.declared import SIGNS
from curation.errors import ConfigError
from curation.evaluation.truth import read_truth
from curation.funnel import NUMBERS
from curation.outfits.phase import Outfits
from curation.report.data_files import DataFiles, Pages, SearchKeys, is_ours
from curation.report.decisions import Words
from curation.report.exclusions import excluded_photos
from curation.report.figures import KeptPeople, distribution_entries, rate_entries
from curation.report.galleries import (
    Endings,
    doubts_of_phase,
    merge_entries,
    pairs_by_doubt,
    suspected_merges,
    write_groups,
    write_pairs,
)
from curation.report.scores import ScoreBook, Subject, score_entries
from curation.report.subjects import Group, LaterPhases, PhotoRow, read_later, read_rows
from curation.report.sweep import Sweep, check_sweep, sweep
from curation.report.thumbnails import Cut, write_thumbnails
from curation.run_folder import Run
from curation.settings import PipelineSettings
from curation.settings.base import setting_of
from curation.status import read_status
from curation.storage import join, write_bytes

ROWS_PAGE = 200
SAMPLE = 24  # of each reason
NEAR = 12  # on each side of a threshold
SUSPECTS = 24
_SUSPECT_PEOPLE = 6
_MISSED_LINES = 20  # of an opt-out list: their numbers are named
_PAIRS_SHOWN = 96  # whose people have thumbnails before anybody else


@dataclass(frozen=True)
class Report:
    """What was written. `page` is the file to open."""

    page: str
    photos: int
    thumbnails: int
    excluded: int
    bytes: int
    sweeps: list[Sweep]


def write_report(
    run: str, out: str, truth: str | None = None, sweeps: Sequence[str] = (), thumbnails: int = 2000
) -> Report:
    """Writes the report of `run` into the folder `out`.

    truth       folder of a truth: measures, and precision and recall of sweeps
    sweeps      as `curation.report.sweep` reads them
    thumbnails  how many pictures at most

    Raises ConfigError for no run, a folder that holds something else, or a bad sweep or truth.
    """
    name, pipeline = Run(run).pipeline()
    if not is_ours(out, _page_files()):
        raise ConfigError(f"--out {out}: holds something that is no report; give an empty or new folder")
    status = read_status(run)
    # All that can be wrong is found before the report that is there is touched.
    for wanted in sweeps:
        check_sweep(pipeline, wanted)
    checked = None if truth is None else read_truth(truth)
    measures = _measures(run, truth)
    excluded = excluded_photos(run, pipeline)
    words = Words()
    later = read_later(run, words, excluded)
    cut = setting_of(pipeline, Outfits.pairs.key)
    files = DataFiles(out)
    known = _Known(words, later)
    rows = Pages(files, "rows", ROWS_PAGE)
    for row in read_rows(run, words, later, excluded):
        rows.add(_short_row(row))
        known.add(row)
    for pair in later.pairs:
        if pair.score is not None and pair.a in known.at:
            known.book.add_pair(pair.score, pair.same, cut, known.at[pair.a])
    swept = [sweep(run, pipeline, wanted, checked, known.book.range_of) for wanted in sweeps]
    page = _overview(run, name, pipeline, status, known, later.groups)
    within, between = suspected_merges(run, excluded, SUSPECTS)
    page |= {
        "rows": rows.close(),
        "excluded": len(excluded),
        "groups": write_groups(files, later.groups, known.at),
        "pairs": write_pairs(files, later.pairs, known.at, cut),
        "keys": known.keys.write(files),
        "endings": known.endings.write(files, [stage["stage"] for stage in status["stages"]]),
        "failures": known.endings.failures(),
        "merges": {
            "cosine": pipeline.identities.merge_cosine,
            "within": merge_entries(within, known.at, _SUSPECT_PEOPLE),
            "doubts": merge_entries(doubts_of_phase(run, excluded, SUSPECTS), known.at, 1),
            "between": merge_entries(between, known.at, _SUSPECT_PEOPLE),
        },
        "measures": measures,
        "sweeps": [asdict(found) for found in swept],
    }
    shown = _wanted(page, later, known, cut, thumbnails)
    page["thumbs"] = write_thumbnails(files, run, pipeline, shown)
    page["words"] = words.all
    files.put("overview", page)
    _write_page(out)
    return Report(
        join(out, "index.html"),
        page["rows"]["count"],
        page["thumbs"]["count"],
        len(excluded),
        files.bytes,
        swept,
    )


class _Known:
    """What is remembered of the rows while they stream by."""

    def __init__(self, words: Words, later: LaterPhases) -> None:
        self.book = ScoreBook(words)
        self.keys = SearchKeys()
        self.endings = Endings(words, SAMPLE)
        self.kept = KeptPeople(name for group in later.groups for name in group.person_ids)
        self.at: dict[str, Subject] = {}
        self.boxes: dict[Subject, tuple[str, list[int] | None]] = {}

    def add(self, row: PhotoRow) -> None:
        """Takes up a row."""
        self.book.add(row.decisions, (row.number, -1))
        self.keys.add(row)
        for place, decisions in row.subjects():
            self.endings.add(row, place, decisions)
            if row.photo_id is not None and row.width:
                box = None if place < 0 else row.people[place].box
                self.boxes[row.number, place] = (row.photo_id, box)
        for place, person in enumerate(row.people):
            self.book.add(person.decisions, (row.number, place))
            self.at[person.person_id] = (row.number, place)
            if row.width and row.height:
                x0, y0, x1, y1 = person.box
                self.kept.add(
                    person.person_id, person.regions, min(row.width, row.height), max(x1 - x0, y1 - y0)
                )


def _short_row(row: PhotoRow) -> list[Any]:
    """[photo_id, source_key, file_name, width, height, decisions, people]."""
    people = [
        [
            person.box,
            person.regions,
            person.identity,
            person.group,
            person.caption,
            person.decisions,
            person.from_face,
        ]
        for person in row.people
    ]
    size = [row.width, row.height]
    name = "" if row.source_key.endswith(row.file_name or "") else row.file_name
    return [row.photo_id, row.source_key, name, *size, row.decisions, people]


def _overview(
    run: str,
    name: str,
    pipeline: PipelineSettings,
    status: dict[str, Any],
    known: _Known,
    groups: Sequence[Group],
) -> dict[str, Any]:
    return {
        # The name that tells runs apart, and not where it lies on somebody's machine.
        "run": "/".join(run.rstrip("/").split("/")[-2:]),
        "pipeline": name,
        "description": pipeline.description,
        "state": status["state"],
        "persona": status.get("persona"),
        "collection": status["collection"],
        "identities": status["identities"],
        "pairs_kept": sum(len(group.person_ids) * (len(group.person_ids) - 1) // 2 for group in groups),
        "packed": {key: status.get(key) for key in ("groups", "photos", "shards", "bytes")},
        "opt_out": _opt_out(status.get("opt_out")),
        "stages": status["stages"],
        "numbers": _numbers(),
        "rates": rate_entries(run, pipeline),
        "scores": score_entries(known.book, pipeline, NEAR),
        "distribution": distribution_entries(groups, known.kept),
    }


def _numbers() -> dict[str, dict[str, list[Any]]]:
    """{stage: {check: [quantity, unit, how much of what is recorded is one of it, *signs]}}; the signs stand
    between a number and its threshold, where it passed and where it did not."""
    found: dict[str, dict[str, list[Any]]] = {}
    for (stage, check), number in NUMBERS.items():
        found.setdefault(stage, {})[check] = [number.says, number.unit, number.per, *SIGNS[number.passes]]
    return found


def _opt_out(opt_out: dict[str, Any] | None) -> dict[str, Any] | None:
    """Of the list no more than numbers of lines: a report is handed on, and a list is about people."""
    if opt_out is None:
        return None
    missed = [entry["line"] for entry in opt_out["missed"][:_MISSED_LINES]]
    return {"lines": opt_out["lines"], "matched": opt_out["matched"], "missed": missed}


def _measures(run: str, truth: str | None) -> list[list[Any]]:
    if truth is None:
        return []
    from curation.evaluation.evaluate import evaluate, value_text  # takes a second to import

    return [[m.key, m.says, value_text(m), m.count] for m in evaluate(run, truth)]


def _wanted(
    page: dict[str, Any], later: LaterPhases, known: _Known, cut: float | None, most: int
) -> dict[str, list[Cut]]:
    """The subjects that get a thumbnail: those of galleries in the order of the page, then the first rows."""
    order: dict[Subject, None] = {}

    def want(subjects: Any) -> None:
        for subject in subjects:
            order.setdefault((subject[0], subject[1]))

    for group in later.groups:
        if len(order) >= most // 2:
            break
        want(known.at[name] for name in group.person_ids if name in known.at)
    for ending in page["endings"]:
        want(ending["sample"])
    for pair in pairs_by_doubt(later.pairs, cut)[:_PAIRS_SHOWN]:
        want(known.at[name] for name in (pair.a, pair.b) if name in known.at)
    for suspects in (page["merges"][kind] for kind in ("within", "between", "doubts")):
        for suspect in suspects:
            want([*suspect["a"], *suspect["b"]])
    for score in page["scores"]:
        for side in score["near"]:
            want(side)
    want(known.boxes)
    wanted: dict[str, list[Cut]] = {}
    count = 0
    for subject in order:
        if count >= most:
            break
        if subject in known.boxes:
            photo_id, box = known.boxes[subject]
            wanted.setdefault(photo_id, []).append((subject, box))
            count += 1
    return wanted


def _page_files() -> dict[str, bytes]:
    """The page's own files by name; index.html last, since it makes the folder a report."""
    page = resources.files("curation.report") / "page"
    files = sorted(page.iterdir(), key=lambda file: (file.name == "index.html", file.name))
    return {file.name: file.read_bytes() for file in files if file.is_file()}


def _write_page(out: str) -> None:
    for name, data in _page_files().items():
        write_bytes(join(out, name), data)
