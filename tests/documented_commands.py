"""Command lines of `stream-scorer` on the pages, and the parts of a page that a walk plays.

One collector for the tests that parse the lines (`tests/unit/test_documented_commands.py`) and for those that run them
(`tests/e2e/test_page_commands.py`).
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK: Final = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_COMMAND: Final = re.compile(r"^ *(?:\$ )?((?:\w+=\S+ )*)(?:sudo )?stream-scorer (.+)$", re.MULTILINE)
# In a sentence or a table; "…" stands for what the reader puts there.
_INLINE: Final = re.compile(r"(?<!`)`stream-scorer ([^`…\[]+)`(?!`)")
# What ends a command in a shell.
_ENDS: Final = {"|", "&", "&&", "||", ";", ">", ">>", "2>"}


class CommandLine(NamedTuple):
    """A command line of a block: the words after `stream-scorer`, and the variables before it."""

    words: list[str]
    variables: dict[str, str]

    def __str__(self) -> str:
        return shlex.join([*(f"{name}={text}" for name, text in self.variables.items()), *self.words])


def command_lines(text: str) -> list[CommandLine]:
    """Return the command lines in the blocks of a page, in order."""
    found = []
    for language, block in _BLOCK.findall(text):
        if language not in {"", "sh", "console"}:
            continue
        for variables, line in _COMMAND.findall(block.replace("\\\n", " ")):
            words = shlex.split(line, comments=True)
            end = next((number for number, word in enumerate(words) if word in _ENDS), len(words))
            found.append(CommandLine(words[:end], dict(one.split("=", 1) for one in shlex.split(variables))))
    return found


def mentions(text: str) -> list[list[str]]:
    """Return the words of each command in a sentence or a table of a page."""
    return [shlex.split(line) for line in _INLINE.findall(_BLOCK.sub("", text))]


def curl_lines(text: str) -> list[str]:
    """Return the lines of `curl` in the blocks of a page."""
    blocks = (block.replace("\\\n", " ") for language, block in _BLOCK.findall(text) if language == "sh")
    return [line for block in blocks for line in block.splitlines() if line.startswith("curl ")]


def name_of(page: Path) -> str:
    """Return the path of a page in the repository."""
    return page.relative_to(ROOT).as_posix()


def _desk_parts(text: str) -> tuple[str, ...]:
    before, _, rest = text.partition("## Deliveries\n")
    return before, rest.partition("\n## ")[0]


# Pages whose commands are run by a walk (`page_walk`), which compares their output as well. One section of the tutorial
# is left out: it installs the program.
_WALKS: Final[Mapping[str, Callable[[str], tuple[str, ...]]]] = {
    "docs/tutorial.md": lambda text: (text.partition("\n## 2 ")[2],),
    "docs/desk.md": _desk_parts,
    "docs/status-and-checks.md": lambda text: (text,),
}
WALKED_PAGES: Final = tuple(_WALKS)


def walked_parts(page: str) -> tuple[str, ...]:
    """Return the parts of a page that a walk plays."""
    return _WALKS[page]((ROOT / page).read_text(encoding="utf-8"))
