"""The walks of docs/desk.md and docs/status-and-checks.md: every command is run, and prints what stands on the page.

The commands print a table, as on a terminal. With RECORD=1 the pages are written again.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from callbacks_harness import score
from desk_harness import DeskHarness
from documented_commands import walked_parts
from page_walk import check, play
from scoring_harness import ScoringHarness

from stream_scorer.kafka.admin.topics import create_topics
from stream_scorer.settings import TopicsSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from callbacks_harness import CallbacksHarness
    from worker_harness import WorkerHarness

    from stream_scorer.local.receiver import Receiver

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
DESK_PAGE = ROOT / "docs" / "desk.md"
STATUS_PAGE = ROOT / "docs" / "status-and-checks.md"
DEFAULTS = TopicsSettings()
NOT_TABLES = ("produce", "explain", "config", "status")
CAMPAIGN = ("callbacks", "callbacks_retry", "callbacks_rejected", "receipts")
DAY_MS = 86_400_000
STATUS_FORMS = {r"cluster [A-Za-z0-9_-]{22}": "cluster <id>", r"quota [0-9]+/": "quota <used>/"}


class Walk:
    """Commands of a page in a folder of their own, with the default names of topics and group.

    Args:
        desk: runs the commands.
        folder: where they write files.
        environment: further variables of every command.
        admin_port: the port of the worker that the page calls 127.0.0.1:9464.
        topics: further topics, by their keys.
    """

    def __init__(
        self,
        desk: DeskHarness,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        admin_port: int = 9464,
        topics: Mapping[str, str] | None = None,
    ) -> None:
        stage = desk.stage
        self._desk = desk
        self._environment = dict(environment or {})
        self._given = {
            "examples/": f"{ROOT}/examples/",
            "scorer.toml": f"{folder}/scorer.toml",
            ":9464": f":{admin_port}",
        }
        named = {**stage.topics, "decisions": desk.topic, **(topics or {})}
        self._printed = {name: getattr(DEFAULTS, kind) for kind, name in named.items()}
        if isinstance(stage, ScoringHarness):
            self._printed[stage.retry_base] = DEFAULTS.features_retry
        self._printed[stage.group_id] = "stream-scorer"
        self._printed |= {text: name for name, text in self._given.items()}

    def run(self, line: str) -> str:
        """The output of a line of the page: a command, and a filter if it has one; problems stand last."""
        command, _, piped = line.partition(" | ")
        for name, text in self._given.items():
            command = command.replace(name, text)
        words = shlex.split(command)
        program = words.index("stream-scorer")
        changes = dict(word.split("=", 1) for word in words[:program])
        arguments = words[program + 1 :]
        if not set(NOT_TABLES) & set(arguments):
            arguments += ["-o", "table"]
        done = self._desk.call(*arguments, environment={**self._environment, **changes})
        problems = [text for text in done.stderr.splitlines(keepends=True) if text.startswith("stream-scorer: ")]
        assert done.returncode == bool(problems), f"{line}\n{done.stderr}"
        # Those of the desk are about topics that this stage does not have.
        messages = [
            text for text in done.stderr.splitlines(keepends=True) if text not in problems and "config" in words
        ]
        text = "".join((*messages, *filtered(done.stdout.splitlines(keepends=True), piped), *problems))
        for name, shown in sorted(self._printed.items(), key=lambda one: -len(one[0])):
            text = text.replace(name, shown)
        return re.sub(r"(?m) +$", "", text)

    def play(self, section: str, settle: Callable[[str], None]) -> str:
        """The section with what its commands print now; ``settle`` waits for the effect of a command."""

        def run_and_settle(line: str) -> str:
            printed = self.run(line)
            settle(line)
            return printed

        return play(section, run_and_settle)


def filtered(lines: list[str], piped: str) -> list[str]:
    """What ``tail -NUMBER`` or ``grep WORD`` lets through."""
    name, _, argument = piped.partition(" ")
    if name == "tail":
        return lines[int(argument) :]
    return [line for line in lines if argument in line] if name == "grep" else lines


def test_the_walks_of_contacts_and_of_checks_print_what_stands_on_the_pages(
    stage: WorkerHarness, receiver: Receiver, tmp_path: Path
) -> None:
    desk = DeskHarness(stage)
    worker = stage.start_ready()

    def settle(command: str) -> None:
        if " produce " in command or " replay " in command:
            stage.wait_done(needs=worker)

    section, _ = walked_parts("docs/desk.md")
    played = Walk(desk, tmp_path).play(section, settle)

    def stop_worker(command: str) -> None:
        if " --admin " in command:
            assert worker.stop() == 0

    stage.set_config("audit", "retention.ms", str(400 * DAY_MS))
    campaign = {kind: f"{stage.group_id}-{kind}" for kind in CAMPAIGN}
    services = {
        **stage.simulator.environment(),
        **receiver.environment(),
        **{f"STREAM_SCORER_TOPICS__{kind.upper()}": name for kind, name in campaign.items()},
    }
    create_topics(load_settings(environ={**desk.environment(), **services}))
    [status] = walked_parts("docs/status-and-checks.md")
    walk = Walk(desk, tmp_path, services, worker.admin_port, topics=campaign)
    played_status = walk.play(status, stop_worker)
    check(DESK_PAGE, section, played)
    check(STATUS_PAGE, status, played_status, STATUS_FORMS)


@pytest.mark.slow
def test_the_walk_of_deliveries_prints_what_stands_on_the_page(
    make_campaign: Callable[..., CallbacksHarness], receiver: Receiver, tmp_path: Path
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

    _, section = walked_parts("docs/desk.md")
    played = Walk(desk, tmp_path).play(section, settle)
    worker.stop()
    check(DESK_PAGE, section, played)
    assert receiver.contacts() == {"BANK-00841": 1, "BANK-00005": 1}
