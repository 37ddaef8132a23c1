"""The process that fuzzes one parser with atheris; `tests.fuzz` starts it and reads what it says.

python -m tests.fuzz.one PARSER CORPUS [LIBFUZZER-OPTION...]
"""

import importlib
import sys
from pathlib import Path

import atheris


def main() -> None:
    """Does not return: libFuzzer ends the process."""
    name, corpus, *options = sys.argv[1:]
    first = importlib.import_module(f"tests.fuzz.parsers.{name}")
    modules = first.MODULES
    for index, data in enumerate(first.seeds()):
        (Path(corpus) / f"seed-{index}").write_bytes(data)
    # Imported once more, now with the branches of the parser counted.
    for module in [*modules, first.__name__]:
        sys.modules.pop(module, None)
    with atheris.instrument_imports(include=list(modules)):
        for module in modules:
            importlib.import_module(module)
    parser = importlib.import_module(first.__name__)
    atheris.Setup([sys.argv[0], corpus, *options], parser.parse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
