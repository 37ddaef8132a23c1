"""What an extra of this project needs, as a command that works: no index holds the project itself."""

import shlex
from importlib.metadata import PackageNotFoundError, requires


def install_line(extra: str) -> str:
    """`pip install …` of the packages that an extra of pyproject.toml names."""
    try:
        stated = [text.partition(";") for text in requires("persona") or ()]
    except PackageNotFoundError:  # the sources lie on the path, and nothing was installed
        stated = []
    wanted = [name.strip() for name, _, marker in stated if f'"{extra}"' in marker.replace("'", '"')]
    return f"pip install {shlex.join(wanted)}" if wanted else f"pip install '.[{extra}]' in a copy of persona"
