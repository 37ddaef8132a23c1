"""`persona judge calibrate`: what a judge's answers are worth, from pairs that are labelled.

Each labelled pair is shown to the run's judge in both orders. From the answers come the cut of a single score
for a wanted precision (`outfits.judge.cut`), the weights of the strategy `clusters`
(`outfits.strategy.calibration`), and the probability from which it reaches the precision on people that the
weights were not fitted on (`outfits.strategy.accept`).
"""

import json
import math
from typing import Any

import numpy as np

from curation.errors import ConfigError
from curation.models import Models, find_model
from curation.outfits.ask_run import ask_judge, judge_columns
from curation.outfits.evidence import closeness, log_odds_of
from curation.outfits.fit import calibration_error, choose_cut, held_out, platt, reliability
from curation.outfits.gather import read_people
from curation.outfits.judge import Answer
from curation.outfits.judge_identity import judge_identity
from curation.outfits.labelled_pairs import LabelledPair, pairs_of_truth, read_pairs
from curation.outfits.reliability_plot import reliability_svg
from curation.outfits.similarity import similarities
from curation.run_folder import pipeline_of, require_run
from curation.settings import PipelineSettings
from curation.settings.base import model_names
from curation.storage import join, write_bytes

RECORD, PLOT = "judge-calibration.json", "judge-calibration.svg"
_MIN_SLOPE = 1e-3  # a judge whose yes means nothing still counts for something
_LOST = 0.005  # share of the same pairs that the low cut may lose


def calibrate_run(
    run: str,
    precision: float,
    pairs_file: str | None = None,
    truth_folder: str | None = None,
    limit: int = 2000,
    endpoint: str | None = None,
    out: str | None = None,
) -> dict[str, Any]:
    """Fits and measures; writes `out` (default RUN/judge-calibration.json) and beside it the plot.

    `cut` and `accept` are None where the precision cannot be reached. Raises ConfigError for files that
    cannot be used, PersonaError where the judge cannot be asked.
    """
    require_run(run)
    if not 0 < precision <= 1:
        raise ConfigError(f"--precision {precision}: must be above 0 and at most 1")
    if (pairs_file is None) == (truth_folder is None):
        raise ConfigError("give --pairs or --truth, and not both")
    _, pipeline = pipeline_of(run)
    if endpoint is not None and hasattr(pipeline.outfits.judge, "endpoint"):
        judge = pipeline.outfits.judge.model_copy(update={"endpoint": endpoint})
        outfits = pipeline.outfits.model_copy(update={"judge": judge})
        pipeline = pipeline.model_copy(update={"outfits": outfits})
    models = _vlm_models(pipeline)
    columns = ["identity", "file_name", "source_key", "appearance", *judge_columns(pipeline, models)]
    people = read_people(run, columns)
    if pairs_file is not None:
        labelled = read_pairs(pairs_file)
    else:
        assert truth_folder is not None
        labelled = pairs_of_truth(run, truth_folder, people, limit)
    known = _by_name(people)
    usable = [p for p in labelled if p.same is not None and p.a in known and p.b in known]
    unknown = sum(p.a not in known or p.b not in known for p in labelled)
    shown = [(people[known[p.a]], people[known[p.b]]) for p in usable]
    answers = ask_judge(run, pipeline, models, [*shown, *((b, a) for a, b in shown)]) if shown else []
    alike = [float(similarities([a["appearance"], b["appearance"]])[0, 1]) for a, b in shown]
    result = {
        "of": judge_identity(pipeline, models),
        "judge": pipeline.outfits.judge.backend,
        "wanted_precision": precision,
        "pairs": len(usable),
        "pairs_unknown": unknown,
        "pairs_cannot_tell": sum(p.same is None for p in labelled),
        **_fit(
            usable, answers[: len(shown)], answers[len(shown) :], alike,
            [a["identity"] for a, _ in shown], precision, pairs_file or truth_folder or "",
        ),
    }  # fmt: skip
    result["calibration"] = {"of": result["of"], **result["calibration"]}
    path = out or join(run, RECORD)
    write_bytes(path, (json.dumps(result, indent=1) + "\n").encode())
    plot = f"{path.removesuffix('.json')}.svg"
    title = f"{result['judge']}: {result['pairs_answered']} pairs, error {result['calibration_error']}"
    write_bytes(plot, reliability_svg(result["reliability"], title).encode())
    return {**result, "record": path, "plot": plot}


