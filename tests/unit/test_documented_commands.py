"""Every command line of `stream-scorer` on a page: the command exists, and takes these arguments and options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from stream_scorer.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^ *(?:\$ )?(?:\w+=\S+ )*(?:sudo )?stream-scorer (.+)$", re.MULTILINE)
# In a sentence or a table; "…" stands for what the reader puts there.
INLINE = re.compile(r"(?<!`)`stream-scorer ([^`…\[]+)`(?!`)")
# What ends a command in a shell.
ENDS = {"|", "&", "&&", "||", ";", ">", ">>", "2>"}


def command_lines(page: Path) -> list[list[str]]:
    """The words of each command line after `stream-scorer`."""
    text = page.read_text(encoding="utf-8")
    lines = []
    for language, block in BLOCK.findall(text):
        if language not in {"", "sh", "console"}:
            continue
        for line in COMMAND.findall(block.replace("\\\n", " ")):
            words = shlex.split(line, comments=True)
            end = next((number for number, word in enumerate(words) if word in ENDS), len(words))
            lines.append(words[:end])
    return lines


# Parsed, they write to the user's shell; test_cli.py runs them.
COMPLETION = ("--install-completion", "--show-completion")


def parse(words: list[str]) -> str:
    """Parses a command line without running it; the name of its command."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("stream-scorer", list(words))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return str(context.command_path)


def mentions(page: Path) -> list[list[str]]:
    """The words of each command in a sentence or a table."""
    return [shlex.split(line) for line in INLINE.findall(BLOCK.sub("", page.read_text(encoding="utf-8")))]


def test_a_wrong_option_is_found() -> None:
    assert parse(["read", "scores", "-o", "json"]) == "stream-scorer read"
    with pytest.raises(Exception, match="No such option: --jsno"):
        parse(["status", "--jsno"])
    with pytest.raises(Exception, match="No such command 'scores'"):
        parse(["scores"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_command_lines_of_a_page_parse(page: Path) -> None:
    for words in command_lines(page):
        parse(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_that_a_page_mentions_exist(page: Path) -> None:
    for words in mentions(page):
        if words[0] in COMPLETION:
            continue
        try:
            parse(words)
        except typer.Exit:
            assert words == ["--version"]
        except Exception as error:
            # A command may be mentioned without its arguments.
            if type(error).__name__ != "MissingParameter":
                raise


def test_the_pages_have_command_lines() -> None:
    assert all(command_lines(ROOT / name) for name in ("README.md", "docs/tutorial.md", "docs/desk.md"))
