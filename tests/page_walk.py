"""Walks of a page: the commands of its console blocks are run, and what they print is what stands on the page.

Times, ids, offsets and ports differ from run to run, so they are compared by their form alone. With RECORD=1 the page
is written again.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# A block of commands, or what a reader does at the keyboard between two blocks, in a comment of the page.
_STEP: Final = re.compile(r"```console\n(?P<block>.*?)```|<!-- walk: (?P<action>.*?) -->", re.DOTALL)
_FORMS: Final = {
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "<id>",
    r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|\+00:00)?": "<time>",
    r"((?:contact|scoring|campaign)-[a-z-]+)/[0-9]+/[0-9]+": r"\1/<place>",
    r"127\.0\.0\.1:[0-9]+": "127.0.0.1:<port>",
    r"127\.0\.0\.1 [0-9a-f]{8}\b": "<member>",
    r"[─-]{3,}": "<line>",
    r" +": " ",
}


def same_form(text: str, more: dict[str, str] | None = None) -> list[str]:
    """The lines of a text, without what differs from run to run; ``more`` are patterns of one page."""
    for pattern, form in {**(more or {}), **_FORMS}.items():
        text = re.sub(pattern, form, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def commands_of(section: str) -> list[str]:
    """The commands of all console blocks, in order."""
    blocks = [match["block"] for match in _STEP.finditer(section) if match["block"] is not None]
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def play(section: str, run: Callable[[str], str], act: Callable[[str], None] | None = None) -> str:
    """The section with what its commands print now; ``act`` carries out the actions between the blocks."""

    def played(step: re.Match[str]) -> str:
        if step["block"] is None:
            assert act is not None, step[0]
            act(step["action"])
            return step[0]
        printed = [f"$ {command}\n{run(command)}" for command in commands_of(step[0])]
        return f"```console\n{''.join(printed)}```"

    return _STEP.sub(played, section)


def check(page: Path, section: str, played: str, more: dict[str, str] | None = None) -> None:
    """Compare a section of the page with what was played; with RECORD=1 write it instead."""
    if os.environ.get("RECORD"):
        page.write_text(page.read_text(encoding="utf-8").replace(section, played), encoding="utf-8")
        return
    assert commands_of(section)
    assert same_form(played, more) == same_form(section, more)
