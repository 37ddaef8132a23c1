"""`persona train` and `persona export`; `generate` and `evaluate` have files of their own."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from edges.command_line import add_command, refused
from training.evaluation.command import FacesOf, mount_evaluate
from training.generation.command import ParserOf, mount_generate


def mount(commands: Any, parser_of: ParserOf | None = None, faces_of: FacesOf | None = None) -> None:
    """Adds all to a parser's commands. Each sets `run`, which returns 0, 1 (it ran, the result is bad)
    or 2 (bad usage or config).

    parser_of, faces_of   make what photos are parsed with, and what finds faces; the front door knows
                          curation's stages
    """
    mount_generate(commands, parser_of)
    mount_evaluate(commands, faces_of)
    train = add_command(
        commands,
        "train",
        _train,
        "train a recipe on shards; goes on by itself where it stopped",
        "persona train visual_persona_demo --shards runs/demo/shards --out runs/training",
    )
    train.add_argument("name", metavar="CONFIG", nargs="?", help="a config's name, or a path to a .yaml")
    train.add_argument("--recipe", metavar="RECIPE", help="with --config: RECIPE_CONFIG, or of that recipe")
    train.add_argument("--config", metavar="CONFIG", help="as CONFIG; with --recipe its size, as demo")
    train.add_argument(
        "--shards", required=True, nargs="+", metavar="DIR",
        help="a dataset; several are mixed, each in its share: DIR=3 OTHER=1 (URL/=3)",
    )  # fmt: skip
    train.add_argument("--validation", metavar="DIR", help="shards of held-out people")
    train.add_argument("--out", required=True, metavar="DIR")
    train.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="as loop.steps=100; may be repeated"
    )
    train.add_argument(
        "--changed", action="store_true", help="go on with other settings than the run was begun with"
    )
    train.add_argument(
        "--quiet",
        action="store_true",
        help="no lines on stderr while it trains, and no prediction of its memory",
    )
    train.add_argument("--plan", action="store_true", help="check, say memory and time, train nothing")
    train.add_argument("--gpu", metavar="NAME", help="with --plan: that it will run on, as H100")
    train.add_argument(
        "--mfu", type=float, default=0.35, metavar="SHARE",
        help="with --plan: of the GPU's peak, assumed where no step was measured (default %(default)s)",
    )  # fmt: skip
    export = add_command(
        commands,
        "export",
        _export,
        "write a run's last checkpoint in the layout in which the method is published",
        "persona export runs/demo/training --out weight.safetensors --verify",
    )
    export.add_argument("folder", metavar="RUN", help="a training's folder, one of its checkpoints, or a URL")
    export.add_argument("--out", required=True, metavar="FILE", help=".safetensors or .bin")
    export.add_argument(
        "--best", action="store_true", help="of the checkpoint with the lowest validation loss"
    )
    export.add_argument(
        "--last", action="store_true", help="the last step's weights, not their moving averages"
    )
    export.add_argument(
        "--merge-lora",
        action="store_true",
        help="LoRA within the base's weights, which are written too; else beside, in FILE.lora.safetensors",
    )
    export.add_argument(
        "--evaluation",
        metavar="DIR",
        help="of persona evaluate, for the card (default RUN/evaluation, if there)",
    )
    export.add_argument(
        "--push", metavar="OWNER/NAME", help="send file and card to that repository of the hub"
    )
    export.add_argument("--public", action="store_true", help="with --push: a new repository is not private")
    export.add_argument("--verify", action="store_true", help="read it back strictly and compare")
    export.add_argument(
        "--layout", metavar="NAME", help="instead: comfyui, the names of FLUX.2's own code, for LoRA on it"
    )


def _train(options: argparse.Namespace) -> int:
    try:
        settings = _checked_settings(options)
    except ValueError as error:
        # All ranks find the same; one of them says it.
        return refused(error) if os.environ.get("RANK", "0") == "0" else 2
    import torch

    try:
        return _train_here(options, settings)
    except torch.OutOfMemoryError as error:
        needs = "see the prediction with --plan; data.batch, data.height_px and method say how much is needed"
        return refused(RuntimeError(f"{str(error).splitlines()[0]} ({needs})"), 1)


def _checked_settings(options: argparse.Namespace) -> Any:
    """The `RunSettings` that the words name, checked as far as that needs no torch. Raises ValueError."""
    from edges.settings_reader import assignments
    from training.first_checks import check_run, shares_of
    from training.run_settings import named_configs, read_settings
    from training.settings import check_recipe, chosen_config

    config = chosen_config(options.name, options.recipe, options.config, named_configs())
    settings = read_settings(config, assignments(options.set))
    check_recipe(settings.recipe, options.recipe, config)
    if not 0 < options.mfu <= 1:
        raise ValueError(f"--mfu {options.mfu}: must be above 0 and at most 1")
    options.shards = shares_of(options.shards)
    check_run(settings, [name for name, _ in options.shards], options.validation, Path(options.out))
    return settings


def _train_here(options: argparse.Namespace, settings: Any) -> int:
    import torch

    from shards.format.dataset import DatasetError
    from shards.reading.loader import TooManyBrokenError
    from training.checkpoint import CheckpointError
    from training.ranks import StopSignals, join_ranks
    from training.start import prepare
    from training.step import NonFiniteError

    def say(line: str) -> None:
        if not options.quiet:
            print(line, file=sys.stderr, flush=True)

    with join_ranks() as ranks:
        try:
            prepared = prepare(
                settings, options.shards, Path(options.out), ranks, options.validation,
                changed=options.changed, build_on=torch.device("cpu") if options.plan else None,
            )  # fmt: skip
            # Found beside what follows. It takes seconds, or for a full size half a minute.
            memory = prepared.memory() if ranks.first and (options.plan or not options.quiet) else None
            if memory is not None and options.plan:
                time = prepared.time(options.gpu, options.mfu)
                say(memory.result().line())
                say(time.line())
                whole = {"steps": prepared.settings.loop.steps}
                print(json.dumps(memory.result().in_gib() | whole | time.as_json()))
            if options.plan:
                return 0
            if ranks.first and prepared.changed:
                say(f"goes on with other settings: {'; '.join(prepared.changed)}")
            training = prepared.training(say)
            if memory is not None:
                print(memory.result().line())
        except ValueError as error:
            return refused(error)
        if ranks.first and training.step:
            print(f"goes on from step {training.step} of {training.settings.steps}")
        try:
            with StopSignals() as stop:
                steps = training.run(stop)
        except (CheckpointError, DatasetError, NonFiniteError, TooManyBrokenError) as error:
            return refused(error, 1)
        if ranks.first:
            done = {"steps": steps, "out": options.out}
            done |= {} if steps == training.settings.steps else {"of": training.settings.steps}
            done |= {} if training.stopped is None else {"stopped": training.stopped}
            print(json.dumps(done))
    return 0


def _export(options: argparse.Namespace) -> int:
    from training.first_checks import check_checkpoint, check_writable
    from training.model_card import check_push, model_card, push, read_results, write_card

    evaluation, out = Path(options.evaluation or f"{options.folder}/evaluation"), Path(options.out)
    try:
        if options.layout and options.verify:
            raise ValueError("--verify reads the published layout: leave out --layout, or --verify")
        if options.layout and options.merge_lora:
            raise ValueError("--merge-lora writes the published layout: leave out --layout")
        check_checkpoint(options.folder)
        check_writable(out.parent)
        if options.push is not None:
            check_push(options.push)
        is_measured = options.evaluation is not None or (evaluation / "results.json").is_file()
        measured = read_results(evaluation) if is_measured else None
    except ValueError as error:
        return refused(error)

    from training.evaluation.cases import model_name, weights_digest
    from training.export import (
        adapter_of,
        export_merged,
        last_checkpoint,
        recipe_of_checkpoint,
        verify_export,
    )
    from training.models.lora import is_lora
    from training.released_layout import LayoutError

    try:
        checkpoint = last_checkpoint(options.folder, best=options.best)
        recipe = recipe_of_checkpoint(checkpoint)
        adapter = adapter_of(checkpoint, averaged=not options.last)
        if options.push and recipe.base.lora_beside and not options.merge_lora and any(map(is_lora, adapter)):
            raise ValueError("--push sends one file, and LoRA would lie in another: --merge-lora")
        if options.merge_lora:
            export_merged(recipe, adapter, out)
        else:
            recipe.export(adapter, out, options.layout)
    except ValueError as error:
        return refused(error)
    if options.verify:
        try:
            verify_export(recipe, adapter, out, merged=options.merge_lora)
        except LayoutError as error:
            return refused(error, 1)
    result = {"file": str(out), "step": checkpoint.step, "recipe": recipe.name, "verified": options.verify}
    own = model_name(checkpoint.digest, last=options.last)
    if measured is not None and measured.get("model") != own and measured.get("model") != weights_digest(out):
        told = "is of other weights, or does not state which: the card has no scores"
        print(f"{evaluation}/results.json: {told}", file=sys.stderr)
        measured = None
    card = model_card(recipe, checkpoint, out, averaged=not options.last, results=measured)
    result["card"] = str(write_card(card, out))
    if options.push is not None:
        try:
            result["pushed"] = push(options.push, out, card, public=options.public)
        except ValueError as error:
            return refused(error, 1)
    print(json.dumps(result))
    return 0
