"""The walks of docs/desk.md: every command is run, and what it prints is what stands on the page.

Times, ids and offsets differ from run to run, so they are compared by their form alone. The commands print a table, as
on a terminal. With RECORD=1 the page is written again.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from desk_harness import DeskHarness

from stream_scorer.settings import TopicsSettings

if TYPE_CHECKING:
    from worker_harness import WorkerHarness

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "desk.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
DEFAULTS = TopicsSettings()
NOT_TABLES = ("produce", "explain")
FORMS = {
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "<id>",
    r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|\+00:00)": "<time>",
    r"(contact-[a-z-]+|scoring-[a-z]+)/[0-9]+/[0-9]+": r"\1/<place>",
    r"[─-]{3,}": "<line>",
    r" +": " ",
}


def same_form(text: str) -> list[str]:
    for pattern, form in FORMS.items():
        text = re.sub(pattern, form, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def run(desk: DeskHarness, command: str) -> str:
    """The output of a command, with the default names of the topics."""
    program, *arguments = shlex.split(command)
    assert program == "stream-scorer"
    if not set(NOT_TABLES) & set(arguments):
        arguments += ["-o", "table"]
    done = desk.call(*arguments)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    names = {**desk.stage.topics, "decisions": desk.topic}
    shown = {kind: getattr(DEFAULTS, kind) for kind in names}
    text = done.stdout
    for kind, name in names.items():
        text = text.replace(name, shown[kind])
    return text


def test_the_walk_prints_what_stands_on_the_page(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    worker = stage.start_ready()
    page = PAGE.read_text(encoding="utf-8")
    blocks = []
    for block in BLOCK.findall(page):
        parts = []
        for command in [line[2:] for line in block.splitlines() if line.startswith("$ ")]:
            printed = run(desk, command.replace("examples/", f"{ROOT}/examples/"))
            if " produce " in command or " replay " in command:
                stage.wait_done(needs=worker)
            parts.append(f"$ {command}\n{printed}")
        blocks.append("".join(parts))
    worker.stop()
    if os.environ.get("RECORD"):
        found = iter(blocks)
        PAGE.write_text(BLOCK.sub(lambda _: f"```console\n{next(found)}```", page), encoding="utf-8")
        return
    assert blocks
    for printed, block in zip(blocks, BLOCK.findall(page), strict=True):
        assert same_form(printed) == same_form(block)
