"""`persona generate`: pictures of a person from photos or a sample of a dataset."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edges.command_line import add_command, refusing

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
    generate.add_argument("--height", type=int, default=1024, help="px (default %(default)s)")
    generate.add_argument("--width", type=int, default=1024, help="px (default %(default)s)")
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

    from training.generation.references import sample_photos
    from training.run_settings import SamplingSettings

    try:
        sampling = SamplingSettings(
            steps=options.steps, guidance=options.guidance, identity_scale=options.identity_scale
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise ValueError(f"--{str(fault['loc'][0]).replace('_', '-')}: {fault['msg']}") from None
    pipeline = pipeline_of(options)
    if options.sample is not None:
        dataset, _, key = options.sample.rpartition(":")
        if not dataset:
            raise ValueError(f"--sample {options.sample}: must be DATASET:KEY")
        references = sample_photos(dataset, key)
    else:
        assert parser_of is not None
        references = parser_of(options)([Path(photo) for photo in options.photo])
    began = time.monotonic()
    seeds = range(options.seed, options.seed + options.pictures)
    pictures = pipeline(
        options.prompt,
        references,
        regions=regions,
        negative_prompt=options.negative,
        height=options.height,
        width=options.width,
        seeds=seeds,
        sampling=sampling,
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
    if options.checkpoint is not None:
        raise ValueError("--config: a checkpoint says its recipe itself; give it with --weights only")
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
