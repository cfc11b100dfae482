"""The walks of docs/desk.md: every command is run, and what it prints is what stands on the page.

Times, ids and offsets differ from run to run, so they are compared by their form alone. The commands print a table, as
on a terminal. With RECORD=1 the page is written again.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from callbacks_harness import score
from desk_harness import DeskHarness

from stream_scorer.settings import TopicsSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from callbacks_harness import CallbacksHarness
    from worker_harness import WorkerHarness

    from stream_scorer.local.receiver import Receiver

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "desk.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
DEFAULTS = TopicsSettings()
NOT_TABLES = ("produce", "explain")
FORMS = {
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "<id>",
    r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|\+00:00)": "<time>",
    r"((?:contact|scoring|campaign)-[a-z-]+)/[0-9]+/[0-9]+": r"\1/<place>",
    r"127\.0\.0\.1:[0-9]+": "127.0.0.1:<port>",
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
    text = done.stdout
    for kind, name in sorted(names.items(), key=lambda one: -len(one[1])):
        text = text.replace(name, getattr(DEFAULTS, kind))
    return text


def play(desk: DeskHarness, section: str, settle: Callable[[str], None]) -> str:
    """The section with what its commands print now; ``settle`` waits for the effect of a command."""

    def played(block: re.Match[str]) -> str:
        parts = []
        for command in [line[2:] for line in block[1].splitlines() if line.startswith("$ ")]:
            printed = run(desk, command.replace("examples/", f"{ROOT}/examples/"))
            settle(command)
            parts.append(f"$ {command}\n{printed}")
        return f"```console\n{''.join(parts)}```"

    return BLOCK.sub(played, section)


def check(section: str, played: str) -> None:
    """Compares, or with RECORD=1 writes the page and skips the test: a recording checks nothing."""
    if os.environ.get("RECORD"):
        PAGE.write_text(PAGE.read_text(encoding="utf-8").replace(section, played), encoding="utf-8")
        pytest.skip("recorded, not checked")
    assert "$ stream-scorer" in section
    assert same_form(played) == same_form(section)


def sections() -> tuple[str, str]:
    """The page up to its deliveries, and these."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition("## Deliveries\n")
    return before, rest.partition("\n## ")[0]


def test_the_walk_of_contacts_prints_what_stands_on_the_page(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    worker = stage.start_ready()

    def settle(command: str) -> None:
        if " produce " in command or " replay " in command:
            stage.wait_done(needs=worker)

    section, _ = sections()
    played = play(desk, section, settle)
    worker.stop()
    check(section, played)


@pytest.mark.slow
def test_the_walk_of_deliveries_prints_what_stands_on_the_page(
    make_campaign: Callable[..., CallbacksHarness], receiver: Receiver
) -> None:
    campaign = make_campaign({**receiver.environment(), "STREAM_SCORER_CALLBACKS__RETRY_DELAYS_S": "[0.2, 0.4]"})
    same: Any = campaign
    desk = DeskHarness(same)
    receiver.add_fault(status=400, campaign_id="spring", times=None)
    campaign.put([score("BANK-00841"), score("BANK-00005", campaign_id="autumn")])
    worker = campaign.start()
    campaign.wait_receipts(2, needs=worker)
    receiver.clear_faults()

    def settle(command: str) -> None:
        if " replay " in command:
            campaign.wait(lambda: len(campaign.receipts()) == 3, "the receipt of the redelivery", needs=worker)

    _, section = sections()
    played = play(desk, section, settle)
    worker.stop()
    check(section, played)
    assert receiver.contacts() == {"BANK-00841": 1, "BANK-00005": 1}
