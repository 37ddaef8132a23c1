"""A world through the pipeline `demo`: drawn, curated with the small models and a real server, measured; and
what must be reached on worlds that no model was trained on.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from curation.backends import build_backend
from curation.engine import Endpoint, Job
from curation.errors import PersonaError
from curation.evaluation.answers import read_answers
from curation.evaluation.evaluate import evaluate
from curation.evaluation.groups import same_outfit
from curation.evaluation.truth import Measure, Truth, read_truth, share
from curation.meters import CallCounter
from curation.models import find_models
from curation.outfits.gather import read_people
from curation.outfits.judge import Answer, PairJudge
from curation.pipeline_file import load_pipeline
from curation.run_folder import Run
from curation.vlm.serving import ServerNeededError, plan_of
from demo.server import IN_PROCESS, VLLM, DemoVlm
from demo.world.plan import Wardrobe

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "pipelines.yaml"
PIPELINE = "demo"

Say = Callable[[str], None]


@dataclass(frozen=True)
class WorldRun:
    """What came out. `vlm` says how the vision-language model ran; seconds are those of this start."""

    world: Path
    run: Path
    vlm: str
    measures: list[Measure]
    seconds: dict[str, float]

    @property
    def truth(self) -> Path:
        """The folder of the world's truth."""
        return self.world / "truth"


def run_world(seed: int, photos: int, out: Path, judge_pairs: int, say: Say) -> WorldRun:
    """Does what is not done yet under `out`: the world, the run, the balanced pairs of the judge.

    Raises PersonaError with one line when a part cannot go on.
    """
    out = out.absolute()
    world, run = out / f"world-{seed}-{photos}", out / "run"
    settings = [
        f"source.path={json.dumps(str(world / 'collection' / 'tars'))}",
        f"models.path={json.dumps(str(ROOT / 'demo' / 'weights'))}",
    ]
    took: dict[str, float] = {}
    pipeline = load_pipeline(str(CONFIG), PIPELINE, settings)
    plan = plan_of(pipeline, find_models(pipeline), "judge")
    with DemoVlm(plan, out / "vllm.log", say) as vlm:
        finished = _is_finished(run)
        if not finished:
            vlm.begin()  # it takes a minute, most of it on one core
        with _timed(took, "world"):
            write_world(seed, photos, world, say)
        with _timed(took, "server"):
            # A finished run asks nothing; the way that it asked is part of what it depends on.
            model = _as_asked(run) if finished else vlm.settings()
        with _timed(took, "curate"):
            curate(run, [*settings, *model])
        with _timed(took, "evaluate"):
            measures = evaluate(str(run), str(world / "truth"))
        with _timed(took, "judge"):
            measures += _ask_pairs(run, world / "truth", judge_pairs, [*settings, *model], vlm, say)
        in_process = Run(str(run)).pipeline()[1].outfits.judge.backend == "transformers"
    return WorldRun(world, run, IN_PROCESS if in_process else VLLM, measures, took)


def _is_finished(run: Path) -> bool:
    status = Run(str(run)).status
    return status is not None and status["state"] == "finished"


def _as_asked(run: Path) -> list[str]:
    judge = Run(str(run)).pipeline()[1].outfits.judge
    return [f"{key}.backend={judge.backend}" for key in ("outfits.judge", "captions.by")]


