"""`persona generate`: pictures of a person from photos or a sample of a dataset."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edges.command_line import add_command, refusing

SAID_EVERY_S = 15.0  # as curation's lines off a terminal (telemetry.log_every_s)
ParserOf = Callable[[argparse.Namespace], Any]
"""Options → a `ParsePhotos` (references.py), made when there are photos to parse."""


def mount_generate(commands: Any, parser_of: ParserOf | None) -> None:
    """Adds the command. Without `parser_of` it takes samples of datasets only."""
    generate = add_command(
        commands,
        "generate",
        refusing(lambda options: _generate(options, parser_of), ValueError, OSError),
        "make pictures of a person from reference photos and a prompt",
        "persona generate --checkpoint runs/b --photo a.jpg b.jpg --prompt 'A woman reads on a bench.' "
        "--seed 3 --out reading.png",
    )
    model = generate.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", metavar="RUN", help="a training's folder, or one of its checkpoints")
    model.add_argument("--weights", metavar="FILE", help="a published file; needs --config")
    generate.add_argument("--config", metavar="NAME", help="whose recipe and method the file is of")
    generate.add_argument("--last", action="store_true", help="the last step's weights, not their averages")
    of = generate.add_mutually_exclusive_group(required=True)
    of.add_argument("--sample", metavar="DATASET:KEY", help="all photos of one sample")
    if parser_of is not None:
        of.add_argument(
            "--photo", nargs="+", metavar="FILE", help="of one person, or of several: see --regions"
        )
        generate.add_argument("--pipeline", default="demo", help="that parses photos (default %(default)s)")
        generate.add_argument("--pipelines", default="pipelines.yaml", metavar="FILE")
    generate.add_argument("--prompt", required=True)
    generate.add_argument("--negative", metavar="PROMPT", help="what guidance leads away from")
    generate.add_argument(
        "--regions",
        default="head,torso,legs,shoes",
        help="to take, as head,torso; NAME=N takes it from photo N, counted from 0 (default %(default)s)",
    )
    generate.add_argument("--seed", type=int, default=0, help="of the first picture (default %(default)s)")
    generate.add_argument("--pictures", type=int, default=1, help="of seeds that follow one another")
    generate.add_argument("--height", type=int, help="px (default: as it was trained, else 1024)")
    generate.add_argument("--width", type=int, help="px (default: as it was trained, else 1024)")
    generate.add_argument("--steps", type=int, default=50, help="default %(default)s")
    generate.add_argument("--guidance", type=float, default=12.0, help="default %(default)s; 8 for stories")
    generate.add_argument("--identity-scale", type=float, default=0.7, help="default %(default)s")
    generate.add_argument("--out", required=True, metavar="FILE", help=".png; more get -1, -2 …")


def _generate(options: argparse.Namespace, parser_of: ParserOf | None) -> int:
    out = Path(options.out)
    if out.suffix != ".png":
        raise ValueError(f"--out {out}: must end in .png")
    if options.pictures < 1:
        raise ValueError(f"--pictures {options.pictures}: must be at least 1")
    regions = regions_of(options.regions)

    from pydantic import ValidationError

    from training.first_checks import check_writable
    from training.run_settings import SamplingSettings

    check_writable(out.parent)
    _check_words(options)

    try:
        sampling = SamplingSettings(
            steps=options.steps, guidance=options.guidance, identity_scale=options.identity_scale
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise ValueError(f"--{str(fault['loc'][0]).replace('_', '-')}: {fault['msg']}") from None
    # What can be wrong with the words is, but for the weights, found before torch is imported.
    parse = None if options.sample is not None else parser_of(options) if parser_of is not None else None
    pipeline = pipeline_of(options)
    height, width = _size(options, pipeline.size)
    pipeline.recipe.base.check_size(height, width)
    pipeline.recipe.base.check_identity_scale(sampling.identity_scale)
    if parse is None:
        from training.generation.references import sample_photos

        dataset, _, key = options.sample.rpartition(":")
        references = sample_photos(dataset, key)
    else:
        references = parse([Path(photo) for photo in options.photo])
    _say(f"making {options.pictures} of {width} × {height} px in {options.steps} steps")
    began = time.monotonic()
    seeds = range(options.seed, options.seed + options.pictures)
    pictures = pipeline(
        options.prompt,
        references,
        regions=regions,
        negative_prompt=options.negative,
        height=height,
        width=width,
        seeds=seeds,
        sampling=sampling,
        stepped=_now_and_then(sampling.steps),
    )
    seconds = time.monotonic() - began
    files = []
    for number, (seed, picture) in enumerate(zip(seeds, pictures, strict=True)):
        file = out if len(pictures) == 1 else out.with_name(f"{out.stem}-{number + 1}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file, pnginfo=_made_with(options, seed))
        files.append(str(file))
    print(json.dumps({"files": files, "seconds": round(seconds, 2)}))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _now_and_then(steps: int, clock: Callable[[], float] = time.monotonic) -> Callable[[int], None]:
    """Says how many of the steps are made, at most every SAID_EVERY_S: pictures on a CPU take minutes."""
    said = clock()

    def stepped(made: int) -> None:
        nonlocal said
        if made < steps and clock() - said >= SAID_EVERY_S:
            said = clock()
            _say(f"step {made} of {steps}")

    return stepped


def _check_words(options: argparse.Namespace) -> None:
    """Raises ValueError for a region that there is not, and for a checkpoint, a sample or a photo that is not
    there."""
    from shards.format.contents import REGION_NAMES
    from shards.reading.folder import DatasetFolder
    from training.first_checks import check_model

    unknown = [name for name in regions_of(options.regions) if name not in REGION_NAMES]
    if unknown:
        raise ValueError(f"unknown region {unknown[0]!r}: there are {', '.join(REGION_NAMES)}")
    check_model(options.checkpoint, options.weights, options.config)
    if options.sample is None:
        missing = [photo for photo in options.photo if not Path(photo).is_file()]
        if missing:
            raise ValueError(f"--photo {missing[0]}: no such file")
        return
    dataset, _, key = options.sample.rpartition(":")
    if not dataset:
        raise ValueError(f"--sample {options.sample}: must be DATASET:KEY")
    index = DatasetFolder(dataset).index
    if not any(index.key(number) == key for number in range(len(index))):
        raise ValueError(f"{dataset}: no sample {key}; the first of {len(index)} is {index.key(0)}")


def _size(options: argparse.Namespace, trained: tuple[int, int] | None) -> tuple[int, int]:
    """As it is asked for, else as it was trained. A size far from that is made, with a word on it."""
    height, width = trained or (1024, 1024)
    asked = options.height or height, options.width or width
    if trained is not None and not 0.5 <= (asked[0] * asked[1]) / (height * width) <= 2:
        _say(
            f"{asked[1]} × {asked[0]} px is far from the {width} × {height} px that it was trained on: "
            "pictures may be worse"
        )
    return asked


def regions_of(text: str) -> dict[str, int | None]:
    """ "head,torso=1" → {"head": None, "torso": 1}. Raises ValueError for what is no number."""
    found: dict[str, int | None] = {}
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        if equals and not number.isdigit():
            raise ValueError(f"--regions {part.strip()}: must be NAME or NAME=NUMBER OF A PHOTO")
        found[name] = int(number) if equals else None
    return found


def pipeline_of(options: argparse.Namespace) -> Any:
    """The `PersonaPipeline` that --checkpoint, or --weights and --config, name; on a GPU where there is one,
    in bfloat16. Raises ValueError."""
    import torch

    from training.generation.pipeline import PersonaPipeline

    cuda = torch.cuda.is_available()
    return PersonaPipeline.from_pretrained(
        options.checkpoint or options.weights,
        **_method_of(options),
        averaged=not options.last,
        device="cuda" if cuda else "cpu",
        dtype=torch.bfloat16 if cuda else torch.float32,
    )


def _method_of(options: argparse.Namespace) -> dict[str, Any]:
    """Recipe and settings of a published file, by the name of a config."""
    if options.config is None:
        return {}
    from training.run_settings import read_settings

    settings = read_settings(options.config, {})
    return {"recipe": settings.recipe, "method": settings.method}


def _made_with(options: argparse.Namespace, seed: int) -> Any:
    """What a picture was made with, for its file: the command's own words."""
    from PIL.PngImagePlugin import PngInfo

    names = ("checkpoint", "weights", "prompt", "negative", "regions", "steps", "guidance", "identity_scale")
    info = PngInfo()
    info.add_text("persona", json.dumps({"seed": seed} | {name: getattr(options, name) for name in names}))
    return info
