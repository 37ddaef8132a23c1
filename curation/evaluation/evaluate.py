"""`persona eval`: a finished run beside its truth, as a table and as one object of JSON."""

from collections.abc import Mapping, Sequence

from curation.evaluation.answers import read_answers, whose_faces
from curation.evaluation.detection import copies, detection, followed_copies, pixels
from curation.evaluation.groups import captions, outfits
from curation.evaluation.identities import faces, identities, identities_with_copies
from curation.evaluation.truth import Measure, read_truth


def evaluate(run: str, truth_folder: str) -> list[Measure]:
    """Every measure of a run, in the order of the phases.

    Raises ConfigError when the truth lacks a file or is of another collection, PersonaError when the run
    is not finished.
    """
    truth = read_truth(truth_folder)
    answers = read_answers(run, truth)
    true = answers.truth_of()
    who = whose_faces(answers.looked_at)
    copied, who_is_copied = followed_copies(answers.photos, answers.identified, who, truth)
    return [
        *copies(answers.photos, truth),
        *detection(answers.looked_at),
        *pixels(answers.looked_at),
        *faces(answers.looked_at, truth),
        *identities(answers.identified, who),
        *identities_with_copies([*answers.identified, *copied], {**who, **who_is_copied}),
        *outfits(answers, truth),
        *captions(answers.captions, true, truth.facts),
    ]


def to_json(measures: Sequence[Measure]) -> dict[str, float | int | None]:
    """{key: value}, and {key_of: count} beside each that is measured on something."""
    found: dict[str, float | int | None] = {}
    for measure in measures:
        found[measure.key] = measure.value
        if measure.count is not None:
            found[f"{measure.key}_of"] = measure.count
    return found


def measure_lines(measures: Sequence[Measure], targets: Mapping[str, float] | None = None) -> list[str]:
    """For people: one line a measure; with `targets` ({key: least value}) whether each is reached."""
    rows = [("measure", "value", "of", "at least" if targets else "", "what")]
    for measure in measures:
        target = (targets or {}).get(measure.key)
        wanted = "" if target is None else f"{target:g} {'yes' if reached(measure, target) else 'NO'}"
        rows.append(
            (
                measure.key,
                value_text(measure),
                "" if measure.count is None else str(measure.count),
                wanted,
                measure.says,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for key, value, count, wanted, says in rows:
        cells = [key.ljust(widths[0]), value.rjust(widths[1]), count.rjust(widths[2])]
        cells += [wanted.ljust(widths[3])] if targets else []
        lines.append("  ".join([*cells, says]).rstrip())
    return lines


def value_text(measure: Measure) -> str:
    """The value with four digits; a count as it is; a dash where nothing was measured."""
    if measure.value is None:
        return "–"
    return str(measure.value) if isinstance(measure.value, int) else f"{measure.value:.4f}"


def reached(measure: Measure, target: float) -> bool:
    """Whether a measure reaches its target; nothing measured reaches none."""
    return measure.value is not None and measure.value >= target
