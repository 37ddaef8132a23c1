"""Errors whose text is one line that a user can act on; the command line prints it and no traceback."""


class PersonaError(Exception):
    """The run cannot go on. Exit code 1."""

    exit_code = 1


class ConfigError(PersonaError):
    """What was asked for cannot be run: bad file, key, value or missing weights. Exit code 2."""

    exit_code = 2


# What a terminal or a log would obey instead of showing: control characters, and marks that turn the
# direction of text around.
_UNSEEN = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(32), *range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def printable(text: str) -> str:
    """The text as one line that a terminal only shows: what it would obey is written as an escape."""
    return text.translate(_UNSEEN)


def one_line(error: BaseException) -> str:
    """An exception as one short line that says of which kind it is."""
    text = " ".join(str(error).split())
    return printable(f"{type(error).__name__}: {text}"[:300]) if text else type(error).__name__
