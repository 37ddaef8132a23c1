"""One evaluation from end to end: cases, pictures, scores, page. What is known already is not made again."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from training.checkpoint import checkpoints_in
from training.evaluation.cases import Case, cases_of, people_of, weights_digest
from training.evaluation.memory import Memory
from training.evaluation.page import write_page
from training.evaluation.results import Results
from training.evaluation.scorer import MissingScorerError, Pictured, Scorer
from training.evaluation.scorers import scorers_of
from training.evaluation.settings import EvaluationSettings
from training.generation.pipeline import PersonaPipeline

PipelineOf = Callable[[], PersonaPipeline]
Say = Callable[[str], None]


def evaluate(
    settings: EvaluationSettings,
    weights: Path,
    pipeline_of: PipelineOf,
    dataset: str,
    out: Path,
    faces: Scorer | None,
    say: Say,
) -> Results:
    """Writes OUT/index.html and OUT/results.json, beside what `memory.py` keeps.

    weights       of the model, a run's folder or a file: pictures are known by what is in it
    pipeline_of   makes the pipeline; called where a picture is missing

    Raises ValueError, one line, for a dataset or a model that will not do.
    """
    people = people_of(dataset, settings.people)
    checkpoints = checkpoints_in(weights / "checkpoints") if weights.is_dir() else []
    cases = cases_of(settings, weights_digest(checkpoints[-1] if checkpoints else weights), people)
    memory = Memory(out)
    _generate(
        settings, [case for case in cases if not memory.has_picture(case.name)], pipeline_of, memory, say
    )
    results = Results(cases, settings.resamples)
    for name, make in scorers_of(settings.scores, faces).items():
        _score(name, make, cases, memory, results, say)
    results.add_harmonic()
    write_page(out / "index.html", results, memory)
    (out / "results.json").write_text(json.dumps(results.to_json(), indent=1) + "\n")
    return results


def _generate(
    settings: EvaluationSettings,
    cases: Sequence[Case],
    pipeline_of: PipelineOf,
    memory: Memory,
    say: Say,
) -> None:
    """A person's pictures of one prompt in one batch."""
    if not cases:
        return
    say(f"making {len(cases)} pictures")
    pipeline = pipeline_of()
    together: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        together.setdefault((case.person.key, case.prompt), []).append(case)
    for batch in together.values():
        person, prompt = batch[0].person, batch[0].prompt
        made = pipeline(
            prompt,
            [person.reference],
            regions=settings.regions,
            height=settings.height_px,
            width=settings.width_px,
            seeds=[case.seed for case in batch],
            sampling=settings.sampling,
        )
        for case, picture in zip(batch, made, strict=True):
            memory.keep_picture(case.name, picture)


def _score(
    name: str,
    make: Callable[[], Scorer],
    cases: Sequence[Case],
    memory: Memory,
    results: Results,
    say: Say,
) -> None:
    """Asks a scorer about the cases that it has not answered; one that cannot be had is absent."""
    try:
        scorer = make()
        missing = [case for case in cases if not memory.has_score(case.name, scorer.key)]
        if missing:
            say(f"scoring {len(missing)} pictures: {scorer.says}")
            pictured = [Pictured(case, memory.picture(case.name)) for case in missing]
            answers = scorer.score(pictured)
            names = [case.name for case in missing]
            memory.keep_scores(scorer.key, dict(zip(names, answers, strict=True)))
    except MissingScorerError as error:
        results.absent[name] = str(error)
        return
    results.add(scorer.name, scorer.says, [memory.score(case.name, scorer.key) for case in cases])
