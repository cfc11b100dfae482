"""Pages of the documentation: a part of the wheel, which ``stream-scorer docs`` prints.

Errors name a page by the command that prints it. It works in the image and without a network; a path in a repository
works in neither. `docs_command` is the one place for a public address, once the pages have one.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.errors import LocalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

_SUFFIX: Final = ".md"
_HEADING: Final = re.compile(r"(#+) (.*)")
_NOT_IN_ANCHORS: Final = re.compile(r"[^\w\- ]")


class _Heading(NamedTuple):
    line: int
    level: int
    anchor: str


def docs_command(page: str, section: str = "") -> str:
    """Return the command that prints a page, for an error text.

    Args:
        page: the file below docs/, without its suffix.
        section: the anchor of a heading; empty: the whole page.
    """
    return f"`stream-scorer docs {page}{section and '#'}{section}`"


def page_titles() -> dict[str, str]:
    """Return the title of each page by its name.

    Raises:
        LocalError: the package was installed without its pages.
    """
    return {name: _read(file).partition("\n")[0].lstrip("# ") for name, file in sorted(_files(_folder()))}


def page_text(reference: str) -> str:
    """Return a page, or one of its sections, in Markdown.

    Args:
        reference: the page's name, and ``#`` and the anchor of a heading for its section alone.

    Raises:
        UsageError: there is no such page or section; names those that there are.
        LocalError: the package was installed without its pages.
    """
    name, _, anchor = reference.removeprefix("docs/").partition("#")
    name = name.removesuffix(_SUFFIX)
    files = dict(_files(_folder()))
    if name not in files:
        raise UsageError(f"there is no page {name}; the pages are {', '.join(sorted(files))}")
    text = _read(files[name])
    if not anchor:
        return text
    lines = text.splitlines(keepends=True)
    headings = list(_headings(lines))
    for number, one in enumerate(headings):
        if one.anchor == anchor:
            end = next((other.line for other in headings[number + 1 :] if other.level <= one.level), len(lines))
            return "".join(lines[one.line : end])
    raise UsageError(
        f"page {name} has no section {anchor}; its sections are {', '.join(one.anchor for one in headings)}"
    )


def _headings(lines: list[str]) -> Iterator[_Heading]:
    """Yield the headings with the anchors that GitHub gives them."""
    is_code = False
    for number, line in enumerate(lines):
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code and (match := _HEADING.match(line)):
            anchor = _NOT_IN_ANCHORS.sub("", match[2].lower()).replace(" ", "-")
            yield _Heading(number, len(match[1]), anchor)


def _files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for place in folder.iterdir():
        if place.is_dir():
            yield from _files(place, f"{prefix}{place.name}/")
        elif place.name.endswith(_SUFFIX):
            yield prefix + place.name.removesuffix(_SUFFIX), place


def _folder() -> Traversable:
    package = resources.files("stream_scorer")
    for place in (package / "docs", Path(str(package)).parent / "docs"):
        if place.is_dir():
            return place
    raise LocalError("the pages are not part of this installation of stream_scorer: install the wheel again")


def _read(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")
