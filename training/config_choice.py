"""Which config a training is started with: by its name, or by recipe and size."""

from collections.abc import Sequence

from training.settings import or_nearest


def chosen_config(name: str | None, recipe: str | None, config: str | None, known: Sequence[str]) -> str:
    """The config's name or path out of `persona train [NAME] [--recipe RECIPE] [--config CONFIG]`.

    `--recipe visual_persona --config demo` is the config visual_persona_demo. A path, or a whole name, stays
    what it is, and must then be of that recipe (`check_recipe`). Raises ValueError, one line.
    """
    if name is not None and config is not None:
        raise ValueError(f"two configs are named, {name} and --config {config}: one is meant")
    wanted = config if name is None else name
    of_recipe = [k.removeprefix(f"{recipe}_") for k in known if recipe and k.startswith(f"{recipe}_")]
    if wanted is None:
        some = f"--config {' or '.join(of_recipe)}" if of_recipe else ", ".join(known)
        raise ValueError(f"name a config: {some}, or a path to a .yaml")
    if recipe is None or wanted in known or wanted.endswith((".yaml", ".yml")):
        return wanted
    if wanted in of_recipe:
        return f"{recipe}_{wanted}"
    raise ValueError(
        f"no config {wanted!r} for the recipe {recipe!r}{or_nearest(wanted, of_recipe or known)}"
    )


def check_recipe(found: str, recipe: str | None, config: str) -> None:
    """Raises ValueError, one line, where a config is of another recipe than `--recipe` says."""
    if recipe is not None and found != recipe:
        raise ValueError(f"{config} is a config of the recipe {found}, not of {recipe}")
