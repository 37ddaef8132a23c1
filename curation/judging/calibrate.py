"""`persona judge calibrate`: what a judge's answers are worth, from pairs that are labelled.

Each labelled pair is shown to the run's judge in both orders. From the answers come the cut of a single score
for a wanted precision (`outfits.judge.cut`), the weights of the strategy `clusters`
(`outfits.strategy.calibration`), and the probability from which it reaches the precision on people that the
weights were not fitted on (`outfits.strategy.accept`). `strategy` of the result is `outfits.strategy` whole.
"""

import json
import math
from typing import Any

import numpy as np

from curation.errors import ConfigError
from curation.judging.fit import (
    LEAST_PAIRS,
    LOST,
    calibration_error,
    choose_cut,
    decided,
    fit_calibration,
    fit_low_cut,
    held_out,
    reliability,
    reliability_svg,
)
from curation.judging.judge_of_run import ask_judge, judge_columns
from curation.judging.labelled_pairs import LabelledPair, pairs_of_truth, read_pairs
from curation.models import Models, find_model
from curation.outfits.appearance_judge import similarities
from curation.outfits.gather import read_people
from curation.outfits.judge import Answer, log_odds_of, logit, probability
from curation.outfits.judge_identity import judge_identity, judge_in_words
from curation.run_folder import Run
from curation.settings import PipelineSettings
from curation.settings.base import model_names
from curation.settings.outfits import CalibrationSettings, ClustersStrategy, PaperStrategy
from curation.storage import write_bytes


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
    Run(run).require()
    if not 0 < precision <= 1:
        raise ConfigError(f"--precision {precision}: must be above 0 and at most 1")
    if (pairs_file is None) == (truth_folder is None):
        raise ConfigError("give --pairs or --truth, and not both")
    _, pipeline = Run(run).pipeline()
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
    of = judge_identity(pipeline, models)
    result = {
        "of": of,
        "judge": judge_in_words(pipeline, models),
        "wanted_precision": precision,
        "pairs": len(usable),
        "pairs_unknown": unknown,
        "pairs_cannot_tell": sum(p.same is None for p in labelled),
        **_fit(
            usable, answers[: len(shown)], answers[len(shown) :], alike,
            [a["identity"] for a, _ in shown], precision, of, pairs_file or truth_folder or "",
        ),
    }  # fmt: skip
    calibration = CalibrationSettings(**result["calibration"])
    strategy = pipeline.outfits.strategy
    result["strategy"] = strategy_with(strategy, calibration, result["accept"], result["low_cut"])
    path = out or Run(run).calibration
    write_bytes(path, (json.dumps(result, indent=1) + "\n").encode())
    plot = f"{path.removesuffix('.json')}.svg"
    title = (
        f"{_named(result['judge'])}: {result['pairs_answered']} pairs, error {result['calibration_error']}"
    )
    write_bytes(plot, reliability_svg(result["reliability"], title).encode())
    return {**result, "record": path, "plot": plot}


def strategy_with(
    strategy: PaperStrategy | ClustersStrategy,
    calibration: CalibrationSettings,
    accept: float | None,
    low_cut: float,
) -> dict[str, Any]:
    """`outfits.strategy` as it can be set: what was fitted, and of `clusters` what the pipeline has besides.

    With `accept` come `sure_same` and `sure_other`: as far from it in log-odds as they were from the one
    before, and never nearer to it than they were, so that what is close to `accept` is asked again. None
    leaves all three as they are.
    """
    before = strategy if isinstance(strategy, ClustersStrategy) else ClustersStrategy()
    words = {
        **before.model_dump(exclude_none=True),
        "low_cut": low_cut,
        "calibration": calibration.model_dump(),
    }
    if accept is not None:
        own = before.resolved()
        moved = logit(accept) - logit(own.accept)
        sure_same = max(own.sure_same, probability(logit(own.sure_same) + moved))
        sure_other = min(own.sure_other, probability(logit(own.sure_other) + moved))
        words |= {
            "accept": accept,
            "sure_same": max(accept, min(round(sure_same, 6), 1 - 1e-6)),
            "sure_other": min(accept, max(round(sure_other, 6), 1e-6)),
        }
    ClustersStrategy.model_validate(words)  # what is printed can be set
    return words


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
    of: str,
    source: str,
) -> dict[str, Any]:
    """What follows from the answers. Pairs without an answer are counted and left out."""
    good = [
        i
        for i, (one, two) in enumerate(zip(first, second, strict=True))
        if one.error is None and two.error is None and not math.isnan(alike[i])
    ]
    same = np.array([pairs[i].same for i in good], dtype=bool)
    if not same.any() or same.all():
        raise ConfigError(
            f"{source}: needs pairs of both kinds that the run's judge can answer "
            f"({len(good)} usable of {len(pairs)}, {int(same.sum())} of them same)"
        )
    answered = np.array([(log_odds_of(first[i]) + log_odds_of(second[i])) / 2 for i in good])
    colours = np.array([alike[i] for i in good])
    calibration = fit_calibration(answered, colours, same, of)
    fair = held_out(answered, colours, same, [people[i] for i in good], of)
    log_odds = decided(answered, colours, calibration) if fair is None else fair
    chance = 1 / (1 + np.exp(-np.clip(log_odds, -60, 60)))
    bins = reliability(chance, same)
    # As `logit` takes `accept`: within 1e-6 of 0 and 1; rounded down, so that no pair is just below its cut.
    digits = np.minimum(np.floor(chance * 1e6) / 1e6, 1 - 1e-6)
    at = choose_cut(np.where(digits > 0, digits, np.nan), same, precision)
    flips = [first[i].same is not second[i].same for i in good]
    return {
        "pairs_answered": len(good),
        "pairs_same": int(same.sum()),
        **choose_cut(np.array([_score(first[i]) for i in good]), same, precision),
        "calibration": calibration.model_dump(),
        "accept": at["cut"],
        **{f"accept_{name}": at[name] for name in ("accepted", "precision", "at_least", "recall")},
        "held_out": fair is not None,
        "low_cut": fit_low_cut(colours, same),
        "swap_flips": round(float(np.mean(flips)), 4),
        "calibration_error": calibration_error(bins),
        "reliability": bins,
    }


