"""What an import path names, `package.module:Name`: code of a user's own, which may fail in any way."""

from importlib import import_module
from typing import Any


def imported(path: str) -> Any:
    """What the path names, its module imported. Raises ImportError, one line with the kind of the fault and,
    of a slip in the code, its place; its `name` is the package where that one is not found."""
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except Exception as error:  # of code that runs when it is imported
        says = " ".join(str(error).split())
        if isinstance(error, SyntaxError):
            says = f"{error.msg}: {error.filename}:{error.lineno}"
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        raise ImportError(f"cannot be imported: {type(error).__name__}: {says}", name=missing) from error
