"""Which product file imports which: edges, circles, and the longest chain of imports.

Imports inside functions count like any other. Imports under `if TYPE_CHECKING:` do not: none of them is run.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("edges", "curation", "shards", "training", "demo")

Edges = dict[str, set[str]]
"""Path of a file, relative to the root → paths of the files that it imports."""


def product_files(root: Path = ROOT) -> list[str]:
    """Every Python file of the product's parts, and persona.py; relative to the root, sorted."""
    files = [path for part in PARTS for path in (root / part).rglob("*.py")]
    files += [path for path in [root / "persona.py"] if path.exists()]
    return sorted(path.relative_to(root).as_posix() for path in files)


def edges(root: Path = ROOT) -> Edges:
    """Of each product file, the product files that it imports. An `__init__.py` counts where it is named."""
    files = product_files(root)
    known = {_module(name): name for name in files}
    return {
        name: {known[module] for module in _imported(root / name) if module in known} - {name}
        for name in files
    }


def circles(graph: Mapping[str, set[str]] | None = None) -> list[list[str]]:
    """Groups of files that reach one another by imports, each sorted; empty where there is no circle."""
    graph = edges() if graph is None else graph
    return [sorted(group) for group in _components(graph) if len(group) > 1]


def longest_chain(graph: Mapping[str, set[str]] | None = None) -> list[str]:
    """The files of the longest chain of imports, from the first importer down. ValueError for a circle."""
    graph = edges() if graph is None else graph
    if circles(graph):
        raise ValueError("the files import one another in a circle: no chain is the longest")
    chains: dict[str, list[str]] = {}
    for [name] in _components(graph):
        below = max((chains[other] for other in graph[name]), key=lambda c: (len(c), c), default=[])
        chains[name] = [name, *below]
    return max(chains.values(), key=lambda chain: (len(chain), chain), default=[])


def reached_at_import(start: str, root: Path = ROOT) -> set[str]:
    """The product files that importing `start` loads: imports inside functions are not followed."""
    files = product_files(root)
    known = {_module(name): name for name in files}
    reached, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        waiting += [known[module] for module in _imported(root / name, functions=False) if module in known]
    return reached - {start}


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imported(path: Path, functions: bool = True) -> tuple[str, ...]:
    """Names of the modules that a file imports; of `from a import b` both `a` and `a.b`."""
    return _names_imported(path.read_text(), functions)


@cache
def _names_imported(text: str, functions: bool) -> tuple[str, ...]:
    names = []
    for node in _statements(ast.parse(text), functions):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


def _statements(node: ast.AST, functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if not functions and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from _statements(child, functions)


def _components(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected components (Tarjan 1972), each after all that it imports."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            place = stack.index(name)
            found.append(stack[place:])
            del stack[place:]

    for name in sorted(graph):
        if name not in number:
            visit(name)
    return found
