"""Sweep of the judge's cut over the pairs that the run asked it about."""

from curation.evaluation.answers import read_answers
from curation.evaluation.outfits import same_outfit
from curation.evaluation.whose_face import who_is_shown
from curation.report.sweep import Point, Question, Sweep, share
from curation.run_folder import Run


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
        said = [score >= value for _, _, score in pairs]
        precision = recall = None
        if asked.truth is not None:
            right = sum(yes and same for yes, same in zip(said, is_same, strict=True))
            precision, recall = share(right, sum(said)), share(right, sum(is_same))
        points.append(Point(value, sum(said), 0, precision, recall))
    says = f"pairs that the judge calls the same, of {len(pairs)} that it was asked and could tell"
    return asked.answer("pairs", says, len(pairs), points)
