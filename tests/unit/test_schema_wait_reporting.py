"""Readiness, log and metrics while records wait for the schemas of their writers."""

from __future__ import annotations

from typing import Any

from memory_metrics import MemoryMetrics

from stream_scorer.callbacks.observer import PlannerObserver
from stream_scorer.core.records import Partition
from stream_scorer.genesys.request_quota import Quota
from stream_scorer.runtime.clock import Clock
from stream_scorer.runtime.metric_definitions import CALLBACKS_CIRCUIT_BREAKER_OPEN, CIRCUIT_BREAKER_OPEN
from stream_scorer.scoring.observer import Observer

REASON = "schema id 17 cannot be fetched: schema registry r:8081: no connection"


class RecordingLog:
    """A logger that records its events."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = info


CLOCK = Clock(lambda: 100.0, lambda: 1_790_000_000_000, lambda: 0.5, lambda: "id")


def scorer(log: Any, metrics: MemoryMetrics) -> Observer:
    made = Observer(log, metrics, CLOCK)
    made.partition_assigned(Partition("t", 0), 0)
    return made


def test_readyz_of_the_scorer_has_the_reason_and_its_start() -> None:
    log = RecordingLog()
    metrics = MemoryMetrics("run")
    observe = scorer(log, metrics)
    assert observe.readiness_failure() is None
    observe.schemas_pending(REASON)
    observe.state(in_flight=0, uncommitted=0, quota=Quota(300), breaker=None)
    assert metrics.value(CIRCUIT_BREAKER_OPEN, reason="registry") == 1
    assert observe.readiness_failure() == f"registry: {REASON}; since 2026-09-21T14:13:20Z (0 s)"
    assert log.lines[-1] == ("schema registry unavailable", {"detail": REASON})
    observe.commit_blocked("no broker")  # nothing can be published: this reason comes first
    assert str(observe.readiness_failure()).startswith("kafka: no broker")
    observe.commit_blocked(None)
    observe.schemas_pending(None)
    assert observe.readiness_failure() is None
    assert log.lines[-1] == ("schema registry recovered", {"after": REASON})
    assert metrics.value(CIRCUIT_BREAKER_OPEN, reason="registry") == 0


def test_readyz_of_a_campaign_worker_loop_has_the_reason() -> None:
    log: Any = RecordingLog()
    metrics = MemoryMetrics("callbacks")
    observe = PlannerObserver(log, metrics, CLOCK)
    observe.partition_assigned(Partition("t", 0), 0)
    observe.schemas_pending(REASON)
    assert observe.readiness_failure() == f"planner: registry: {REASON}"
    assert metrics.value(CALLBACKS_CIRCUIT_BREAKER_OPEN, loop="planner", reason="registry") == 1
    observe.schemas_pending(None)
    assert observe.readiness_failure() is None
    assert metrics.value(CALLBACKS_CIRCUIT_BREAKER_OPEN, loop="planner", reason="registry") == 0
    assert [event for event, _ in log.lines][-2:] == ["schema registry unavailable", "schema registry recovered"]
