"""Ways of finding outfits, on one world with one judge: python benchmarks/outfits.py --seed 909001

Draws a world in which everyone is seen in one to six outfits, runs the phases before `outfits` once, and lets
each way ask the same judge, whose answers are remembered: a pair is put to the model once in each order,
however many ways ask it. Weights and cuts are fitted on one half of the people and used on the other, and
the other way round. Ways that draw photos at random (the paper's does) are drawn --draws times, and their row
is the mean. `clusters` and `paper` are the strategies of the product; the rest is in
benchmarks/outfit_baselines.py. --wardrobe drawn is the demo's world, where many are seen in one outfit only:
nobody can be far ahead of the paper there.

Prints a table and, last, one line of JSON: figures of `clusters` with the preset strict; `recall_vs_paper` is
its recall over that of the paper's protocol, `gain_over_paper` what a world allows with a judge that is
always right (benchmarks/outfit_figures.py).

With --out the folder keeps the world, the run and every answer. The same command goes on from there, also
after a kill: the drawing of the world alone begins anew (its truth is written last), of the phase `people` at
most a fragment of 64 photos is repeated, of questions those on their way. --until ends early, so that a large
world can be measured in steps. minutes.json in the folder adds up what each step took.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.outfit_baselines import all_pairs, colours_only, known_outfits, random_leader  # noqa: E402
from benchmarks.outfit_figures import (  # noqa: E402
    Person,
    Row,
    contaminated,
    figures,
    gain_over_paper,
    mean_of,
    one_person,
    print_table,
)
from curation.backends import JoinsRun, build_backend  # noqa: E402
from curation.engine import InlineEngine, Job, RayEngine  # noqa: E402
from curation.errors import PersonaError  # noqa: E402
from curation.evaluation.answers import read_identified, read_looked_at, who_is_shown, whose_faces  # noqa: E402  # noqa: E402
from curation.evaluation.groups import same_outfit  # noqa: E402
from curation.evaluation.identities import identities  # noqa: E402
from curation.evaluation.truth import Truth, read_truth  # noqa: E402
from curation.fingerprint import fingerprint  # noqa: E402
from curation.identities.phase import run_identities  # noqa: E402
from curation.judging.fit import (  # noqa: E402
    choose_cut,
    fit_calibration,
    fit_low_cut,
)
from curation.meters import CallCounter  # noqa: E402
from curation.models import find_models  # noqa: E402
from curation.outfits.appearance_judge import similarities  # noqa: E402
from curation.outfits.clusters import outfit_clusters  # noqa: E402
from curation.outfits.gather import gather, read_people  # noqa: E402
from curation.outfits.judge import Answer, PairJudge, PersonRow, Weights, log_odds_of  # noqa: E402  # noqa: E402
from curation.outfits.judge_identity import judge_identity  # noqa: E402
from curation.outfits.strategy import Strategy, judge_side_by_side, paper_protocol  # noqa: E402
from curation.people.phase import run_people  # noqa: E402
from curation.photos.phase import run_photos  # noqa: E402
from curation.pipeline_file import load_pipeline  # noqa: E402
from curation.progress import RunProgress  # noqa: E402
from curation.run_folder import Run  # noqa: E402
from curation.settings.outfits import (  # noqa: E402
    CalibrationSettings,
    ClustersStrategy,
    PaperStrategy,
)
from curation.step import Context  # noqa: E402
from curation.vlm.serving import plan_of  # noqa: E402
from demo.run import say  # noqa: E402
from demo.server import DemoVlm  # noqa: E402
from demo.whole_run import CONFIG, PIPELINE, write_world  # noqa: E402
from demo.world.plan import Wardrobe  # noqa: E402

MIN_PHOTOS = 2
RANDOM = ("paper", "random leader")
UNTIL = ("world", "people", "answers", "end")
_LOT = 256  # questions in one go
_SAY_S = 30.0
LINK_PRECISION = 0.97  # for which the cut of stored colours is chosen on the other half
Way = Callable[["Person", "Fitted"], Strategy]


@dataclass(frozen=True)
class Fitted:
    """What was learned from the other half of the people."""

    calibration: CalibrationSettings
    low_cut: float
    colour_cut: float


class Remembered:
    """A judge that keeps each answer, so that a pair is asked once in each order by all ways together."""

    asks_model = False

    def __init__(self, judge: PairJudge) -> None:
        self._judge = judge
        self.columns = judge.columns
        self._answers: dict[tuple[str, str], Answer] = {}

    def ask(self, pairs: Sequence[tuple[PersonRow, PersonRow]]) -> list[Answer]:
        """One answer a pair."""
        keys = [(a["person_id"], b["person_id"]) for a, b in pairs]
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._answers}
        began = reported = time.monotonic()
        for start in range(0, len(new), _LOT):
            lot = list(new.items())[start : start + _LOT]
            found = self._judge.ask([pair for _, pair in lot])
            self._answers |= {key: answer for (key, _), answer in zip(lot, found, strict=True)}
            if time.monotonic() - reported > _SAY_S:
                reported = time.monotonic()
                say(f"{start + len(lot)} of {len(new)} questions in {(reported - began) / 60:.1f} minutes")
        return [self._answers[key] for key in keys]

    def __len__(self) -> int:
        return len(self._answers)


def main() -> int:
    """Measures; 2 for a bad size, 1 where a part cannot go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=909001, help="of the world")
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument(
        "--wardrobe", choices=get_args(Wardrobe), default="seen", help="of demo/world/plan.py"
    )
    parser.add_argument("--judge", choices=("vllm", "transformers"), default="vllm")
    parser.add_argument("--engine", choices=("ray", "inline"), default="ray")
    parser.add_argument(
        "--fit-pairs", type=int, default=3000, help="of each half, drawn, asked in both orders"
    )
    parser.add_argument("--draws", type=int, default=10, help="of the ways that draw photos at random")
    parser.add_argument("--out", type=Path, help="keep world, run and answers here, and go on from there")
    parser.add_argument("--until", choices=UNTIL, default="end", help="stop behind this step; needs --out")
    given = parser.parse_args()
    if given.photos < 100 or given.fit_pairs < 20 or given.draws < 1:
        print("outfits: --photos: 100 at least, --fit-pairs: 20, --draws: 1", file=sys.stderr)
        return 2
    if given.until != "end" and given.out is None:
        print("outfits: --until needs --out: nothing would be left of it", file=sys.stderr)
        return 2
    try:
        if given.out is not None:
            measure(given, given.out.absolute())
        else:
            with tempfile.TemporaryDirectory(prefix="persona-outfits-") as folder:
                measure(given, Path(folder))
    except PersonaError as error:
        print(f"outfits: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(given: argparse.Namespace, out: Path) -> None:
    """Everything, from the world to the line of JSON."""
    world, run = out / f"world-{given.seed}-{given.photos}-{given.wardrobe}", out / "run"
    settings = [
        f"source.path={json.dumps(str(world / 'collection' / 'tars'))}",
        f"models.path={json.dumps(str(ROOT / 'demo' / 'weights'))}",
    ]
    if given.judge == "transformers":
        settings += ["outfits.judge.backend=transformers", "captions.by.backend=transformers"]
    minutes = Minutes(out)
    with minutes.of("world"):
        write_world(given.seed, given.photos, world, say, given.wardrobe)
    if given.until == "world":
        return
    pipeline = load_pipeline(str(CONFIG), PIPELINE, settings)
    job = Job(str(run), pipeline, find_models(pipeline))
    with minutes.of("people"):
        before_outfits(job, given.engine)
    if given.until == "people":
        return
    truth = read_truth(str(world / "truth"))
    if given.judge == "transformers":
        compare(job, truth, given, minutes)
        return
    with DemoVlm(plan_of(pipeline, job.models, "judge"), out / "vllm.log", say) as vlm:
        if "transformers" in vlm.settings()[0]:
            pipeline = load_pipeline(str(CONFIG), PIPELINE, [*settings, *vlm.settings()])
            compare(replace(job, pipeline=pipeline), truth, given, minutes)
        else:
            compare(replace(job, endpoints={"judge": vlm.endpoint()}), truth, given, minutes)


class Minutes:
    """minutes.json of a folder: what each step took, over all starts that ended it."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._file = out / "minutes.json"

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        """Measures a step, says what it took, and adds it to the file."""
        began = time.monotonic()
        yield
        took = (time.monotonic() - began) / 60
        known = self.read()
        known[step] = round(known.get(step, 0.0) + took, 2)
        self._file.write_text(json.dumps(known, indent=1) + "\n")
        say(f"{step}: {took:.1f} minutes")

    def read(self) -> dict[str, float]:
        """{step: minutes}."""
        return dict(json.loads(self._file.read_text())) if self._file.exists() else {}


def before_outfits(job: Job, engine_name: str) -> None:
    """The phases photos, people and identities, and the people brought together."""
    Run(job.run).write_settings(PIPELINE, job.pipeline, job.models)
    engine = InlineEngine() if engine_name == "inline" else RayEngine(job.pipeline.engine, None, 2)
    try:
        context = Context(job, engine, RunProgress(job.run))
        people = run_people(context, run_photos(context))
        gather(context, people, run_identities(context, people))
    finally:
        engine.close()


def compare(job: Job, truth: Truth, given: argparse.Namespace, minutes: Minutes) -> None:
    """Lets every way ask, prints the table and the line."""
    looked_at = list(read_looked_at(job.run, truth))
    true = who_is_shown(looked_at)
    judge = build_backend("judge", job.pipeline.outfits.judge, job.models)
    if isinstance(judge, JoinsRun):
        judge.join_run(job, "outfits", CallCounter(None))
    remembered = Remembered(judge)
    people = read_whole_people(job, judge)
    photos = sum(len(person.photos) for person in people)
    say(f"{photos} photos of {len(people)} identities; fitting on {given.fit_pairs} pairs of a half at most")
    of = judge_identity(job.pipeline, job.models)
    with minutes.of("answers"):
        fitted = [fit(people, half, remembered, true, given.fit_pairs, of) for half in (1, 0)]
    if given.until == "answers":
        return
    photos_of = [person.photos for person in people]
    drawn: dict[str, list[dict[str, Any]]] = {}
    for draw in range(given.draws):
        for name, way in ways(job.pipeline.seed, true, draw).items():
            if draw and name not in RANDOM:
                continue
            strategies = [way(person, fitted[person.half]) for person in people]
            verdicts = judge_side_by_side(strategies, photos_of, remembered)
            drawn.setdefault(name, []).append(figures(people, verdicts, truth, true))
    say(f"{len(remembered)} questions put to the model")
    rows = {name: mean_of(rows) for name, rows in drawn.items()}
    judged = f"{photos} photos of {len(people)} identities were judged"
    print_table(rows, f"world {given.seed} of {given.photos} photos, outfits {given.wardrobe}: {judged}")
    who = whose_faces(looked_at)
    found = {m.key: m.value for m in identities(list(read_identified(job.run)), who)}
    strict, paper = rows["clusters strict"], rows["paper"]
    most, by_outfits = gain_over_paper(truth)
    print(f"a judge that is always right could have {most} times the paper's recall; by outfits worn:")
    for outfits, (count, gain) in by_outfits.items():
        print(f"  {outfits} outfits: {count} people, {gain} times")
    line = {
        "seed": given.seed,
        "photos": given.photos,
        "wardrobe": given.wardrobe,
        "judge": given.judge,
        "vlm": of,
        "recall_vs_paper": round(strict["recall"] / paper["recall"], 3) if paper["recall"] else None,
        "pair_precision": strict["precision"],
        "pair_recall": strict["recall"],
        "people_kept": strict["people_kept"],
        "calls_per_photo": strict["calls_per_photo"],
        "identity_bcubed_precision": found["identity_bcubed_precision"],
        "identity_bcubed_recall": found["identity_bcubed_recall"],
        "contaminated": contaminated(people, who),
        "paper_precision": paper["precision"],
        "paper_precisions": sorted(row["precision"] for row in drawn["paper"]),
        "paper_recall": paper["recall"],
        "most_vs_paper": round(rows["truth"]["recall"] / paper["recall"], 3) if paper["recall"] else None,
        "gain_over_paper": most,
        "minutes": minutes.read(),
        "ways": rows,
    }
    print(json.dumps(line))


def read_whole_people(job: Job, judge: PairJudge) -> list[Person]:
    """Everyone whom the phase identities left, in the order of identity and person_id."""
    rows = read_people(job.run, ["identity", "appearance", *judge.columns])
    by_identity: dict[str, list[PersonRow]] = {}
    for name in sorted(rows):
        by_identity.setdefault(rows[name]["identity"], []).append(rows[name])
    return [
        Person(name, photos, similarities([p["appearance"] for p in photos]), place % 2)
        for place, (name, photos) in enumerate(sorted(by_identity.items()))
    ]


def fit(
    people: list[Person], half: int, judge: Remembered, true: dict[str, Row | None], count: int, of: str
) -> Fitted:
    """The weights and the colour cut from the people of one half, labelled by the truth.

    Pairs of two people that the phase identities took for one are left out: no judge of clothes knows them.
    """
    every = [(p, a, b) for p in people if p.half == half for a, b in combinations(range(len(p.photos)), 2)]
    every = [(p, a, b) for p, a, b in every if not np.isnan(p.alike[a, b]) and one_person(p, a, b, true)]
    drawn = np.random.default_rng(0).permutation(len(every))[:count]
    pairs = [every[place] for place in sorted(drawn.tolist())]
    shown = [(p.photos[a], p.photos[b]) for p, a, b in pairs]
    one, two = judge.ask(shown), judge.ask([(b, a) for a, b in shown])
    answers = np.array([(log_odds_of(x) + log_odds_of(y)) / 2 for x, y in zip(one, two, strict=True)])
    colours = np.array([float(p.alike[a, b]) for p, a, b in pairs])
    same = np.array([same_outfit(true.get(a["person_id"]), true.get(b["person_id"])) for a, b in shown])
    calibration = fit_calibration(answers, colours, same, of)
    colour_cut = choose_cut(colours, same, LINK_PRECISION, least_pairs=1)["cut"] or 1.0
    return Fitted(calibration, fit_low_cut(colours, same), colour_cut)


def ways(seed: int, true: dict[str, Row | None], draw: int) -> dict[str, Way]:
    """What is compared. Each makes a strategy for one person; `truth` is the most that any could reach.

    draw  0: photos are drawn as the product draws them; another number: others
    """

    def drawn(person: Person, *more: object) -> np.random.Generator:
        again = [draw] if draw else []
        key = int(fingerprint(["outfits", seed, person.identity, *more, *again]), 16)
        return np.random.Generator(np.random.Philox(key=key))

    def clusters(preset: str, fits: bool = True) -> Way:
        def way(person: Person, fitted: Fitted) -> Strategy:
            own = {"calibration": fitted.calibration, "low_cut": fitted.low_cut} if fits else {}
            settings = ClustersStrategy.model_validate({"preset": preset, **own})
            ids = [photo["person_id"] for photo in person.photos]
            return outfit_clusters(ids, person.alike, settings, MIN_PHOTOS, asks_regions=False)

        return way

    def paper(person: Person, fitted: Fitted) -> Strategy:
        return paper_protocol(len(person.photos), drawn(person), PaperStrategy(), MIN_PHOTOS)

    return {
        "paper": paper,
        "clusters strict": clusters("strict"),
        "clusters recall": clusters("recall"),
        "clusters strict, not calibrated": clusters("strict", fits=False),
        "colours only": lambda p, f: colours_only(p.alike, f.colour_cut),
        "all pairs": lambda p, f: all_pairs(p.alike, Weights(f.calibration), 0.9),
        "random leader": lambda p, f: random_leader(len(p.photos), drawn(p, "leader")),
        "truth": lambda p, f: known_outfits([outfit_of(true, photo["person_id"]) for photo in p.photos]),
    }


def outfit_of(true: dict[str, Row | None], person_id: str) -> str | None:
    """The true outfit, named apart for two people in one."""
    row = true.get(person_id)
    return None if row is None else f"{row['identity']} {row['outfit']}"


if __name__ == "__main__":
    sys.exit(main())
