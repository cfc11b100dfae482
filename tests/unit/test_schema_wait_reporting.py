"""What the observers tell while records wait for the schemas of their writers."""

from __future__ import annotations

from typing import Any

from stream_scorer.callbacks.observer import LoopObserver
from stream_scorer.core.records import Partition
from stream_scorer.runtime.clock import Clock
from stream_scorer.scoring.observer import Observer

REASON = "schema id 17 cannot be fetched: schema registry r:8081: no connection"


class Told:
    """A log and metrics that keep what they are told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.holds: list[tuple[str, Any]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = info

    def breaker_open(self, reason: str, **_: Any) -> None:
        self.holds.append(("open", reason))

    def breaker_closed(self, reason: str) -> None:
        self.holds.append(("closed", reason))

    def __getattr__(self, _: str) -> Any:
        return lambda *_args, **_fields: None


def scorer(told: Any) -> Observer:
    clock = Clock(lambda: 100.0, lambda: 1_790_000_000_000, lambda: 0.5, lambda: "id")
    made = Observer(told, told, clock)
    made.partition_assigned(Partition("t", 0), 0)
    return made


def test_the_scorer_is_not_ready_and_says_why_and_since_when() -> None:
    told = Told()
    observe = scorer(told)
    assert observe.readiness_failure() is None
    observe.schemas_pending(REASON)
    assert observe.readiness_failure() == f"registry: {REASON}; since 2026-09-21T14:13:20Z (0 s)"
    assert told.lines[-1] == ("schema registry unavailable", {"detail": REASON})
    observe.commit_blocked("no broker")  # nothing can be published at all: that is said first
    assert str(observe.readiness_failure()).startswith("kafka: no broker")
    observe.commit_blocked(None)
    observe.schemas_pending(None)
    assert observe.readiness_failure() is None
    assert told.lines[-1] == ("schema registry recovered", {"after": REASON})
    assert told.holds[-1] == ("closed", "registry")


def test_a_loop_of_the_campaign_worker_says_so_too() -> None:
    told: Any = Told()
    observe = LoopObserver("planner", told, told, lambda: 100.0)
    observe.partition_assigned(Partition("t", 0), 0)
    observe.schemas_pending(REASON)
    assert observe.readiness_failure() == f"planner: registry: {REASON}"
    observe.schemas_pending(None)
    assert observe.readiness_failure() is None
    assert [event for event, _ in told.lines][-2:] == ["schema registry unavailable", "schema registry recovered"]
