"""Rounds of a contact that fails alone: retry topics, then a rejection, or held where too many would be rejected."""

from __future__ import annotations

import pytest
from support_core import contact, facts, ids

from stream_scorer.core.records import SourceRecord
from stream_scorer.core.retry_topics import RetryState, state_headers
from stream_scorer.core.scoring.refusal_limit import RefusalLimit
from stream_scorer.core.scoring.response_policy import FailedContact
from stream_scorer.core.scoring.types import Deferred, Reason, Rejected
from stream_scorer.runtime.clock import Clock
from stream_scorer.scoring.deferral import Deferral

DELAYS_S = (60.0, 600.0, 3_600.0)
CAUSE = "refused_by_api/400/"


class Harness:
    """A `Deferral` with simulated time, and what it reported."""

    def __init__(self, share: float = 0.01) -> None:
        self.now = 1_000.0
        self.reported: list[tuple[str, int, bool]] = []
        clock = Clock(lambda: self.now, lambda: int(self.now * 1_000), lambda: 0.5, ids())
        self.deferral = Deferral(
            DELAYS_S,
            RefusalLimit(share),
            clock,
            lambda cause, count, is_held: self.reported.append((str(cause), count, is_held)),
        )

    def reject(self, rounds: int = 3, amount: int = 1) -> list[Rejected | Deferred]:
        alone = contact("c")._replace(rounds=rounds)
        failed = FailedContact(alone, Reason.REFUSED_BY_API, 400, "refused alone", facts(status=400))
        outcomes = [self.deferral.reject(failed) for _ in range(amount)]
        assert all(isinstance(one, Rejected | Deferred) for one in outcomes)
        return outcomes  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("rounds", "is_last", "counted", "uncounted"),
    [(0, False, (1, 1, 60), (0, 1, 60)), (1, False, (2, 2, 600), (1, 1, 60)), (2, False, (3, 3, 3_600), (2, 2, 600))],
)
def test_a_round_that_failed_goes_to_the_next_topic_and_one_that_proved_nothing_to_the_same(
    rounds: int, counted: tuple[int, int, int], uncounted: tuple[int, int, int], *, is_last: bool
) -> None:
    harness, one = Harness(), contact("c")._replace(rounds=rounds)
    assert harness.deferral.is_last_round(one) is is_last
    outcomes = [harness.deferral.counted(one), harness.deferral.uncounted(one)]
    found = [(outcome.rounds, outcome.level, outcome.not_before_ms // 1_000 - 1_000) for outcome in outcomes]
    assert found == [counted, uncounted]
    assert not any(outcome.held for outcome in outcomes)


def test_after_all_rounds_it_is_rejected_with_the_status() -> None:
    harness = Harness()
    assert harness.deferral.is_last_round(contact("c")._replace(rounds=3))
    (outcome,) = harness.reject()
    assert isinstance(outcome, Rejected)
    assert (outcome.reasons, outcome.api_status) == (("refused_by_api",), 400)
    assert outcome.detail == "refused alone; 3 retry rounds failed too"
    assert not harness.reported
    (at_once,) = harness.reject(rounds=0)
    assert isinstance(at_once, Rejected)
    assert at_once.detail == "refused alone"


def test_more_failures_are_needed_while_the_api_fails_at_random() -> None:
    harness = Harness()
    assert harness.deferral.lone_failures == 3
    harness.deferral.answered_after_failure(contact("c"))
    assert (harness.deferral.lone_failures, harness.deferral.fails_at_random) == (12, True)
    harness.now += 600.0
    assert harness.deferral.fails_at_random
    harness.now += 1.0
    assert harness.deferral.lone_failures == 3


def test_over_the_limit_they_are_held_in_the_last_topic_with_their_rounds_done() -> None:
    harness = Harness()
    outcomes = harness.reject(rounds=0, amount=22)
    assert [type(one) for one in outcomes] == [Rejected] * 20 + [Deferred] * 2
    held = outcomes[-1]
    assert isinstance(held, Deferred)
    assert (held.rounds, held.level, held.held) == (3, 3, CAUSE)
    assert harness.reported == [(CAUSE, 21, True), (CAUSE, 22, True)]


def test_finished_contacts_raise_the_limit_and_a_warning_is_reported() -> None:
    harness = Harness()
    harness.deferral.finished(10_000)
    assert {type(one) for one in harness.reject(amount=30)} == {Rejected}
    assert harness.reported == [(CAUSE, count, False) for count in range(21, 31)]


def test_one_of_those_held_for_a_cause_is_sent_each_delay_and_all_once_it_was_answered() -> None:
    harness = Harness()
    held, other = (contact("c")._replace(rounds=3, held=cause) for cause in (CAUSE, "no_result/200/"))
    assert [harness.deferral.admits(held) for _ in range(3)] == [True, False, False]
    assert harness.deferral.admits(other)
    harness.now += 3_599.0
    assert not harness.deferral.admits(held)
    harness.now += 1.0
    assert harness.deferral.admits(held)
    again = harness.deferral.failed_again(held)
    assert (again.rounds, again.level, again.held) == (3, 3, CAUSE)
    assert not harness.deferral.admits(held)
    assert harness.deferral.admits(other)
    harness.deferral.answered_after_failure(held)
    assert all(harness.deferral.admits(held) for _ in range(9))
    assert not harness.deferral.admits(other), "it was held for another cause"
    harness.deferral.failed_again(held)
    assert not harness.deferral.admits(held)


def test_a_held_contact_that_is_deferred_uncounted_stays_held() -> None:
    assert Harness().deferral.uncounted(contact("c")._replace(rounds=3, held=CAUSE)).held == CAUSE


def test_a_share_of_one_rejects_those_that_were_held_before() -> None:
    harness = Harness(share=1.0)
    held = contact("c")._replace(rounds=3, held=CAUSE)
    assert not harness.deferral.is_held(held)
    assert all(harness.deferral.admits(held) for _ in range(5))
    assert {type(one) for one in harness.reject(amount=50)} == {Rejected}


# --- records whose schema the registry does not have


def unread(rounds: int, held: str = "") -> SourceRecord:
    if not rounds:
        return SourceRecord("in", 0, 7, b"k", b"v", [])
    headers = state_headers(RetryState("in/0/7", rounds, 0, "us", held))
    return SourceRecord("retry-1", 0, 3, b"k", b"v", headers, origin="in/0/7")


def test_a_record_whose_schema_is_missing_has_its_rounds_before_it_is_undecodable() -> None:
    harness = Harness()
    for rounds, delay_s in enumerate(DELAYS_S):
        found = harness.deferral.schema_missing(unread(rounds), "no schema with id 17")
        assert isinstance(found, Deferred)
        assert (found.rounds, found.level, found.record.source) == (rounds + 1, rounds + 1, "in/0/7")
        assert found.not_before_ms == (1_000 + delay_s) * 1_000
    rejected = harness.deferral.schema_missing(unread(3), "no schema with id 17")
    assert isinstance(rejected, Rejected)
    assert (rejected.reasons, rejected.request) == (("undecodable",), None)
    assert rejected.detail == "no schema with id 17; 3 retry rounds failed too"


def test_the_limit_counts_records_whose_schema_is_missing() -> None:
    harness = Harness()
    found = [harness.deferral.schema_missing(unread(3), "no schema with id 17") for _ in range(25)]
    assert [type(one) for one in found] == [Rejected] * 20 + [Deferred] * 5
    assert harness.reported == [("undecodable/-/", count, True) for count in range(21, 26)]
    held = harness.deferral.schema_missing(unread(3, held="undecodable/-/"), "no schema with id 17")
    assert isinstance(held, Deferred)
    assert (held.rounds, held.level, held.held) == (3, 3, "undecodable/-/")
