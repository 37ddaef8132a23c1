"""A survey for people: licences first, since they are what is chosen by."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from curation.errors import printable
from curation.survey.survey import NOT_STATED, Survey, folded, unheard_licences

_SHOWN = 20  # values of a column


def survey_lines(found: Survey, allowed: Sequence[str] | None) -> Iterator[str]:
    """The lines. `allowed` is the allow-list of licences; None lets all in."""
    yield f"{found.photos} photos in {found.units} units"
    for why, count in found.unreadable.most_common(_SHOWN):
        yield f"  {count} of them: {printable(why)}"
    yield from _column("names end in", found.endings)
    yield ""
    yield from _licences(found.stated.get("licence", {}), allowed)
    for column, values in found.stated.items():
        if column not in ("licence", "caption"):
            yield from _values(column, values, found.photos)
    if found.unused:
        yield from _column("in the records, and not used (source.columns)", found.unused)
    if found.looked:
        yield ""
        yield from _column(f"of {found.looked} photos that were opened, format", found.formats)
        if sides := found.short_sides:
            middle = sides[len(sides) // 2]
            yield f"shorter side: {sides[0]} to {sides[-1]} px, half of them {middle} px or less"
        yield from _column("marks of rights in their bytes", found.marks or {"none": found.looked})


def _licences(stated: Mapping[str, int], allowed: Sequence[str] | None) -> Iterator[str]:
    yield "licences, as they stand" + ("" if allowed is None else " (+ is let in)") + ":"
    by_fold: dict[str, list[str]] = defaultdict(list)
    for text in stated:
        by_fold[folded(text)].append(text)
    groups = sorted(by_fold.values(), key=lambda texts: -sum(stated[text] for text in texts))
    for texts in groups[:_SHOWN]:
        for text in sorted(texts, key=lambda text: -stated[text]):
            mark = "" if allowed is None else ("+ " if text in allowed else "- ")
            yield f"  {mark}{printable(text)}  {stated[text]}"
    if len(groups) > _SHOWN:
        yield f"  … and {len(groups) - _SHOWN} others"
    for entry, like in unheard_licences(allowed or (), stated):
        nearest = f"; the nearest is {printable(like)!r}" if like else ""
        yield f"  no photo states {entry!r}, which is let in{nearest}"


def _values(column: str, values: Mapping[str, int], photos: int) -> Iterator[str]:
    """Columns with few values are shown whole; of others, how many photos state one."""
    if len(values) <= _SHOWN:
        yield from _column(column, values)
    else:
        stated = sum(count for value, count in values.items() if value != NOT_STATED)
        yield f"{column}: {stated} of {photos} photos, {len(values)} values"


def _column(title: str, values: Mapping[str, int]) -> Iterator[str]:
    most = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    said = ", ".join(f"{printable(value)} {count}" for value, count in most[:_SHOWN])
    yield f"{title}: {said}" + (f" and {len(most) - _SHOWN} others" if len(most) > _SHOWN else "")
