"""Workers for tests: ``stream-scorer run`` in processes of their own, as an operator starts them.

A pytest plugin: the fixture `make_stage` provides a harness (topics, group, simulator, workers); workers that still run
at the end of a test are killed.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scoring_harness import PATIENCE_S, ScoringHarness, wait_until

from stream_scorer.local.kafka.process import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from kafka_fixture import Broker
    from scoring_harness import Input

    from stream_scorer.local.simulator import Simulator

ROOT = Path(__file__).parents[1]
# Short session and transaction time-outs; a high quota, so that only tests of the quota wait for it; two short retry
# rounds for contacts that fail.
QUICK_PROPERTIES = {
    "session.timeout.ms": 3000,
    "heartbeat.interval.ms": 500,
    "transaction.timeout.ms": 8000,
    "delivery.timeout.ms": 7000,
    "socket.timeout.ms": 6000,
}
QUICK_SETTINGS = {
    "STREAM_SCORER_KAFKA__PROPERTIES": json.dumps(QUICK_PROPERTIES),
    "STREAM_SCORER_GENESYS__REQUESTS_PER_MINUTE": "100000",
    "STREAM_SCORER_GENESYS__BACKOFF_BASE_S": "0.1",
    "STREAM_SCORER_GENESYS__MAX_BACKOFF_S": "0.5",
    "STREAM_SCORER_GENESYS__PROBE_INTERVAL_S": "0.5",
    "STREAM_SCORER_GENESYS__TIMEOUT_S": "5",
    "STREAM_SCORER_SCORING__RETRY_DELAYS_S": "[0.1, 0.2]",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of the admin port."""

    status: int
    text: str


