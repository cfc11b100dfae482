"""The walks of docs/desk.md: every command is run, and what it prints is what stands on the page.

The commands print a table, as on a terminal. With RECORD=1 the page is written again.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from callbacks_harness import score
from desk_harness import DeskHarness
from page_walk import check, play

from stream_scorer.settings import TopicsSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from callbacks_harness import CallbacksHarness
    from worker_harness import WorkerHarness

    from stream_scorer.local.receiver import Receiver

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "desk.md"
DEFAULTS = TopicsSettings()
NOT_TABLES = ("produce", "explain")


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


def walk(desk: DeskHarness, section: str, settle: Callable[[str], None]) -> str:
    """The section with what its commands print now; ``settle`` waits for the effect of a command."""

    def run_and_settle(command: str) -> str:
        printed = run(desk, command.replace("examples/", f"{ROOT}/examples/"))
        settle(command)
        return printed

    return play(section, run_and_settle)


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
    played = walk(desk, section, settle)
    worker.stop()
    check(PAGE, section, played)


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
    played = walk(desk, section, settle)
    worker.stop()
    check(PAGE, section, played)
    assert receiver.contacts() == {"BANK-00841": 1, "BANK-00005": 1}
