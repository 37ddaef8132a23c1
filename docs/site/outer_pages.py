"""Pages of the site that lie outside docs/: the READMEs. A hook of mkdocs, named in mkdocs.yml.

The README is the site's front page. Links between these files and docs/ are written so that they work in
the repository; here they become links between pages, and mkdocs then checks them like all others.
"""

import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

# File of the repository → its page. A link to any other file outside docs/ is an error of the build.
_PAGES = {
    "README.md": "index.md",
    "demo/README.md": "demo.md",
    "deploy/README.md": "deploy.md",
}
_FILES = {page: file for file, page in _PAGES.items()}
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the READMEs."""
    root = posixpath.dirname(config.docs_dir)
    for page, file in _FILES.items():
        files.append(File.generated(config, page, abs_src_path=posixpath.join(root, file)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites a page's links from places in the repository to places in the site."""
    here = posixpath.dirname(_FILES.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def moved(link: re.Match[str]) -> str:
        file = posixpath.normpath(posixpath.join(here, link[1]))
        return _PAGES.get(file, posixpath.relpath(file, "docs"))

    return _LINK.sub(moved, markdown)