def _score(answer: Answer) -> float:
    """What a cut is held against; NaN, accepted by none, without a score or where the judge cannot tell."""
    return math.nan if answer.same is None or answer.score is None else answer.score


def calibration_lines(result: dict[str, Any]) -> list[str]:
    """For people."""
    lines = [
        f"judge {_named(result['judge'])}",
        f"{result['pairs_answered']} labelled pairs answered, {result['pairs_same']} of them the same "
        f"({result['pairs_unknown']} unknown to the run, {result['pairs_cannot_tell']} that people could not "
        f"tell); the swapped question was answered otherwise for {result['swap_flips']:.1%}",
    ]
    wanted = f"precision {result['wanted_precision']} with {LEAST_PAIRS} pairs or more"
    if result["cut"] is None:
        lines.append(f"no cut of a single answer reaches {wanted}; the best is {result['precision']}")
    else:
        lines.append(
            f"one answer: cut {result['cut']} has {_figures(result, '')}; "
            f"--set outfits.judge.cut={result['cut']}"
        )
    where = "on people it was not fitted on" if result["held_out"] else "on the pairs it was fitted on"
    if result["accept"] is None:
        best = result["accept_precision"]
        lines.append(f"clusters: no probability reaches {wanted} {where}; the best is {best}")
    else:
        lines.append(
            f"clusters: accept {result['accept']} has {_figures(result, 'accept_')} {where}; "
            f"calibration error {result['calibration_error']}"
        )
    lost = f"{LOST:.1%} of the same pairs are less alike in stored colours than low_cut {result['low_cut']}"
    lines.append(f"clusters: {lost} and are not asked about")
    lines.append(f"clusters: --set 'outfits.strategy={json.dumps(result['strategy'])}'")
    return [*lines, f"record {result['record']}, plot {result['plot']}"]


def _named(judge: dict[str, Any]) -> str:
    """A judge in words: its model, prompt and layout where it has them."""
    if judge["model"] is None:
        return str(judge["backend"])
    text = f"{judge['model']} ({judge['backend']})"
    if judge["layout"] is not None:
        width, height = judge["layout"]["canvas_px"]
        layout = f"{width}x{height} px, background {judge['layout']['background']}"
        text += f", prompt {judge['prompt']}, {layout}, margin {judge['layout']['margin']}"
    return text


def _figures(result: dict[str, Any], of: str) -> str:
    return (
        f"precision {result[of + 'precision']} (at least {result[of + 'at_least']} with 95 % confidence), "
        f"recall {result[of + 'recall']}, {result[of + 'accepted']} pairs"
    )


def _by_name(people: dict[str, dict[str, Any]]) -> dict[str, str]:
    """{person_id, or file name or source key of a photo with one person: person_id}."""
    photos: dict[str, set[str]] = {}
    for person_id, row in people.items():
        for name in (row["file_name"], row["source_key"]):
            photos.setdefault(name, set()).add(person_id)
    alone = {name: next(iter(ids)) for name, ids in photos.items() if len(ids) == 1}
    return {**alone, **{person_id: person_id for person_id in people}}
