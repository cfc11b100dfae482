"""Environment of a scenario: workers that reach Kafka through the proxy, with the present code or a mutant.

A scenario is a function that runs on it and returns the `ExpectedState`, which the verifier checks.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from expected_state import ExpectedState, Recovery, read_state
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
# Small requests and a slow API: at any time there are requests in flight, finished contacts behind unfinished ones, and
# outcomes to commit.
SETTINGS = {
    "STREAM_SCORER_SCORING__MAX_CONTACTS": str(MAX_CONTACTS),
    "STREAM_SCORER_SCORING__MAX_UNCOMMITTED": str(MAX_UNCOMMITTED),
    "STREAM_SCORER_SCORING__LINGER_MS": "20",
    "STREAM_SCORER_SCORING__COMMIT_INTERVAL_MS": "50",
}
SLOW_API = {"latency_ms": 150, "latency_jitter_ms": 150}
# Without intervention, after the fault has ended: required by issue 7.
RECOVERY_S = 30.0


class ChaosHarness(WorkerHarness):
    """A harness that records its faults for the verifier."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.progress: Progress = self.watch()
        self.recoveries: list[Recovery] = []
        self.kills = 0
        self.needless_failures = 0
        self.good: set[bytes] = set()

    def produce(self, inputs: Iterable[Input], *, good: bool = True) -> int:
        """Put records on the features topic; ``good``: none of them may be rejected."""
        given = list(inputs)
        if good:
            self.good |= {one.key for one in given if one.key is not None}
        return super().produce(given)

    def flow(self, more: int = 200, *, needs: WorkerProcess | None = None, limit_s: float = PATIENCE_S) -> None:
        """Wait until the group has committed so many more records."""
        mark = max(self.progress.done(), 0) + more
        self.wait(lambda: self.progress.done() >= mark, f"{more} more commits", needs=needs, limit_s=limit_s)

    def set_limit(self, kind: str, max_bytes: int) -> None:
        """Change the size limit of the records of a topic."""
        self.set_config(kind, "max.message.bytes", str(max_bytes))

    def kill(self, worker: WorkerProcess) -> None:
        """Send SIGKILL; the uncommitted contacts may be billed again."""
        self.kills += 1
        worker.kill()

    def recover(self, fault: str, needs: WorkerProcess | None = None, limit_s: float = RECOVERY_S) -> None:
        """Wait for the next commit after the end of a fault and record the time to recovery."""
        began = time.monotonic()
        self.flow(1, needs=needs)
        self.recoveries.append(Recovery(fault, time.monotonic() - began, limit_s))

    def close(self) -> ExpectedState:
        """Wait until all is committed, stop every worker, and read all topics."""
        self.wait_done()
        self.progress.close()
        for worker in self.workers:
            if worker.running:
                assert worker.stop() == 0, worker.log()
        state = read_state(self)
        state.good = self.good
        state.account = self.simulator.scored()
        state.may_be_paid_again = self.kills * MAX_UNCOMMITTED
        state.recoveries = self.recoveries
        state.needless_failures = self.needless_failures
        return state


@dataclass(slots=True)
class Scenario:
    """Environment of scenarios.

    Attributes:
        kafka: a real one behind a proxy.
        simulator: the API.
        folder: for logs.
        code: environment variables with which workers run another copy of the package; empty: this one.
        last: the harness of the last scenario.
    """

    kafka: ProxiedKafka
    simulator: Simulator
    folder: Path
    code: Mapping[str, str] = field(default_factory=dict)
    last: ChaosHarness | None = None

    @contextmanager
    def stage(self, properties: Mapping[str, Any] | None = None, **settings: str) -> Iterator[ChaosHarness]:
        """Create topics and a group; at the end, kill the workers and reset the proxy."""
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
        """Produce contacts and start a worker; on return, some of them are committed."""
        stage.produce(contacts(number, stage.partitions))
        worker = stage.start_ready("--from", "earliest", name=name)
        stage.flow(needs=worker)
        return worker


def seen(stage: ChaosHarness, step: Any, what: str, times: int = 1) -> None:
    """Wait until a step of the protocol is reached."""
    stage.wait(partial(_reached, step, times), what)


def _reached(step: Any, times: int) -> bool:
    return bool(step.seen >= times)
