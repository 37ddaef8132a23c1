"""The graph of imports: what counts as one, and that a circle of files is found."""

from pathlib import Path

import pytest

from tests.house.import_graph import circles, edges, longest_chain, reached_at_import


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_circle_that_a_function_closes_is_found(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "curation/a.py": "from curation.b import f\n",
            "curation/b.py": "def f():\n    from curation import c\n",
            "curation/c.py": "import curation.a\n",
            "curation/d.py": "from curation.a import x\n",
        },
    )
    graph = edges(tmp_path)
    assert circles(graph) == [["curation/a.py", "curation/b.py", "curation/c.py"]]
    with pytest.raises(ValueError, match="circle"):
        longest_chain(graph)


def test_the_longest_chain_ends_at_the_file_that_imports_nothing(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "persona.py": "def f():\n    from curation.b import x\n",
            "curation/a.py": "",
            "curation/b.py": "from curation.a import x\n",
            "shards/c.py": "from curation import a\n",
        },
    )
    graph = edges(tmp_path)
    assert circles(graph) == []
    assert longest_chain(graph) == ["persona.py", "curation/b.py", "curation/a.py"]
    assert reached_at_import("curation/b.py", tmp_path) == {"curation/a.py"}
    assert reached_at_import("persona.py", tmp_path) == set()
