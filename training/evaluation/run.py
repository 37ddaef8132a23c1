"""One evaluation from end to end: cases, pictures, every kind of score, page. Nothing is made twice."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from training.checkpoint import checkpoints_in
from training.evaluation.cases import (
    Case,
    MissingScorerError,
    Pictured,
    Scorer,
    cases_of,
    model_name,
    people_of,
    weights_digest,
)
from training.evaluation.embedding_scores import Clip, ClipText, Dino, ImageSimilarity
from training.evaluation.page import write_page
from training.evaluation.results import Results
from training.evaluation.settings import EvaluationSettings, ScorerSettings, VlmQuestion
from training.evaluation.store import Store
from training.evaluation.vlm_scores import VlmScore
from training.generation.pipeline import PersonaPipeline


def scorers_of(settings: ScorerSettings, faces: Scorer | None) -> dict[str, Callable[[], Scorer]]:
    """{name: makes it, or raises MissingScorerError with the reason}. `faces` is made by the front door."""

    def clip_t() -> Scorer:
        return ClipText(Clip(_given(settings.clip, "scores.clip names no folder")))

    def clip_i() -> Scorer:
        clip = Clip(_given(settings.clip, "scores.clip names no folder"))
        return ImageSimilarity("clip_i", "CLIP, picture with reference", clip.pictures, clip.digest)

    def dino() -> Scorer:
        found = Dino(_given(settings.dino, "scores.dino names no folder"))
        return ImageSimilarity("dino", "DINO, picture with reference", found.pictures, found.digest)

    def face() -> Scorer:
        if not settings.face:
            raise MissingScorerError("scores.face is off")
        if faces is None:
            raise MissingScorerError(
                "no model finds faces here: that takes the command `persona` with its curation part"
            )
        return faces

    def vlm(name: str, says: str, question: VlmQuestion | None) -> Scorer:
        if settings.vlm is None:
            raise MissingScorerError("scores.vlm names no endpoint")
        if question is None:
            raise MissingScorerError("scores.vlm asks no such question")
        return VlmScore(name, says, question, settings.vlm)

    identity = settings.vlm.identity if settings.vlm else None
    text = settings.vlm.text if settings.vlm else None
    return {
        "clip_t": clip_t,
        "clip_i": clip_i,
        "dino": dino,
        "face": face,
        "vlm_identity": lambda: vlm("vlm_identity", "VLM, identity and clothes, 0 to 10", identity),
        "vlm_text": lambda: vlm("vlm_text", "VLM, text, 0 to 10", text),
    }


def _given(folder: str | None, why: str) -> str:
    if folder is None:
        raise MissingScorerError(why)
    return folder


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
    *,
    last: bool = False,
) -> Results:
    """Writes OUT/index.html and OUT/results.json, beside what `store.py` keeps.

    weights       of the model, a run's folder or a file: pictures are known by what is in it
    last          of a run's, the last step's and not their averages
    pipeline_of   makes the pipeline; called where a picture is missing

    Raises ValueError, one line, for a dataset or a model that will not do.
    """
    people = people_of(dataset, settings.people)
    checkpoints = checkpoints_in(weights / "checkpoints") if weights.is_dir() else []
    digest = weights_digest(checkpoints[-1] if checkpoints else weights)
    model = model_name(digest, last=last)
    cases = cases_of(settings, model, people)
    store = Store(out)
    _generate(settings, [case for case in cases if not store.has_picture(case.name)], pipeline_of, store, say)
    results = Results(cases, settings.resamples)
    for name, make in scorers_of(settings.scores, faces).items():
        _score(name, make, cases, store, results, say)
    results.add_harmonic()
    write_page(out / "index.html", results, store)
    (out / "results.json").write_text(json.dumps({"model": model, **results.to_json()}, indent=1) + "\n")
    return results


def _generate(
    settings: EvaluationSettings,
    cases: Sequence[Case],
    pipeline_of: PipelineOf,
    store: Store,
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
            store.keep_picture(case.name, picture)


def _score(
    name: str,
    make: Callable[[], Scorer],
    cases: Sequence[Case],
    store: Store,
    results: Results,
    say: Say,
) -> None:
    """Asks a scorer about the cases that it has not answered; one that cannot be had is absent."""
    try:
        scorer = make()
        missing = [case for case in cases if not store.has_score(case.name, scorer.key)]
        if missing:
            say(f"scoring {len(missing)} pictures: {scorer.says}")
            pictured = [Pictured(case, store.picture(case.name)) for case in missing]
            answers = scorer.score(pictured)
            names = [case.name for case in missing]
            store.keep_scores(scorer.key, dict(zip(names, answers, strict=True)))
    except MissingScorerError as error:
        results.absent[name] = str(error)
        return
    results.add(scorer.name, scorer.says, [store.score(case.name, scorer.key) for case in cases])
