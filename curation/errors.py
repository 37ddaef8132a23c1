"""Errors whose text is one line that a user can act on; the command line prints it and no traceback."""


class PersonaError(Exception):
    """The run cannot go on. Exit code 1."""

    exit_code = 1


class ConfigError(PersonaError):
    """What was asked for cannot be run: bad file, key, value or missing weights. Exit code 2."""

    exit_code = 2
