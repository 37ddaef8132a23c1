"""`persona judge quality --sheet`: drawn pairs on one page, with what the judge saw and said, and rulings.

The page is one HTML file that loads nothing. It is a function of the run, its photos and the pairs: the same
bytes every time. A photo that cannot be shown, or whose person has opted out or was forgotten, is a gap that
says so.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from curation.errors import ConfigError, one_line, printable
from curation.judging.judge_of_run import judge_pictures
from curation.outfits.gather import read_people
from curation.report.exclusions import excluded_photos
from curation.run_folder import Run
from curation.storage import write_bytes
from curation.vlm.pictures import COLUMNS, PersonPictures, data_url

_PAGE = Path(__file__).with_name("audit_sheet.html")
_MOST_HEIGHT_PX = 448  # of a picture: smaller than a large judge is shown, of the same cut
_COLUMNS = ["identity", "person_ids", "outfits", "pairs", "person_decisions"]

Pair = Mapping[str, str]
Row = dict[str, Any]


def write_audit_sheet(
    run: str, kept: Sequence[Pair], rejected: Sequence[Pair], seed: int, file: str
) -> dict[str, Any]:
    """Writes the page; returns {file, kept, rejected, gaps}, `gaps` the pictures that it lacks.

    kept, rejected  {identity, a, b} as `outfit_quality` draws them, by `seed`

    Raises ConfigError where the file cannot be written or nobody can tell who has opted out.
    """
    _, pipeline = Run(run).pipeline()
    drawn = [*kept, *rejected]
    rows = _rows(run, {pair["identity"] for pair in drawn})
    people = _Pictures(
        judge_pictures(pipeline, most_height_px=_MOST_HEIGHT_PX),
        read_people(run, COLUMNS, {name for pair in drawn for name in (pair["a"], pair["b"])}),
        excluded_photos(run, pipeline) if drawn else frozenset(),
    )
    judge = pipeline.outfits.judge
    kinds = [
        f'<h2>{title}: {len(pairs)}</h2>\n<div class="pairs {kind}">\n'
        + "\n".join(_section(pair, rows[pair["identity"]], people) for pair in pairs)
        + "\n</div>"
        for kind, title, pairs in (("kept", "Kept in one group", kept), ("rejected", "Not in one", rejected))
    ]
    page = Template(_PAGE.read_text()).substitute(
        # The name that tells runs apart, and not where it lies on somebody's machine.
        run=_text("/".join(run.rstrip("/").split("/")[-2:])),
        judge=_text(getattr(judge, "model", None) or judge.backend),
        seed=seed,
        kinds="\n".join(kinds),
    )
    try:
        write_bytes(file, page.encode("utf-8", "replace"))
    except OSError as error:
        raise ConfigError(f"--sheet {file}: {one_line(error)}") from None
    return {"file": file, "kept": len(kept), "rejected": len(rejected), "gaps": people.gaps}


class _Pictures:
    """The picture of a person as HTML, or a gap that says why there is none."""

    def __init__(self, pictures: PersonPictures, people: Mapping[str, Row], excluded: frozenset[str]) -> None:
        self.gaps = 0
        self._pictures = pictures
        self._people = people
        self._excluded = excluded

    def html(self, person_id: str) -> str:
        """An image with its bytes in it."""
        person = self._people.get(person_id)
        if person is None:
            return self._gap("is not in the run any more")
        if person["photo_id"] in self._excluded:
            return self._gap("left out: opted out or forgotten")
        try:
            picture = self._pictures.jpeg(person)
        except Exception as error:  # photos of strangers raise anything; the page says so
            return self._gap(f"the photo cannot be shown: {one_line(error)}")
        return f'<img alt="photo {_text(person_id[:10])}" src="{data_url(picture)}">'

    def _gap(self, why: str) -> str:
        self.gaps += 1
        return f'<div class="gap">{_text(why)}</div>'


def _rows(run: str, identities: set[str]) -> dict[str, Row]:
    """{identity: its row of outfits/}."""
    found = {}
    for row in Run(run).outfits.rows(_COLUMNS) if identities else ():
        if row["identity"] in identities:
            found[row["identity"]] = row
    return found


def _section(pair: Pair, row: Row, people: _Pictures) -> str:
    """A pair: the group of each photo, both pictures, what the run ruled on them, what the judge said."""
    letters = dict(zip(row["person_ids"], row["outfits"], strict=True))
    decisions = dict(zip(row["person_ids"], row["person_decisions"], strict=True))
    one, other = (_group(pair["identity"], letters[name]) for name in (pair["a"], pair["b"]))
    is_kept = letters[pair["a"]] is not None and one == other
    verdict = f"kept: both in {one}" if is_kept else f"rejected: {one} and {other}"
    figures = "".join(
        f"<figure>{people.html(name)}<figcaption><code>{_text(name)}</code><br>"
        f"{_text(_ruling(decisions[name]))}</figcaption></figure>"
        for name in (pair["a"], pair["b"])
    )
    asked = [entry for entry in row["pairs"] if {entry["a"], entry["b"]} == {pair["a"], pair["b"]}]
    entries = "".join(f"<li>{_text(_said(entry, pair['a']))}</li>" for entry in asked)
    return (
        f'<section><h3>{_text(verdict)}</h3>\n<div class="photos">{figures}</div>\n'
        f"<ul>{entries}</ul></section>"
    )


def _group(identity: str, letter: str | None) -> str:
    return "no group" if letter is None else f"{identity}-{letter}"


def _ruling(decisions: Sequence[Row] | None) -> str:
    """The last decision on a photo: verdict, reason, score beside its threshold, detail."""
    if not decisions:
        return "no decision"
    last = decisions[-1]
    score = "" if last["score"] is None else f"score {last['score']:g}"
    if score and last["threshold"] is not None:
        score += f" (threshold {last['threshold']:g})"
    return "; ".join(part for part in (last["verdict"], last["reason"], score, last["detail"]) if part)


def _said(asked: Row, left: str) -> str:
    """An answer of the judge, and which of the two it was shown first."""
    word = {True: "same", False: "different", None: "cannot tell, or no answer"}[asked["same"]]
    score = "" if asked["score"] is None else f", score {asked['score']:g}"
    how = "region by region" if asked["by_regions"] else "the judge"
    return f"{how}, {'left' if asked['a'] == left else 'right'} photo first: {word}{score}"


def _text(words: str) -> str:
    return escape(printable(words))
