"""The walks of docs/desk.md and docs/status-and-checks.md: every command is run, and prints what stands on the page.

Times, ids and offsets differ from run to run, so they are compared by their form alone. The commands print a table, as
on a terminal. With RECORD=1 the pages are written again.
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
from scoring_harness import ScoringHarness

from stream_scorer.settings import TopicsSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from callbacks_harness import CallbacksHarness
    from worker_harness import WorkerHarness

    from stream_scorer.local.receiver import Receiver

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
DESK_PAGE = ROOT / "docs" / "desk.md"
STATUS_PAGE = ROOT / "docs" / "status-and-checks.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
DEFAULTS = TopicsSettings()
NOT_TABLES = ("produce", "explain", "config", "status")
DAY_MS = 86_400_000
FORMS = {
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "<id>",
    r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|\+00:00)": "<time>",
    r"((?:contact|scoring|campaign)-[a-z-]+)/[0-9]+/[0-9]+": r"\1/<place>",
    r"127\.0\.0\.1:[0-9]+": "127.0.0.1:<port>",
    r"cluster [A-Za-z0-9_-]{22}": "cluster <id>",
    r"quota [0-9]+/": "quota <used>/",
    r"[─-]{3,}": "<line>",
    r" +": " ",
}


def same_form(text: str) -> list[str]:
    for pattern, form in FORMS.items():
        text = re.sub(pattern, form, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


class Walk:
    """Commands of a page in a folder of their own, with the default names of topics and group.

    Args:
        desk: runs the commands.
        folder: where they write files.
        environment: further variables of every command.
        admin_port: the port of the worker that the page calls 127.0.0.1:9464.
    """

    def __init__(
        self, desk: DeskHarness, folder: Path, environment: Mapping[str, str] | None = None, admin_port: int = 9464
    ) -> None:
        stage = desk.stage
        self._desk = desk
        self._environment = dict(environment or {})
        self._given = {
            "examples/": f"{ROOT}/examples/",
            "scorer.toml": f"{folder}/scorer.toml",
            ":9464": f":{admin_port}",
        }
        topics = {**stage.topics, "decisions": desk.topic}
        self._printed = {name: getattr(DEFAULTS, kind) for kind, name in topics.items()}
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

        def played(block: re.Match[str]) -> str:
            parts = []
            for line in [line[2:] for line in block[1].splitlines() if line.startswith("$ ")]:
                printed = self.run(line)
                settle(line)
                parts.append(f"$ {line}\n{printed}")
            return f"```console\n{''.join(parts)}```"

        return BLOCK.sub(played, section)


def filtered(lines: list[str], piped: str) -> list[str]:
    """What ``tail -NUMBER`` or ``grep WORD`` lets through."""
    name, _, argument = piped.partition(" ")
    if name == "tail":
        return lines[int(argument) :]
    return [line for line in lines if argument in line] if name == "grep" else lines


def check(page: Path, section: str, played: str) -> None:
    """Compares, or with RECORD=1 writes the page."""
    if os.environ.get("RECORD"):
        page.write_text(page.read_text(encoding="utf-8").replace(section, played), encoding="utf-8")
        return
    assert "$ stream-scorer" in section
    assert same_form(played) == same_form(section)


def sections() -> tuple[str, str]:
    """The page up to its deliveries, and these."""
    before, _, rest = DESK_PAGE.read_text(encoding="utf-8").partition("## Deliveries\n")
    return before, rest.partition("\n## ")[0]


def test_the_walks_of_contacts_and_of_checks_print_what_stands_on_the_pages(
    stage: WorkerHarness, receiver: Receiver, tmp_path: Path
) -> None:
    desk = DeskHarness(stage)
    worker = stage.start_ready()

    def settle(command: str) -> None:
        if " produce " in command or " replay " in command:
            stage.wait_done(needs=worker)

    section, _ = sections()
    played = Walk(desk, tmp_path).play(section, settle)

    def stop_worker(command: str) -> None:
        if " --admin " in command:
            assert worker.stop() == 0

    stage.set_config("audit", "retention.ms", str(400 * DAY_MS))
    services = {**stage.simulator.environment(), **receiver.environment()}
    status = STATUS_PAGE.read_text(encoding="utf-8")
    played_status = Walk(desk, tmp_path, services, worker.admin_port).play(status, stop_worker)
    check(DESK_PAGE, section, played)
    check(STATUS_PAGE, status, played_status)


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

    _, section = sections()
    played = Walk(desk, tmp_path).play(section, settle)
    worker.stop()
    check(DESK_PAGE, section, played)
    assert receiver.contacts() == {"BANK-00841": 1, "BANK-00005": 1}
