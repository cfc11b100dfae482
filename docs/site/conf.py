"""Site of the documentation, built by ``make docs``: Sphinx with MyST and furo; it needs no network, built or read.

The pages are those of the repository, unchanged. The navigation is the index, docs/README.md: a heading is a group, the
first link of each line of its list a page.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_ROOT: Final = Path(__file__).parents[2]
_INDEX: Final = "docs/README"
_GROUP: Final = re.compile(r"^## (.+)\n((?:\n|- .*\n)+)", re.MULTILINE)
_PAGE: Final = re.compile(r"^- \[([^\]]+)\]\(([^)]+)\.md\)", re.MULTILINE)
# A link to a folder has no page on the site.
_FOLDER: Final = re.compile(r"\[([^\]]+)\]\(((?:\.\./)*(?:schemas|examples|deploy)[\w/.-]*)\)")

_project: Any = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _project["name"]
version = release = _project["version"]
extensions = ["myst_parser"]
root_doc = _INDEX
include_patterns = ["README.md", "CHANGELOG.md", "benchmarks/README.md", "docs/**"]
exclude_patterns = ["docs/site"]
myst_heading_anchors = 4
# JSON and shell with "…" in place of a value are no valid code, and stay as they are.
suppress_warnings = ["misc.highlighting_failure"]
pygments_style = "friendly"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = f"{project} {version}"
html_copy_source = False
html_show_sphinx = False


def _add_navigation(_app: Sphinx, page: str, source: list[str]) -> None:
    """Replace links to folders by their text, and append the navigation to the index."""

    def without_link(link: re.Match[str]) -> str:
        return link[1] if ((_ROOT / page).parent / link[2]).is_dir() else link[0]

    text = _FOLDER.sub(without_link, source[0])
    if page == _INDEX:
        text += "".join(
            f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n"
            + "".join(f"{title} <{name}>\n" for title, name in _PAGE.findall(links))
            + "```\n"
            for caption, links in _GROUP.findall(source[0])
        )
    source[0] = text


def _write_start_page(app: Sphinx, exception: Exception | None) -> None:
    """Write index.html, which leads to the index of the pages."""
    if exception is None:
        target = f"{_INDEX}.html"
        start = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={target}">'
        (app.outdir / "index.html").write_text(f'{start}<a href="{target}">{html_title}</a>\n', encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Connect the two steps to Sphinx."""
    app.connect("source-read", _add_navigation)
    app.connect("build-finished", _write_start_page)
