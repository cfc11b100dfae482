"""Every command line of `stream-scorer` on a page: the command exists, and takes these arguments and options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import typer
from documented_commands import PAGES, ROOT, command_lines, mentions, name_of

from stream_scorer.cli import app

if TYPE_CHECKING:
    from pathlib import Path

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


def test_a_wrong_option_is_found() -> None:
    assert parse(["read", "scores", "-o", "json"]) == "stream-scorer read"
    with pytest.raises(Exception, match="No such option: --jsno"):
        parse(["status", "--jsno"])
    with pytest.raises(Exception, match="No such command 'scores'"):
        parse(["scores"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_command_lines_of_a_page_parse(page: Path) -> None:
    for line in command_lines(page.read_text(encoding="utf-8")):
        parse(line.words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_that_a_page_mentions_exist(page: Path) -> None:
    for words in mentions(page.read_text(encoding="utf-8")):
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
    for name in ("README.md", "docs/tutorial.md", "docs/desk.md"):
        assert command_lines((ROOT / name).read_text(encoding="utf-8"))
