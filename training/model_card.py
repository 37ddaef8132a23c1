"""The card of an exported model, README.md as hubs read it: what made it, from what, under which licences,
and what was measured. And a hub that it is sent to."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:  # whether anything can be sent is checked before torch is imported
    from training.checkpoint import Checkpoint
    from training.recipes.recipe import Recipe

_MARK = "<!-- card of a model, written by persona export -->"
_USE = """## Use

It makes pictures of the person on a reference photo. Make pictures of people only with their consent, and say
that they are made. It was trained on photos of real people, unless these were drawn: what the licences above
ask for holds for what is published too. Who was taken out of the photos after this training
(`persona forget`) may still be in its weights."""


def model_card(
    recipe: "Recipe",
    checkpoint: "Checkpoint",
    file: Path,
    *,
    averaged: bool,
    results: Mapping[str, Any] | None,
) -> str:
    """README.md. The same checkpoint gives the same text.

    results   of `persona evaluate` (its results.json), where it has measured this model
    """
    record = checkpoint.record
    datasets = record.get("datasets", [])
    head = {
        "license": "other",
        "license_name": "see the licences of its photos and of its base",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["persona", recipe.name, recipe.base.name],
    }
    weights = "moving averages of the weights" if averaged else "weights of the last step"
    losses = record.get("validation_loss")
    rows = [
        ("recipe", recipe.name),
        ("base", f"{recipe.base.name}, {_named(recipe.settings, recipe.base.name)}"),
        ("file", f"`{file.name}`, {weights}"),
        ("steps", str(checkpoint.step)),
        ("samples of one step", str(_samples(record)) if _samples(record) else "not stated"),
        (
            "loss on held-out people",
            f"{losses:.4f}" if isinstance(losses, float) else "not measured at this step",
        ),
    ]
    settings = {
        "method": record["recipe_settings"],
        "data": record.get("data", {}),
        "loop": record["settings"],
    }
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{_MARK}\n\n# {file.stem}",
        f"A person's identity from a reference photo, for {recipe.base.name}: trained by the recipe "
        f"`{recipe.name}` of `persona`.",
        _table(("", ""), rows),
        f"## Trained on\n\n{_datasets(datasets)}",
        f"## Measured\n\n{_measured(results)}",
        f"## Settings\n\n```yaml\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}```",
        _USE,
    ]
    return "\n\n".join(parts) + "\n"


def _named(settings: Any, base: str) -> str:
    folder = getattr(getattr(settings, base), "folder", None)
    return "with random weights at the start" if folder is None else f"weights of `{Path(folder).name}`"


def _samples(record: Mapping[str, Any]) -> int:
    batch, ranks = record.get("data", {}).get("batch", 0), record.get("ranks") or 0
    return int(batch * ranks * record["settings"].get("accumulate", 1))


def _datasets(datasets: Sequence[Mapping[str, Any]]) -> str:
    """What the cards of the datasets say."""
    if not datasets:
        return "The run does not state its datasets: it was begun with a version of persona that did not."
    rows = [
        (
            d["name"],
            str(d["share"]),
            *(_stated(d.get(key)) for key in ("groups", "photos")),
            f"`{_stated(d.get('checksum'))}`",
        )
        for d in datasets
    ]
    licences: dict[str, int] = {}
    for dataset in datasets:
        for name, photos in (dataset.get("licences") or {}).items():
            licences[name] = licences.get(name, 0) + photos
    silent = [dataset["name"] for dataset in datasets if not dataset.get("licences")]
    return (
        _table(("dataset", "share", "groups", "photos", "checksum"), rows)
        + "\n\nLicences of these photos, as their collections state them:\n\n"
        + _table(("licence", "photos"), [(name, str(photos)) for name, photos in sorted(licences.items())])
        + (f"\n\nDatasets that state none: {', '.join(silent)}." if silent else "")
    )


def _stated(value: Any) -> str:
    return "not stated" if value is None else str(value)


def _measured(results: Mapping[str, Any] | None) -> str:
    if results is None:
        return "Nothing: `persona evaluate` has not been run on it, or its folder was not named."
    rows = [
        (name, f"{score['mean']:.4f} ({score['low']:.4f} to {score['high']:.4f})", str(score["people"]))
        for name, score in results["scores"].items()
        if score.get("mean") is not None
    ]
    return "By `persona evaluate`, mean and 95 % interval over people:\n\n" + _table(
        ("score", "mean", "people"), rows
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text of others (licences, names) must not end a cell or a line."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(c.replace('|', '∣').split()) for c in line)} |" for line in lines
    )


def read_results(folder: Path) -> dict[str, Any]:
    """results.json of an evaluation's folder. Raises ValueError, one line."""
    try:
        found = json.loads((folder / "results.json").read_text())
        if not isinstance(found.get("scores"), dict):
            raise ValueError("states no scores")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder}/results.json: {' '.join(str(error).split())}") from None
    return dict(found)


def write_card(text: str, file: Path) -> Path:
    """Beside an export: README.md, or FILE.README.md where somebody's README.md lies. Returns its place."""
    place = file.with_name("README.md")
    if place.exists() and _MARK not in place.read_text(errors="replace"):
        place = file.with_name(f"{file.stem}.README.md")
    place.write_text(text)
    return place


def check_push(repo: str) -> None:
    """Raises ValueError, one line, where nothing can be sent: no such name, no network wanted, no login."""
    with _faults(repo):
        from huggingface_hub import constants, get_token
        from huggingface_hub.utils import validate_repo_id

        validate_repo_id(repo)
        if "/" not in repo:
            raise ValueError("must be OWNER/NAME")
        if constants.HF_HUB_OFFLINE:
            raise ValueError("HF_HUB_OFFLINE is set: nothing is sent")
        if get_token() is None:
            raise ValueError("no login: set HF_TOKEN, or `hf auth login`")


def push(repo: str, file: Path, card: str, *, public: bool) -> str:
    """Sends an export and its card in one commit; a repository that is not there is made, private unless
    `public`. Returns the commit's address. Raises ValueError, one line."""
    with _faults(repo):
        from huggingface_hub import CommitOperationAdd, HfApi

        hub = HfApi()
        hub.create_repo(repo, private=not public, exist_ok=True)
        files = [
            CommitOperationAdd(file.name, str(file)),
            CommitOperationAdd("README.md", card.encode()),
        ]
        done = hub.create_commit(repo, files, commit_message=f"{file.name}, by persona export")
        return str(done.commit_url)


@contextmanager
def _faults(repo: str) -> Iterator[None]:
    """The library's errors as one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"--push: needs the package {error.name}: pip install huggingface_hub") from None
    except ValueError as error:
        raise ValueError(f"--push {repo}: {' '.join(str(error).split())[:300]}") from None
    except (OSError, RuntimeError) as error:  # HfHubHTTPError and its kin are OSErrors
        status = getattr(getattr(error, "response", None), "status_code", None)
        cause = error.__cause__ or error
        said = f"HTTP {status}" if status is not None else " ".join(str(cause).split())[:200]
        hint = {401: ": HF_TOKEN is not known there", 403: ": HF_TOKEN may not write there"}.get(
            status or 0, ""
        )
        raise ValueError(f"--push {repo}: {said}{hint}") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore"):
            raise
        raise ValueError(f"--push {repo}: the hub is not reached: {error or type(error).__name__}") from None
