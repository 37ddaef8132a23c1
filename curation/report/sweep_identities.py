"""Sweeps of the thresholds that make identities: the faces are clustered again for each value."""

from curation.evaluation.answers import read_answers
from curation.evaluation.identities import pair_counts
from curation.evaluation.whose_face import whose_faces
from curation.identities.assign import assign
from curation.report.sweep import Point, Question, Sweep, share
from curation.run_folder import Run


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
        # Whoever was to be attached and has a cosine to say of it was not: ruled out, so in nobody's pair.
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