class WorkerProcess:
    """One ``stream-scorer run``, or another command that runs until it is stopped."""

    def __init__(
        self,
        settings: Mapping[str, str],
        arguments: Iterable[str],
        log_file: Path,
        admin_port: int,
        command: str = "run",
    ) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAM_SCORER_", "GENESYS_", "OTEL_"))}
        self.admin_port = admin_port
        self.log_file = log_file
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stream_scorer", command, *arguments],
                env={**kept, "PYTHONPATH": str(ROOT), **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL and wait for the exit."""
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def pause(self) -> None:
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.send(signal.SIGTERM)
        return self.exit_code()

    def exit_code(self, limit_s: float = PATIENCE_S) -> int:
        """Wait for the exit and return the exit code."""
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker still runs after {limit_s:g} s\n{self.log()}") from None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        """Return everything that it has printed."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return its log lines of one event."""
        return [line for line in self.log_lines() if line.get("event") == event]

    def owned(self, topic: str) -> set[int]:
        """Return the partitions of a topic that are assigned to it according to its log."""
        events = {"partition assigned": 1, "partition revoked": -1}
        balance: Counter[int] = Counter()
        for line in self.log_lines():
            if line.get("topic") == topic and line.get("event") in events:
                balance[line["partition"]] += events[line["event"]]
        return {number for number, times in balance.items() if times > 0}

    def log_lines(self) -> list[dict[str, Any]]:
        """The lines of its log that are JSON."""
        found = []
        for line in self.log().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return [line for line in found if isinstance(line, dict)]

    def errors(self) -> list[str]:
        """Return the lines it printed for the user: all but the log lines."""
        return [line for line in self.log().splitlines() if not line.startswith("{")]

    def admin(self, path: str) -> Answer | None:
        """Return the response of the admin port; None without one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode())
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def ready(self) -> bool:
        answer = self.admin("/readyz")
        return answer is not None and answer.status == 200

    def why_not_ready(self) -> str:
        """Return the line of /readyz; empty while it is ready or does not respond."""
        answer = self.admin("/readyz")
        return "" if answer is None or answer.status == 200 else answer.text.strip()


def wait_with_worker(
    condition: Callable[[], Any],
    what: str,
    last_words: Callable[[], str],
    needs: WorkerProcess | None,
    limit_s: float,
) -> Any:
    """Wait for a condition; fail at once, with the log, if the required worker has exited."""

    def observe() -> Any:
        found = condition()
        assert found or needs is None or needs.running, f"the worker ended while waiting for {what}\n{needs.log()}"
        return found

    return wait_until(observe, lambda: f"{what}\n{last_words()}", limit_s)


class WorkerHarness(ScoringHarness):
    """Topics, a group, a simulated API, and workers that use them."""

    def __init__(self, bootstrap_servers: str, simulator: Simulator, folder: Path, **options: Any) -> None:
        super().__init__(bootstrap_servers, **options)
        self.simulator = simulator
        self.workers: list[WorkerProcess] = []
        self.produced = 0
        self.folder = folder
        self.changes: dict[str, str] = {}

    def produce(self, inputs: Iterable[Input]) -> int:
        number = super().produce(inputs)
        self.produced += number
        return number

    def start(self, *arguments: str, name: str | None = None, **changes: str | None) -> WorkerProcess:
        """Start a worker. ``changes`` are settings, e.g. ``scoring__linger_ms="50"``; None removes one.

        The ``name`` of a worker is its instance id, so that its successor aborts its open transaction.
        """
        port = free_port()
        settings: dict[str, str | None] = {
            **QUICK_SETTINGS,
            **self.settings(),
            **self.simulator.environment(),
            "STREAM_SCORER_ADMIN__PORT": str(port),
            **self.changes,
            **({"STREAM_SCORER_KAFKA__INSTANCE_ID": name} if name is not None else {}),
            **{f"STREAM_SCORER_{key.upper()}": value for key, value in changes.items()},
        }
        given = {key: value for key, value in settings.items() if value is not None}
        log_file = self.folder / f"worker-{len(self.workers)}-{name or 'unnamed'}.log"
        self.workers.append(WorkerProcess(given, arguments, log_file, port))
        return self.workers[-1]

    def start_ready(self, *arguments: str, name: str | None = None, **changes: str | None) -> WorkerProcess:
        """Start a worker and wait until it has partitions."""
        worker = self.start(*arguments, name=name, **changes)
        self.wait(lambda: worker.said("partition assigned"), "the worker to have partitions", needs=worker)
        return worker

    def wait_owned(self, worker: WorkerProcess) -> None:
        """Wait until a worker has every partition of the features topic."""
        topic = self.topics["features"]
        self.wait(lambda: len(worker.owned(topic)) == self.partitions, "the worker to have all", needs=worker)

    def wait(
        self,
        condition: Callable[[], Any],
        what: str,
        *,
        needs: WorkerProcess | None = None,
        limit_s: float = PATIENCE_S,
    ) -> Any:
        """See `wait_with_worker`."""
        return wait_with_worker(condition, what, self.last_words, needs, limit_s)

    def wait_done(
        self, *, needs: WorkerProcess | None = None, limit_s: float = PATIENCE_S, may_wait: bool = False
    ) -> float:
        """Wait until everything on the features topic is committed; return the seconds that took.

        Contacts may be pending in the retry topics only with ``may_wait``.
        """
        began = time.monotonic()
        progress, retries = self.watch(), self.watch_retries()
        try:
            ends = {number: end for number, end in self.ends().items() if end}

            def done() -> bool:
                offsets = progress.by_partition()
                return all(offsets.get(number, 0) >= end for number, end in ends.items())

            self.wait(done, f"the commits to reach {ends}", needs=needs, limit_s=limit_s)
            if not may_wait:
                self.wait(lambda: retries.number() == 0, "the retry topics to be empty", needs=needs, limit_s=limit_s)
        finally:
            progress.close()
            retries.close()
        return time.monotonic() - began

    def last_words(self) -> str:
        """Return the end of every worker's log."""
        return "\n".join(f"--- {w.log_file.name}\n" + "\n".join(w.log().splitlines()[-15:]) for w in self.workers)

    def kill_all(self) -> None:
        for worker in self.workers:
            if worker.running:
                worker.kill()


@pytest.fixture
def make_stage(broker: Broker, tmp_path: Path, simulator: Simulator) -> Iterator[Callable[..., WorkerHarness]]:
    """Create harnesses on the shared broker and simulator; others, and the options of the harness, as keywords."""
    made: list[WorkerHarness] = []

    def make(**fields: Any) -> WorkerHarness:
        servers = fields.pop("bootstrap_servers", None) or broker.bootstrap_servers
        api = fields.pop("simulator", simulator)
        api.configure(quota=1_000_000)
        made.append(WorkerHarness(servers, api, tmp_path, **fields))
        return made[-1]

    yield make
    for stage in made:
        stage.kill_all()


@pytest.fixture
def stage(make_stage: Callable[..., WorkerHarness]) -> WorkerHarness:
    """A harness with four partitions on the shared broker."""
    return make_stage()
