"""The stage of a scenario: workers that reach Kafka through the proxy, of the code as it is or of a mutant.

A scenario is a function that runs on a scene and returns the expected state and all records. The verifier decides
whether they are correct.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from expected_state import ExpectedState, Recovery, read_books
from scoring_harness import PATIENCE_S, contacts
from worker_harness import QUICK_PROPERTIES, WorkerHarness

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from proxied_kafka import ProxiedKafka
    from scoring_harness import Input, Progress
    from worker_harness import WorkerProcess

    from stream_scorer.local.simulator import Simulator

MAX_UNCOMMITTED = 1500
MAX_CONTACTS = 50
# Small requests and a slow API: at any moment there are requests in flight, finished rows behind unfinished ones, and
# something to commit.
SETTINGS = {
    "STREAM_SCORER_SCORING__MAX_CONTACTS": str(MAX_CONTACTS),
    "STREAM_SCORER_SCORING__MAX_UNCOMMITTED": str(MAX_UNCOMMITTED),
    "STREAM_SCORER_SCORING__LINGER_MS": "20",
    "STREAM_SCORER_SCORING__COMMIT_INTERVAL_MS": "50",
}
SLOW_API = {"latency_ms": 150, "latency_jitter_ms": 150}
# By itself, after the fault has ended: what issue 7 asks for.
RECOVERY_S = 30.0


class ChaosHarness(WorkerHarness):
    """A stage that notes what happened to it, and can be judged."""

    def __init__(self, *given: Any, **arena: Any) -> None:
        super().__init__(*given, **arena)
        self.progress: Progress = self.watch()
        self.recoveries: list[Recovery] = []
        self.kills = 0
        self.needless_failures = 0
        self.good: set[bytes] = set()

    def produce(self, inputs: Iterable[Input], *, good: bool = True) -> int:
        """Puts records on the features topic; ``good``: none of them may be rejected."""
        given = list(inputs)
        if good:
            self.good |= {one.key for one in given if one.key is not None}
        return super().produce(given)

    def flow(self, more: int = 200, *, needs: WorkerProcess | None = None, limit_s: float = PATIENCE_S) -> None:
        """Waits until the group has committed so many records more."""
        mark = max(self.progress.done(), 0) + more
        self.wait(lambda: self.progress.done() >= mark, f"{more} more commits", needs=needs, limit_s=limit_s)

    def set_limit(self, kind: str, max_bytes: int) -> None:
        """Changes the largest record that a topic takes."""
        self.set_config(kind, "max.message.bytes", str(max_bytes))

    def kill(self, worker: WorkerProcess) -> None:
        """SIGKILL; what it had read may be bought again."""
        self.kills += 1
        worker.kill()

    def recover(self, fault: str, needs: WorkerProcess | None = None, limit_s: float = RECOVERY_S) -> None:
        """The fault has just ended: waits for the next commit, and notes how long it took."""
        began = time.monotonic()
        self.flow(1, needs=needs)
        self.recoveries.append(Recovery(fault, time.monotonic() - began, limit_s))

    def close(self) -> ExpectedState:
        """Waits until all is done, stops every worker and reads everything."""
        self.wait_done()
        self.progress.close()
        for worker in self.workers:
            if worker.running:
                assert worker.stop() == 0, worker.log()
        books = read_books(self)
        books.good = self.good
        books.account = self.simulator.scored()
        books.may_be_paid_again = self.kills * MAX_UNCOMMITTED
        books.recoveries = self.recoveries
        books.needless_failures = self.needless_failures
        return books


@dataclass(slots=True)
class Scenario:
    """Where scenarios play.

    Attributes:
        kafka: a real one behind a proxy.
        simulator: the API.
        folder: for logs.
        code: environment that makes workers run another copy of the package; empty: this one.
        last: the stage that was played on last.
    """

    kafka: ProxiedKafka
    simulator: Simulator
    folder: Path
    code: Mapping[str, str] = field(default_factory=dict)
    last: ChaosHarness | None = None

    @contextmanager
    def stage(self, properties: Mapping[str, Any] | None = None, **settings: str) -> Iterator[ChaosHarness]:
        """New topics and a new group; workers are killed at its end, and the proxy is as good as new."""
        self.simulator.reset()
        self.simulator.configure(quota=1_000_000, **SLOW_API)
        stage = self.last = ChaosHarness(self.kafka.direct, self.simulator, self.folder)
        stage.changes |= {
            **SETTINGS,
            **self.code,
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": self.kafka.proxied,
            "STREAM_SCORER_KAFKA__PROPERTIES": json.dumps({**QUICK_PROPERTIES, **(properties or {})}),
            **{f"STREAM_SCORER_{key.upper()}": value for key, value in settings.items()},
        }
        try:
            yield stage
        finally:
            stage.kill_all()
            self.kafka.proxy.clear()
            self.kafka.proxy.heal()

    def begin(self, stage: ChaosHarness, number: int, name: str = "one") -> WorkerProcess:
        """Contacts on their topic, and a worker that is in the middle of them."""
        stage.produce(contacts(number, stage.partitions))
        worker = stage.start_ready("--from", "earliest", name=name)
        stage.flow(needs=worker)
        return worker


def seen(stage: ChaosHarness, step: Any, what: str, times: int = 1) -> None:
    """Waits until a step of the protocol has come."""
    stage.wait(partial(_reached, step, times), what)


def _reached(step: Any, times: int) -> bool:
    return bool(step.seen >= times)
