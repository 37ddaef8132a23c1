"""Errors whose text is one line that a user can act on; the command line prints it and no traceback."""


class PersonaError(Exception):
    """The run cannot go on. Exit code 1."""

    exit_code = 1


class ConfigError(PersonaError):
    """What was asked for cannot be run: bad file, key, value or missing weights. Exit code 2."""

    exit_code = 2


def one_line(error: BaseException) -> str:
    """An exception as one short line that says of which kind it is."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
