"""Repair of a rejected contact with the operator's desk, as an operator does it: one command."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from stream_scorer.errors import LocalError

if TYPE_CHECKING:
    from stream_scorer.local.demo.environment import DemoEnvironment
    from stream_scorer.local.demo.story import Story

_TIMEOUT_S: Final = 60.0


def replay_command(contact_id: str) -> list[str]:
    """Return the arguments that repair a contact whose ``previous_calls`` is a word."""
    return ["rejected", "replay", contact_id, "--set", "previous_calls=3", "--yes", "--note", "the demo"]


def replay(contact_id: str, stage: DemoEnvironment, story: Story) -> None:
    """Run the command and report its output.

    Raises:
        LocalError: it failed.
    """
    arguments = replay_command(contact_id)
    story.add(f"$ stream-scorer {shlex.join(arguments)}")
    command = stage.start_command("desk", arguments)
    code = command.wait(_TIMEOUT_S)
    for line in command.last_lines(3):
        story.add(line)
    if code != 0:
        raise LocalError(f"stream-scorer {arguments[0]} {arguments[1]} ended with exit code {code}")
