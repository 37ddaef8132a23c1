"""`persona shards precompute`: a tool for datasets that needs the trainer's VAE, so it stands here."""

import argparse
import os
import sys
from typing import Any

from shards.format.dataset import DatasetError
from shards.tools.commands import (
    UsageError,
    add_action,
    folder_of,
    limit_options,
    limits_of,
    on_disk,
    progress_of,
    say,
)


def mount(actions: Any) -> None:
    """Adds it to the actions of `persona shards`. Its `run` returns 0, 1 (the dataset is bad) or 2 (bad
    usage)."""
    parser = add_action(
        actions,
        "precompute",
        _precompute,
        "write a dataset anew with VAE latents of its photos, which training then reads instead of encoding",
        "persona shards precompute all --config visual_persona_stage_b --out all-latents",
    )
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--out", metavar="DIR", required=True)
    parser.add_argument(
        "--config", metavar="NAME", help="of a training: its VAE and its sizes; a name or a path to a .yaml"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="in the config; may be repeated"
    )
    parser.add_argument("--vae", metavar="FOLDER", help="a diffusers VAE, instead of the config's")
    parser.add_argument(
        "--size",
        metavar="HEIGHTxWIDTH",
        nargs="+",
        help="instead of the config's; a photo has the nearest one",
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="of the VAE (default %(default)s)"
    )
    parser.add_argument(
        "--dtype", choices=("float16", "float32"), default="float16", help="stored (default %(default)s)"
    )
    parser.add_argument(
        "--mean-only", action="store_true", help="no standard deviations: half the bytes, latents not drawn"
    )
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="photos (default %(default)s)")
    parser.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="that decode (default %(default)s)",
    )
    limit_options(parser)


def _precompute(options: argparse.Namespace) -> int:
    try:
        return _run(options)
    except DatasetError:
        raise
    except ValueError as error:
        raise UsageError(" ".join(str(error).split())[:1000]) from None


def _run(options: argparse.Namespace) -> int:
    import torch

    from training.latents import LatentStatement
    from training.models.local_weights import cast
    from training.precompute import Encoder, precompute

    folder, out, limits = folder_of(options.folder), on_disk(options.out), limits_of(options)
    if options.batch < 1 or options.threads < 1:
        raise ValueError(f"--batch {options.batch} --threads {options.threads}: at least 1 each")
    source, sizes = _vae_and_sizes(options)
    for size in sizes:
        if size[0] % source.factor or size[1] % source.factor:
            raise ValueError(
                f"--size {size[0]}x{size[1]}: must be HEIGHTxWIDTH in multiples of {source.factor} px"
            )
    who, vae = source.identity(), source.build()
    statement = LatentStatement(
        vae=who.name,
        sha256=who.sha256,
        scaling_factor=who.scaling_factor,
        shift=who.shift,
        factor=source.factor,
        channels=source.channels,
        sizes=tuple(sizes),
        precision=options.precision,
        dtype=options.dtype,
        moments="mean" if options.mean_only else "mean and std",
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae = cast(vae, torch.bfloat16 if options.precision == "bf16" else torch.float32).to(device)
    encoder = Encoder(source, vae, statement, batch=options.batch, threads=options.threads)
    try:
        about = precompute(folder, out, statement, encoder, progress=progress_of(options), **limits)
    finally:
        encoder.close()
    found = {"out": options.out, "photos": about["photos"], "shards": len(about["shards"])}
    found |= {"bytes": about["bytes"], "without_latent": len(encoder.broken), "latents": about["latents"]}
    for line in encoder.broken[:20]:
        print(f"persona: no latent: {line}", file=sys.stderr)
    line = (
        f"{options.out}: {about['photos']} photos, {len(encoder.broken)} of them without a latent; VAE "
        f"{who.name} ({who.sha256[:12]}), {options.precision}, stored as {options.dtype}, {len(sizes)} sizes"
    )
    say(options, found, [line])
    return 0


def _vae_and_sizes(options: argparse.Namespace) -> tuple[Any, list[tuple[int, int]]]:
    """A `Vae`, and the sizes."""
    from pathlib import Path

    from edges.settings_reader import assignments
    from training.bases.vae import vae_of_folder
    from training.recipes import recipe_of
    from training.run_settings import read_settings

    source, sizes = None, None
    if options.config is not None:
        settings = read_settings(options.config, assignments(options.set))
        source, sizes = recipe_of(settings.recipe, settings.method).base.vae, settings.data.sizes
    elif options.set:
        raise ValueError("--set changes a config: name one with --config")
    if options.vae is not None:
        source = vae_of_folder(Path(options.vae))
    if options.size is not None:
        sizes = [_size(text) for text in options.size]
    if source is None or sizes is None:
        raise ValueError("precompute needs --config NAME, or --vae FOLDER and --size HEIGHTxWIDTH")
    return source, sizes


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()) or "0" in (height, width):
        raise ValueError(f"--size {text}: must be HEIGHTxWIDTH in px, as 1152x896")
    return int(height), int(width)
