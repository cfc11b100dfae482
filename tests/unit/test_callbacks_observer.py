"""Health, log and metrics of a stalled or idle loop of the campaign worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory_metrics import MemoryMetrics

from stream_scorer.callbacks.observer import DelivererObserver
from stream_scorer.core.callbacks.circuit_breaker import Blocked, BreakerStatus
from stream_scorer.core.exactly_once.stall_detector import CommitPosition
from stream_scorer.core.records import Partition
from stream_scorer.runtime.clock import Clock
from stream_scorer.runtime.metric_definitions import CALLBACKS_CIRCUIT_BREAKER_OPEN, CAMPAIGN_BLOCKED

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Partition("callbacks", 0)


class Quiet:
    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, **_: Any) -> None:
        self.events.append(event)

    warning = info


class Harness:
    def __init__(self) -> None:
        self.now = 100.0
        self.log = Quiet()
        clock = Clock(lambda: self.now, lambda: 0, lambda: 0.5, lambda: "id")
        self.metrics = MemoryMetrics("callbacks")
        self.observe = DelivererObserver(self.log, self.metrics, clock)

    def look(self, seconds: int, *, explained: bool = False) -> str | None:
        for _ in range(seconds):
            self.now += 1.0
            self.observe.heartbeat()
            self.observe.lag_observed([CommitPosition(HERE, 3, 0)], {}, explained=explained)
        return self.observe.liveness_failure(120.0, 300.0)


def test_an_unexplained_stall_of_a_callback_fails_livez() -> None:
    harness = Harness()
    harness.observe.partition_assigned(HERE, 3)
    assert harness.look(1_000, explained=True) is None
    assert harness.look(300) is None
    assert harness.look(1) == "deliverer: the oldest event has waited for 301 s, and no reason is known"
    harness.observe.commit_blocked("no broker")
    assert harness.look(1_000) is None
    assert harness.observe.readiness_failure() == "deliverer: kafka: no broker"


def test_a_loop_without_partitions_is_ready_once_the_rebalance_is_complete() -> None:
    harness = Harness()
    assert harness.observe.readiness_failure() == "deliverer: starting: no partition assigned yet"
    harness.observe.rebalance_completed()
    assert harness.observe.readiness_failure() is None
    harness.look(1)
    assert harness.log.events == ["no partitions assigned"]
    harness.observe.partition_assigned(HERE, 3)
    harness.observe.partitions_revoked([HERE])
    assert str(harness.observe.readiness_failure()).startswith("deliverer: rebalancing: ")
    harness.observe.disconnected("Authentication failed")
    assert harness.observe.readiness_failure() == "deliverer: kafka: Authentication failed"


def test_a_failed_transaction_is_one_event_for_each_message_as_in_the_scoring_worker() -> None:
    harness = Harness()
    for message in ("no broker", "no broker", "fenced", None):
        harness.observe.commit_blocked(message)
    assert harness.log.events == ["transaction failed", "transaction failed", "transactions recovered"]


def test_the_breaker_gauge_has_the_reason_kafka_whenever_readyz_has_it() -> None:
    harness = Harness()
    observe = harness.observe
    steps: list[Callable[[], None]] = [
        lambda: observe.partition_assigned(HERE, 3),
        lambda: observe.disconnected("Authentication failed"),
        lambda: observe.partition_assigned(HERE, 3),
        lambda: observe.commit_blocked("no broker"),
        observe.rebalance_completed,
        lambda: observe.commit_blocked(None),
        lambda: observe.disconnected("no broker"),
        observe.rebalance_completed,
    ]
    for step in steps:
        step()
        is_open = harness.metrics.value(CALLBACKS_CIRCUIT_BREAKER_OPEN, reason="kafka", loop="deliverer")
        assert is_open == str(observe.readiness_failure()).startswith("deliverer: kafka: ")


def test_a_blocked_campaign_is_measured_with_its_own_contact_list() -> None:
    harness = Harness()
    lists = {"autumn": "outbound/autumn-list"}
    clock = Clock(lambda: 0.0, lambda: 0, lambda: 0.5, lambda: "id")
    observe = DelivererObserver(
        harness.log,
        harness.metrics,
        clock,
        target="outbound/list",
        target_of=lambda one: lists.get(one or "", "outbound/list"),
    )
    blocked = [Blocked(name, BreakerStatus.OPEN, "HTTP 404", 404, "look", 0.0) for name in ("spring", "autumn")]
    observe.breakers(None, blocked)
    for name, target in (("spring", "outbound/list"), ("autumn", "outbound/autumn-list")):
        series = {"campaign_id": name, "target": target, "status": "open", "remedy": "look"}
        assert harness.metrics.value(CAMPAIGN_BLOCKED, **series, **{"http.response.status_code": 404}) == 1
