"""`persona evaluate`: prompts × held-out people, scored, with a page of pictures."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edges.command_line import add_command, refusing

FacesOf = Callable[[argparse.Namespace], tuple[Any, str]]
"""Options → (an `EmbedFaces` of embedding_scores.py, a key of the models behind it)."""


def mount_evaluate(commands: Any, faces_of: FacesOf | None) -> None:
    """Adds the command. Without `faces_of` faces are not compared, and the results say so."""
    evaluate = add_command(
        commands,
        "evaluate",
        refusing(lambda options: _evaluate(options, faces_of), ValueError, OSError),
        "generate prompts × held-out people and score the pictures; known ones are not made again",
        "persona evaluate demo --checkpoint runs/b --shards held-out --out runs/b/evaluation",
    )
    evaluate.add_argument("evaluation", help="a name, or a path to a .yaml")
    model = evaluate.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", metavar="RUN", help="a training's folder, or one of its checkpoints")
    model.add_argument("--weights", metavar="FILE", help="a published file; needs --config")
    evaluate.add_argument("--config", metavar="NAME", help="whose recipe and method the file is of")
    evaluate.add_argument("--last", action="store_true", help="the last step's weights, not their averages")
    evaluate.add_argument("--shards", required=True, metavar="DIR", help="of people who were not trained on")
    evaluate.add_argument("--out", required=True, metavar="DIR")
    evaluate.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="as people=4")
    if faces_of is not None:
        evaluate.add_argument("--pipeline", default="demo", help="that finds faces (default %(default)s)")
        evaluate.add_argument("--pipelines", default="pipelines.yaml", metavar="FILE")


def _evaluate(options: argparse.Namespace, faces_of: FacesOf | None) -> int:
    from edges.settings_reader import assignments
    from shards.reading.folder import read_dataset_json
    from training.evaluation.settings import read_evaluation
    from training.first_checks import check_model, check_writable

    settings = read_evaluation(options.evaluation, assignments(options.set))
    check_model(options.checkpoint, options.weights, options.config)
    if "://" not in options.shards:
        read_dataset_json(options.shards)
    check_writable(Path(options.out))

    # Torch comes with these.
    from training.evaluation.embedding_scores import FaceSimilarity
    from training.evaluation.run import evaluate
    from training.generation.command import pipeline_of

    faces = FaceSimilarity(*faces_of(options)) if faces_of is not None and settings.scores.face else None
    out = Path(options.out)
    results = evaluate(
        settings,
        Path(options.checkpoint or options.weights),
        lambda: pipeline_of(options),
        options.shards,
        out,
        faces,
        lambda text: print(f"evaluate: {text}", file=sys.stderr, flush=True),
        last=options.last,
    )
    print("\n".join(results.lines()))
    print(json.dumps({**results.to_json(), "page": str(out / "index.html")}))
    return 0
