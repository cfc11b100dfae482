"""Every command line of the pages, run for real: against Kafka, simulator and receiver, page by page in its order.

The pages with a walk (`documented_commands.walked_parts`) are run by the walk, which compares their output as well.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from desk_harness import call_command
from desk_topics import START_MS, DeskTopics, audit, callback, entry, features, score
from documented_commands import (
    PAGES,
    ROOT,
    WALKED_PAGES,
    CommandLine,
    command_lines,
    curl_lines,
    mentions,
    name_of,
    walked_parts,
)
from page_walk import commands_of
from scoring_harness import wait_until
from worker_harness import QUICK_SETTINGS, WorkerProcess

from stream_scorer.local.kafka.process import free_port
from stream_scorer.settings import TopicsSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from kafka_fixture import Broker
    from registry_fixture import Registry

    from stream_scorer.local.receiver import Receiver
    from stream_scorer.local.simulator import Simulator

# Walked pages, by the test that walks them.
WALKS: Final = {
    "docs/tutorial.md": "test_tutorial.py",
    "docs/desk.md": "test_desk_page.py",
    "docs/status-and-checks.md": "test_desk_page.py",
}
# The reference has many examples that do not follow from each other: one test for each command.
REFERENCE: Final = "docs/commands.md"


def cases() -> Iterator[Any]:
    """The command lines of each page that has no walk."""
    for page in PAGES:
        if (name := name_of(page)) in WALKED_PAGES:
            continue
        lines = command_lines(page.read_text(encoding="utf-8"))
        if name == REFERENCE:
            for command in dict.fromkeys(line.words[0] for line in lines):
                of_command = [line for line in lines if line.words[0] == command]
                yield pytest.param(name, of_command, id=f"{name}-{command}")
        elif lines:
            yield pytest.param(name, lines, id=name)


# Commands that run until they are interrupted: what they have printed when they work, and their exit code after Ctrl-C.
SERVICES: Final[Mapping[str, tuple[str, int]]] = {
    "run": ("rebalance completed", 0),
    "callbacks": ("rebalance completed", 0),
    "simulate": ("Faults and statistics", 0),
    "receive": ("Faults and records", 0),
    "status --watch": ("scoring lag", 130),
    "read --follow": ("C-1001", 130),
}
# What only the reader has: words of the pages, and what stands for them here.
ADMIN: Final = re.compile(r"http://(127\.0\.0\.1|scorer-\d):946\d")
PLACE: Final = re.compile(r"([a-z-]+)/\d+/\d+")
TOPICS: Final = {name: kind for kind, name in TopicsSettings()}
# The examples of the desk are about a model with these features.
INCOME_MODEL: Final = json.dumps(
    {"income": {"type": "integer"}, "age": {"type": "integer"}, "previous_calls": {"type": "integer", "impute": 0}}
)
# Lines that need other settings than the page's other lines.
VARIABLES: Final[Mapping[str, Mapping[str, str]]] = {
    "rejected replay C-10023": {"STREAM_SCORER_MODEL__FEATURES": INCOME_MODEL},
    "rejected replay --since 2h": {"STREAM_SCORER_MODEL__FEATURES": INCOME_MODEL},
    # The topics hold records that no worker has put there.
    "callbacks": {"STREAM_SCORER_KAFKA__ALLOW_NEW_GROUP": "true"},
    # A group without commits, beside the worker of the page's other lines.
    "run --config scorer.toml --from": {
        "STREAM_SCORER_KAFKA__GROUP_ID": "new-{name}",
        "STREAM_SCORER_ADMIN__PORT": "0",
    },
}
# As the pages shorten it.
BATCH_IDS: Final = ("5f0c2b7e", "5f0c2b7e-…")


class Machine(DeskTopics):
    """An operator's machine: one folder, topics of its own, settings in variables, a worker once one is started."""

    def __init__(self, servers: str, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(servers)
        self.folder = folder
        self.admin_port = free_port()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAM_SCORER_", "GENESYS_", "OTEL_"))}
        self.variables = {
            **kept,
            **QUICK_SETTINGS,
            **self.environment,
            **environment,
            "STREAM_SCORER_ADMIN__PORT": str(self.admin_port),
            "STREAM_SCORER_CALLBACKS__ADMIN_PORT": str(free_port(avoid=[self.admin_port])),
            "STREAM_SCORER_CALLBACKS__RETRY_DELAYS_S": "[0.2, 0.4]",
            "COLUMNS": "200",
        }
        self.worker: WorkerProcess | None = None
        self.services: list[WorkerProcess] = []
        self.places: dict[str, str] = {}

    def call(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return call_command(words, {**self.variables, **variables})

    def do(self, *words: str, **variables: str) -> str:
        """Run a command that must succeed; what it prints."""
        done = self.call(*words, **variables)
        problems = [line for line in done.stderr.splitlines() if line.startswith("stream-scorer: ")]
        assert (done.returncode, problems) == (0, []), f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    # --- records

    def put_contacts(self) -> None:
        """Contacts for the worker: those of the desk's page, and one with a score."""
        self.do("produce", "examples/monday.jsonl")
        known = {"previous_calls": 0, "avg_handle_time": 261, "last_contact_days": 3, "segment_id": "services"}
        value = features("C-1001", event_id="evt-77", features=known, occurred_at=self.now_ms)
        self.put("features", value, key=b"C-1001", at_ms=self.now_ms)

    def put_rejected(self) -> None:
        """A rejected contact for each reason of the examples."""
        income = features("C-10023", features={"income": "many", "age": 71}, occurred_at=self.now_ms)
        self._reject("rejected", income, "wrong_type")
        self._reject("rejected", income, "out_of_range")
        self._reject("rejected", income, "expired")
        self._reject("rejected", features("L-1", campaign_id="load-test", occurred_at=self.now_ms), "wrong_type")

    def put_in_review(self) -> None:
        """A score in review for each reason of the examples."""
        for contact_id, value, reason in (("C-10023", 0.95, "wide_interval"), ("C-2", 0.95, "score_out_of_range")):
            one = score(contact_id, score=value, review_reasons=[reason], scored_at=self.now_ms)
            headers = [("stream-scorer-source", f"{self.topics['features']}/0/0".encode())]
            self.places["review"] = self.put("review", one, key=contact_id.encode(), headers=headers, at_ms=self.now_ms)

    def put_undelivered(self) -> None:
        """A rejected callback for each reason of the examples."""
        source = f"{self.topics['scores']}/0/0"
        for number, (reason, status) in enumerate((("refused", "422"), ("gave_up", "503"))):
            one = callback(["C-10023"], [source], callback_id=f"callback-{number}", planned_at=self.now_ms)
            self._reject("callbacks_rejected", one, reason, status=status)
        held = callback(["C-3"], [source], callback_id="callback-held", planned_at=self.now_ms)
        self.put("callbacks_retry", held, headers=[("stream-scorer-held", b"target")], at_ms=self.now_ms, level=2)
        # Older than a day, and on a partition where no younger record stands before it.
        self._reject("callbacks_rejected", b"of another program", "undecodable", at_ms=START_MS, partition=1)

    def put_history(self) -> None:
        """Records about one contact on every topic of the desk."""
        place = self.places["scores"] = self.put("scores", score("C-1001"), at_ms=self.now_ms)
        self.put("callbacks", callback(["C-1001"], [place]), at_ms=self.now_ms)
        for batch_id in BATCH_IDS:
            self.put("audit", audit([entry("C-1001", place)], batch_id=batch_id), at_ms=self.now_ms)
        for contact_id in ("C-1001", "C-10023"):
            self.put("features_retry", features(contact_id), at_ms=self.now_ms, level=1)
        self.put("rejected", features("C-1001"), at_ms=self.now_ms)

    def _reject(
        self, kind: str, value: Any, reason: str, *, status: str = "", at_ms: int | None = None, partition: int = 0
    ) -> None:
        source = self.topics[{"rejected": "features", "callbacks_rejected": "callbacks"}[kind]]
        given = {"error-reason": reason, "error-status": status, "source": f"{source}/0/0"}
        headers = [(f"stream-scorer-{name}", text.encode()) for name, text in given.items() if text]
        self.places[kind] = self.put(kind, value, headers=headers, at_ms=at_ms or self.now_ms, partition=partition)

    @property
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    # --- lines of a page

    def run(self, line: CommandLine) -> None:
        """Run a line to its end; a service until it works."""
        words = self.as_here(line.words)
        variables = {**line.variables, **self.variables_of(line)}
        # A page shows several ways to make one file.
        file = self.folder / words[words.index("--out") + 1] if "--out" in words else None
        if file is not None:
            file.unlink(missing_ok=True)
        service = " ".join([words[0], *(word for word in words if word in ("--watch", "--follow"))])
        if service in SERVICES:
            self.serve(service, words, variables)
        else:
            printed = self.do(*words, **variables)
            assert file.exists() if file is not None else printed, f"{line} has made nothing"

    def as_here(self, words: list[str]) -> list[str]:
        here = []
        for word in words:
            if ADMIN.fullmatch(word):
                here.append(f"http://127.0.0.1:{self.admin_port}")
            elif place := PLACE.fullmatch(word):
                here.append(self.places[TOPICS[place[1]]])
            else:
                here.append(word)
        return [*here, "--port", str(free_port())] if words[0] in ("simulate", "receive") else here

    def variables_of(self, line: CommandLine) -> dict[str, str]:
        found = [more for start, more in VARIABLES.items() if str(line).startswith(start)]
        return {key: text.replace("{name}", self.name) for more in found for key, text in more.items()}

    def serve(self, name: str, words: list[str], variables: Mapping[str, str]) -> None:
        """Start a service and wait until it works; end it, unless it is the worker that later lines need."""
        is_page_worker = name == "run" and not variables
        if is_page_worker and self.worker is not None:
            return
        command, *arguments = words
        log = self.folder / f"{len(self.services)}.log"
        service = WorkerProcess({**self.variables, **variables}, arguments, log, self.admin_port, command)
        self.services.append(service)
        proof, code = SERVICES[name]

        def works() -> bool:
            assert service.running, service.log()
            return proof in service.log()

        wait_until(works, lambda: f"{proof!r} of {name}\n{service.log()}")
        if is_page_worker:
            self.worker = service
            wait_until(self.is_caught_up, "the worker to have caught up")
        else:
            service.send(signal.SIGINT)
            assert service.exit_code() == code, service.log()

    def start_worker(self) -> None:
        self.serve("run", ["run", "--config", "scorer.toml"], {})

    def is_caught_up(self) -> bool:
        [group] = json.loads(self.do("status", "--json", "--interval", "0.5"))["groups"]
        return bool(group["lag"] == 0 and sum(group["waiting"].values()) == 0)

    def end(self) -> None:
        if self.worker is not None:
            assert self.worker.stop() == 0, self.worker.log()

    def kill_all(self) -> None:
        for one in self.services:
            if one.running:
                one.kill()


@pytest.fixture
def machine(
    broker: Broker, simulator: Simulator, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    simulator.configure(quota=1_000_000)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copy(ROOT / "examples" / "contacts.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    machine = Machine(broker.bootstrap_servers, tmp_path, {**simulator.environment(), **receiver.environment()})
    for name, text in machine.variables.items():
        if os.environ.get(name) != text:
            monkeypatch.setenv(name, text)
    machine.do("config", "init", "--local", "--out", "scorer.toml")
    shutil.copy("scorer.toml", "settings.toml")
    yield machine
    machine.kill_all()


# Records that the commands of a page need besides `put_contacts`; put there before each of these commands, since a
# record is decided once.
RECORDS: Final[Mapping[str, Mapping[str, Callable[[Machine], None]]]] = {
    "docs/commands.md": {
        "rejected": Machine.put_rejected,
        "review": Machine.put_in_review,
        "deliveries": Machine.put_undelivered,
        "read": Machine.put_history,
    },
    "docs/operations.md": {"read": Machine.put_history, "deliveries": Machine.put_undelivered},
}


@pytest.mark.kafka
@pytest.mark.parametrize(("page", "lines"), list(cases()))
def test_the_command_lines_of_a_page_run(
    page: str, lines: list[CommandLine], machine: Machine, request: pytest.FixtureRequest
) -> None:
    machine.put_contacts()
    if page == "docs/registry.md":
        registry: Registry = request.getfixturevalue("registry")
        machine.variables["STREAM_SCORER_SCHEMA_REGISTRY__URL"] = registry.url
    for line in lines:
        command = line.words[0]
        if command in ("status", "reconcile"):
            machine.start_worker()
        if command == "reconcile":
            wait_until(machine.is_caught_up, "the worker to have caught up")
        if put := RECORDS.get(page, {}).get(command):
            put(machine)
        machine.run(line)
    machine.end()


# Words in capitals that a sentence has for the reader's own.
WORDS: Final = {"CONTACT": "C-10023", "ID": "C-10023", "NAME|FILE": "bad-day"}
# Command lines in sentences that another test runs.
ELSEWHERE: Final = {
    "demo --contacts 200000": "test_demo.py, with fewer contacts",
    "demo --scenario bad-day": "test_demo.py",
    "config check --config scorer.toml --score contacts.csv": "in the reference, with --yes",
}


def lines_in_sentences() -> Iterator[CommandLine]:
    """Those with an option or an id, which no block has; a sentence with less names a command."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    known = {str(line) for text in texts for line in command_lines(text)} | ELSEWHERE.keys()
    for words in (words for text in texts for words in mentions(text)):
        line = CommandLine([WORDS.get(word, word) for word in words], {})
        if str(line) not in known and any(word in WORDS or word.startswith("--") for word in words[1:]):
            known.add(str(line))
            yield line


@pytest.mark.kafka
def test_the_command_lines_in_sentences_run(machine: Machine) -> None:
    lines = list(lines_in_sentences())
    assert "audit show C-10023" in map(str, lines)
    machine.put_contacts()
    for line in lines:
        for put in RECORDS[REFERENCE].values():
            put(machine)
        machine.run(line)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("page", [page for page in PAGES if curl_lines(page.read_text(encoding="utf-8"))], ids=name_of)
def test_a_curl_line_gets_an_answer(page: Path, simulator: Simulator, receiver: Receiver) -> None:
    for line in curl_lines(page.read_text(encoding="utf-8")):
        here = line.replace("127.0.0.1:8090", simulator.base_url).replace("127.0.0.1:8091", receiver.base_url)
        words = ["curl", "--fail-with-body", "--silent", *shlex.split(here, comments=True)[1:]]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}"


def test_each_page_is_walked_or_run_here() -> None:
    run_here = [case.values[0] for case in cases()]
    pages = [name_of(page) for page in PAGES if command_lines(page.read_text(encoding="utf-8"))]
    assert sorted([*dict.fromkeys(run_here), *WALKS]) == sorted(pages)
    assert tuple(WALKS) == WALKED_PAGES


@pytest.mark.parametrize("page", WALKED_PAGES)
def test_a_walk_runs_all_command_lines_of_its_page(page: str) -> None:
    walked = [line for part in walked_parts(page) for line in commands_of(part)]
    lines = command_lines("\n".join(["```console", *walked, "```"]))
    assert lines == command_lines((ROOT / page).read_text(encoding="utf-8"))
    assert f'walked_parts("{page}")' in (ROOT / "tests" / "e2e" / WALKS[page]).read_text(encoding="utf-8")