@contextmanager
def _timed(took: dict[str, float], what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    took[what] = round(time.monotonic() - began, 1)


def write_world(seed: int, photos: int, world: Path, say: Say, wardrobe: Wardrobe = "drawn") -> None:
    """Draws the world, unless it is there whole: its facts.json is written last."""
    if (world / "truth" / "facts.json").exists():
        return
    say(f"drawing a world of about {photos} photos, seed {seed}")
    words = ["--seed", str(seed), "--photos", str(photos), "--wardrobe", wardrobe, "--out", str(world)]
    done = subprocess.run([sys.executable, "-m", "demo.world", *words], cwd=ROOT, stdout=sys.stderr)
    if done.returncode:
        raise PersonaError(f"python -m demo.world {' '.join(words)}: could not draw the world")


def curate(run: Path, settings: Sequence[str]) -> None:
    """`persona curate demo`, as a user would call it; its progress goes to stderr."""
    words = ["curate", PIPELINE, "--config", str(CONFIG), "--out", str(run)]
    for setting in settings:
        words += ["--set", setting]
    done = subprocess.run([sys.executable, "-m", "persona", *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise PersonaError(f"persona curate demo ended with {done.returncode}; it is said above why")


def _ask_pairs(
    run: Path, truth: Path, pairs: int, settings: Sequence[str], vlm: DemoVlm, say: Say
) -> list[Measure]:
    """The judge's measures on balanced pairs. Its answers are remembered beside the run."""
    if pairs == 0:
        return []
    pipeline = load_pipeline(str(CONFIG), PIPELINE, settings)
    models = find_models(pipeline)

    def measures(endpoints: dict[str, Endpoint]) -> list[Measure]:
        judge = build_backend("judge", pipeline.outfits.judge, models)
        job = Job(str(run.parent), pipeline, models, endpoints=endpoints)
        judge.join_run(job, "judge-pairs", CallCounter(None))
        return judge_measures(str(run), str(truth), pairs, judge)

    try:
        return measures({})
    except ServerNeededError:
        endpoint = vlm.endpoint()
        say(f"asking the judge about {pairs} balanced pairs")
        return measures({"judge": endpoint})


MAIN_GARMENTS = ("upper", "lower", "dress", "shoes")


@dataclass(frozen=True)
class JudgePair:
    """Two person_ids of one identity, and what is true of them."""

    a: str
    b: str
    same: bool
    hard: bool


def judge_measures(run: str, truth_folder: str, pairs: int, judge: PairJudge) -> list[Measure]:
    """judge_accuracy, judge_hard_accuracy, judge_yes, judge_no, judge_hard_no, judge_errors.

    judge_accuracy is over all pairs, as many same as not. judge_hard_accuracy is over the hard pairs,
    which are all of two outfits, and the first of as many pairs of one outfit: a judge that always says
    the same has 0.5 in both. judge_hard_no is over the hard pairs alone. An answer that is no yes or no
    is a wrong one.
    """
    truth = read_truth(truth_folder)
    true = read_answers(run, truth).truth_of()
    rows = read_people(run, list(judge.columns))
    known = {name: person for name in sorted(rows) if (person := true.get(name)) is not None}
    drawn = draw_judge_pairs(known, truth, pairs)
    return judged(drawn, judge.ask([(rows[pair.a], rows[pair.b]) for pair in drawn]))


def judged(drawn: Sequence[JudgePair], answers: Sequence[Answer]) -> list[Measure]:
    """The measures of answered pairs."""
    right = [answer.same is pair.same for pair, answer in zip(drawn, answers, strict=True)]
    hard = [pair.hard for pair in drawn]
    same = [pair.same for pair in drawn]
    beside = [place for place, one in enumerate(same) if one][: sum(hard)]
    hard_and_same = [one or place in beside for place, one in enumerate(hard)]

    def of(key: str, says: str, chosen: list[bool]) -> Measure:
        return share(key, says, sum(r for r, c in zip(right, chosen, strict=True) if c), sum(chosen))

    return [
        of("judge_accuracy", "judge, balanced pairs of the world", [True] * len(drawn)),
        of("judge_hard_accuracy", "judge, balanced pairs; the unequal ones share a garment", hard_and_same),
        of("judge_yes", "judge, pairs in one outfit", same),
        of("judge_no", "judge, pairs in two outfits", [not one for one in same]),
        of("judge_hard_no", "judge, pairs in two outfits that share a garment", hard),
        Measure("judge_errors", "pairs without an answer", sum(a.same is None for a in answers), len(drawn)),
    ]


def draw_judge_pairs(
    people: dict[str, dict[str, Any]], truth: Truth, count: int, seed: int = 0
) -> list[JudgePair]:
    """Half `count` pairs of each kind, each pair once; fewer where a world has not as many.

    people {person_id: row of people.parquet}. As many of one kind as of the other, always.
    """
    by_identity: dict[str, list[str]] = {}
    for name, person in people.items():
        by_identity.setdefault(person["identity"], []).append(name)
    kinds: dict[bool, list[JudgePair]] = {True: [], False: []}
    for names in by_identity.values():
        for a, b in combinations(names, 2):
            one, two = people[a], people[b]
            if truth.original(one["photo_id"]) == truth.original(two["photo_id"]):
                continue
            same = same_outfit(one, two)
            hard = not same and shares_garment(truth.garments[one["outfit"]], truth.garments[two["outfit"]])
            kinds[same].append(JudgePair(a, b, same, hard))
    random = np.random.default_rng(seed)
    half = min(count // 2, *map(len, kinds.values()))
    drawn = []
    for pairs in kinds.values():
        drawn += [pairs[place] for place in random.permutation(len(pairs))[:half].tolist()]
    return drawn


def shares_garment(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two outfits have a main garment that is the same in kind, colour and pattern."""
    return any(slot in a and slot in b and a[slot] == b[slot] for slot in MAIN_GARMENTS)


TARGETS: dict[str, float] = {
    "detect_recall": 0.97,
    "detect_precision": 0.97,
    "mask_iou": 0.90,
    "region_miou": 0.85,
    "face_accuracy": 0.98,
    "judge_accuracy": 0.95,
    "judge_hard_accuracy": 0.85,
    "identity_bcubed_precision": 0.98,
    "identity_bcubed_recall": 0.93,
    "pair_precision": 0.97,
    "caption_facts": 0.90,
}