def _vlm_models(pipeline: PipelineSettings) -> Models:
    """The judge's weights, and the captioner's, which may share its server; no others have to be there."""
    named = {"outfits": pipeline.outfits, "captions": pipeline.captions}
    return {
        name: find_model(pipeline, f"{section}.{path}", name)
        for section, settings in named.items()
        for path, name in model_names(settings)
    }


def _fit(
    pairs: list[LabelledPair],
    first: list[Answer],
    second: list[Answer],
    alike: list[float],
    people: list[str],
    precision: float,
    source: str,
) -> dict[str, Any]:
    """What follows from the answers. Pairs without an answer are counted and left out."""
    good = [
        i
        for i, (one, two) in enumerate(zip(first, second, strict=True))
        if one.error is None and two.error is None and one.score is not None and not math.isnan(alike[i])
    ]
    same = np.array([pairs[i].same for i in good], dtype=bool)
    if not same.any() or same.all():
        raise ConfigError(
            f"{source}: needs pairs of both kinds that the run's judge can answer "
            f"({len(good)} usable of {len(pairs)}, {int(same.sum())} of them same)"
        )
    scores = np.array([first[i].score for i in good], dtype=float)
    said = np.array([(log_odds_of(first[i]) + log_odds_of(second[i])) / 2 for i in good])
    features = np.column_stack([said, [closeness(alike[i]) for i in good]])
    weights = platt(features, same)
    if weights[1] < 0:  # colours that speak for "different" where they agree: chance, not knowledge
        slope, offset = platt(said, same)
        weights = np.array([slope, 0.0, offset])
    weights[0] = max(weights[0], _MIN_SLOPE)
    fair = held_out(features, same, [people[i] for i in good])
    log_odds = features @ weights[:2] + weights[2] if fair is None else fair
    chance = 1 / (1 + np.exp(-np.clip(log_odds, -60, 60)))
    bins = reliability(chance, same)
    at = choose_cut(chance, same, precision)
    flips = [first[i].same is not second[i].same for i in good]
    return {
        "pairs_answered": len(good),
        "pairs_same": int(same.sum()),
        **choose_cut(scores, same, precision),
        "calibration": {
            "slope": round(float(weights[0]), 5),
            "likeness": round(float(weights[1]), 5),
            "offset": round(float(weights[2]), 5),
        },
        "accept": at["cut"],
        "accept_precision": at["precision"],
        "accept_recall": at["recall"],
        "held_out": fair is not None,
        "low_cut": math.floor(float(np.quantile([alike[i] for i in good if pairs[i].same], _LOST)) * 100)
        / 100,
        "swap_flips": round(float(np.mean(flips)), 4),
        "calibration_error": calibration_error(bins),
        "reliability": bins,
    }


def calibration_lines(result: dict[str, Any]) -> list[str]:
    """For people."""
    lines = [
        f"{result['pairs_answered']} labelled pairs answered, {result['pairs_same']} of them the same "
        f"({result['pairs_unknown']} unknown to the run, {result['pairs_cannot_tell']} that people could not "
        f"tell); the swapped question was answered otherwise for {result['swap_flips']:.1%}"
    ]
    if result["cut"] is None:
        lines.append(
            f"no cut of a single answer reaches precision {result['wanted_precision']}; "
            f"the best is {result['precision']}"
        )
    else:
        lines.append(
            f"one answer: cut {result['cut']} has precision {result['precision']}, recall "
            f"{result['recall']}; --set outfits.judge.cut={result['cut']}"
        )
    weights = ", ".join(f"{key}: {value}" for key, value in result["calibration"].items())
    lines.append(f"clusters: --set 'outfits.strategy.calibration={{{weights}}}'")
    where = "on people it was not fitted on" if result["held_out"] else "on the pairs it was fitted on"
    if result["accept"] is None:
        lines.append(f"no probability reaches precision {result['wanted_precision']} {where}")
    else:
        lines.append(
            f"clusters: accept {result['accept']} has precision {result['accept_precision']}, recall "
            f"{result['accept_recall']} {where}; calibration error {result['calibration_error']}"
        )
    return [*lines, f"record {result['record']}, plot {result['plot']}"]


def _by_name(people: dict[str, dict[str, Any]]) -> dict[str, str]:
    """{person_id, or file name or source key of a photo with one person: person_id}."""
    photos: dict[str, set[str]] = {}
    for person_id, row in people.items():
        for name in (row["file_name"], row["source_key"]):
            photos.setdefault(name, set()).add(person_id)
    alone = {name: next(iter(ids)) for name, ids in photos.items() if len(ids) == 1}
    return {**alone, **{person_id: person_id for person_id in people}}
