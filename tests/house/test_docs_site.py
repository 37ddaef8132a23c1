"""`make docs`: the pages as a site, in which no link is dead and nothing is loaded from elsewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drawn_pipeline import ROOT, environment


def build(place: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=place, env={**environment(), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_and_every_readme_is_a_page_of_the_site(site: Path) -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} | {"index", "demo", "deploy"}
    assert pages <= {page.stem for page in site.glob("*.html")}
    front = (site / "index.html").read_text()
    assert 'href="quick-start.html"' in front
    assert 'src="groups.jpg"' in front


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]* (?:src|href)="([^"]+)"', page.read_text()
        )
        assert loaded
        assert not [address for address in loaded if re.match(r"(?:https?:)?//", address)], page.name


def test_a_dead_link_stops_the_build_and_is_named(tmp_path: Path) -> None:
    for name in ("README.md", "mkdocs.yml"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("docs", "demo", "deploy"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=lambda place, names: _not_pages(place, names)
        )
    with (tmp_path / "demo" / "README.md").open("a") as file:
        file.write("\n[gone](../docs/gone.md) [no such part](../docs/shards.md#nowhere)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "gone.md" in done.stderr
    assert "#nowhere" in done.stderr


def _not_pages(place: str, names: list[str]) -> list[str]:
    wanted = (".md", ".png", ".jpg", ".py")
    deep = not Path(place).name.startswith(("docs", "site"))
    return [name for name in names if not name.endswith(wanted) and (deep or name != "site")]
