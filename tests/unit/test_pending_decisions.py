"""Evidence for a failure: a success of another contact, the requests in flight, and then a control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support_core import contact, exchange

from stream_scorer.core.scoring.batcher import BatchKey
from stream_scorer.core.scoring.request import Request
from stream_scorer.core.scoring.response_policy import Failure, FailureKind
from stream_scorer.scoring.pending_decisions import PendingDecision, PendingDecisions
from stream_scorer.scoring.version_state import VersionStates

if TYPE_CHECKING:
    from collections.abc import Iterable

SENT_AT, FAILED_AT = 100.0, 101.0


def request(batch_id: str, version: str | None = None) -> Request:
    return Request(batch_id, BatchKey(version, version is not None), (contact(batch_id),), sent_at=SENT_AT)


class Harness:
    """Pending decisions of one failed request, and the successes of its version and of another one."""

    def __init__(
        self,
        *,
        kind: FailureKind = FailureKind.REFUSED,
        in_flight: Iterable[Request] = (),
        version: str | None = None,
        is_last_round: bool = False,
    ) -> None:
        self.versions = VersionStates(8)
        self.decisions = PendingDecisions(self.versions)
        failure = Failure(kind, exchange(400), "no good")
        self.pending = PendingDecision(request("failed", version), failure, FAILED_AT, is_last_round=is_last_round)
        self.decisions.add(self.pending, in_flight)

    def succeed(self, now: float, version: str | None = None) -> None:
        self.versions.use(version, now).record_success(1, now - 0.1, now, is_control=False)

    def verdicts(self, now: float = FAILED_AT) -> list[bool]:
        return [verdict for _, verdict in self.decisions.decided(now)]

    @property
    def wants_control(self) -> bool:
        return self.decisions.wanting_control() == [self.pending]


def test_a_success_received_after_it_was_sent_decides_and_one_before_it_does_not() -> None:
    harness = Harness()
    harness.succeed(SENT_AT - 0.1)
    assert harness.verdicts() == []
    assert harness.wants_control
    harness.succeed(SENT_AT + 0.1)
    assert harness.verdicts() == [True]
    assert not harness.wants_control


def test_a_success_of_another_version_decides_nothing() -> None:
    harness = Harness(version="v1")
    harness.succeed(SENT_AT + 0.1, "v2")
    assert harness.verdicts() == []
    harness.succeed(SENT_AT + 0.1, "v1")
    assert harness.verdicts() == [True]

    harness = Harness(in_flight=[request("a"), request("b"), request("other", "v2")])
    assert harness.pending.awaited == {"a", "b"}
    harness.decisions.responded("a")
    assert not harness.wants_control
    harness.decisions.responded("b")
    assert harness.wants_control


def test_a_control_that_fails_decides_that_none_succeed_and_one_without_verdict_is_sent_again() -> None:
    harness = Harness()
    harness.decisions.control_sent(None, "control")
    assert not harness.wants_control
    harness.decisions.control_ended("control", failed=False)
    assert harness.wants_control
    harness.decisions.control_sent(None, "control 2")
    harness.decisions.control_ended("another", failed=True)
    assert harness.verdicts() == []
    harness.decisions.control_ended("control 2", failed=True)
    assert harness.verdicts() == [False]


def test_one_control_decides_all_failures_of_its_version() -> None:
    harness = Harness()
    second = PendingDecision(request("second"), harness.pending.failure, FAILED_AT)
    other = PendingDecision(request("third", "v2"), harness.pending.failure, FAILED_AT)
    for one in (second, other):
        harness.decisions.add(one, ())
    harness.decisions.control_sent(None, "control")
    assert harness.decisions.wanting_control() == [other]
    harness.decisions.control_ended("control", failed=True)
    assert harness.decisions.decided(FAILED_AT) == [(harness.pending, False), (second, False)]


def test_a_success_counts_more_than_the_control_that_failed() -> None:
    harness = Harness()
    harness.decisions.control_sent(None, "control")
    harness.decisions.control_ended("control", failed=True)
    harness.succeed(FAILED_AT + 0.1)
    assert harness.verdicts() == [True]


def test_an_unknown_version_needs_a_success_of_any_other_after_the_failure() -> None:
    harness = Harness(
        kind=FailureKind.UNKNOWN_VERSION, version="v9", in_flight=[request("own", "v9"), request("a", "v1")]
    )
    assert harness.pending.target is None, "the control is sent without a version"
    assert harness.pending.awaited == {"a"}
    harness.succeed(FAILED_AT - 0.5, "v1")
    assert harness.verdicts() == [], "it was answered before the failure was received"
    harness.succeed(FAILED_AT + 0.5, "v9")
    assert harness.verdicts() == []
    harness.succeed(FAILED_AT + 0.5, "v1")
    assert harness.verdicts() == [True]


def test_in_the_last_round_the_success_comes_after_the_failure_and_within_ten_seconds() -> None:
    harness = Harness(is_last_round=True)
    harness.succeed(FAILED_AT - 0.1)
    assert harness.verdicts() == []
    assert harness.verdicts(FAILED_AT + 10.0) == []
    assert harness.verdicts(FAILED_AT + 10.1) == [False]
    harness.succeed(FAILED_AT + 10.0)
    assert harness.verdicts(FAILED_AT + 10.0) == [True]
    late = Harness(is_last_round=True)
    late.succeed(FAILED_AT + 10.1)
    assert late.verdicts(FAILED_AT + 10.1) == [False]


def test_the_failures_of_a_version_are_taken_out_undecided() -> None:
    harness = Harness(version="v1")
    harness.decisions.add(PendingDecision(request("other"), harness.pending.failure, FAILED_AT), ())
    assert harness.decisions.drain("v1") == [harness.pending.request]
    assert len(harness.decisions) == 1
