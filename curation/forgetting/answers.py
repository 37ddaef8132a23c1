"""Takes what a vision-language model said of photos out of the memory of a run (curation/vlm/session.py).

A line there is [hash of the question, answer, p(yes)] and names nobody. So the questions are made again from
what the run knows of its people. Answers about pairs go where one of the two goes. A caption tells what is
on a photo, also one that was written under earlier settings: only those stay that answer a question which
the present settings ask about somebody who stays.
"""

import json
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

from curation.forgetting.run_rows import RowFilter
from curation.models import Model
from curation.outfits.gather import read_people
from curation.outfits.judge import JUDGED_REGIONS
from curation.run_folder import Run
from curation.run_tables import AnswerFiles
from curation.settings import PipelineSettings
from curation.settings.vlm import VlmSettings
from curation.storage import read_bytes, remove, write_bytes
from curation.vlm.asking import Questions
from curation.vlm.pictures import COLUMNS


def forget_answers(run: Run, pipeline: PipelineSettings | None, forgotten: RowFilter) -> int:
    """Returns how many files of answers were written anew or removed."""
    of_judge, of_captioner = run.answers("outfits"), run.answers("captions")
    if not of_judge.names() and not of_captioner.names():
        return 0
    people = read_people(run.folder, COLUMNS)
    if not any(map(forgotten.person, people)):
        return 0
    changed = 0
    judge = _questions(run, pipeline, "judge")
    if judge:
        pairs = list(_pairs(run, forgotten))
        asked = {
            questions.about((people[a], people[b])).key
            for pair in pairs
            if pair[0] in people and pair[1] in people
            for a, b in permutations(pair)
            for questions in judge
        }
        changed += _keep(of_judge, lambda key: key not in asked)
    else:
        changed += _keep(of_judge, lambda key: False)
    captioner = _questions(run, pipeline, "captioner")
    staying = {
        questions.about((person,)).key
        for name, person in people.items()
        if not forgotten.person(name)
        for questions in captioner
    }
    return changed + _keep(of_captioner, lambda key: key in staying)


def _questions(run: Run, pipeline: PipelineSettings | None, role: str) -> list[Questions]:
    """How the run asks; empty where its settings cannot be read or no such model is asked."""
    if pipeline is None:
        return []
    settings: Any = pipeline.outfits.judge if role == "judge" else pipeline.captions.by
    if not isinstance(settings, VlmSettings):
        return []
    known = run.model(settings.model)
    if known is None:
        return []
    model = Model(settings.model, known["path"], known["sha256"], "")
    prompts = [settings.prompt]  # type: ignore[attr-defined]
    if role == "judge":
        prompts += [f"region-{region}" for region in JUDGED_REGIONS]
    asked = [settings.model_copy(update={"prompt": prompt}) for prompt in prompts]
    return [Questions(found, model, pipeline.source) for found in asked]


def _pairs(run: Run, forgotten: RowFilter) -> Iterator[tuple[str, str]]:
    """Every pair that a photo which goes could have been asked in: with all of its identity."""
    for row in run.outfits.rows(["person_ids"]):
        ids = row["person_ids"]
        for a in filter(forgotten.person, ids):
            yield from ((a, b) for b in ids if b != a)


def _keep(files: AnswerFiles, stays: Callable[[str], bool]) -> int:
    """Rewrites files of answers with the lines whose key stays."""
    changed = 0
    for path in map(files.path, files.names()):
        lines = read_bytes(path).splitlines(keepends=True)
        kept = [line for line in lines if _stays(line, stays)]
        if len(kept) == len(lines):
            continue
        changed += 1
        if kept:
            write_bytes(path, b"".join(kept))
        else:
            remove(path)
    return changed


def _stays(line: bytes, stays: Callable[[str], bool]) -> bool:
    try:
        return stays(json.loads(line)[0])
    except (ValueError, IndexError, TypeError):  # cut off by a kill: it counts for nobody
        return False
