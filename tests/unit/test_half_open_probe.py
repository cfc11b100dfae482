"""Probes of an open circuit breaker: one contact alone, another one each time, every second one a control."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support_core import TOPIC, contact, exchange, ids, record

from stream_scorer.core.records import Partition
from stream_scorer.core.scoring.batcher import Batcher
from stream_scorer.core.scoring.response_policy import Failure, FailureKind
from stream_scorer.genesys.wire import body_overhead
from stream_scorer.scoring.circuit_breaker import CircuitBreaker
from stream_scorer.scoring.control_contacts import ControlContacts
from stream_scorer.scoring.half_open_probe import HalfOpenProbe
from stream_scorer.scoring.ports import OutcomeLedger
from stream_scorer.scoring.request_queue import RequestQueue
from stream_scorer.scoring.version_state import VersionStates

if TYPE_CHECKING:
    from stream_scorer.core.scoring.request import Request
    from stream_scorer.core.scoring.types import Contact


class Harness:
    """The API's breaker is open for each of ``versions``; every contact in ``waiting`` was read."""

    def __init__(
        self, *waiting: str, deferred: str = "", scored: str = "", versions: tuple[str | None, ...] = (None,)
    ) -> None:
        self.now = 100.0
        self.ledger = OutcomeLedger()
        for topic in (TOPIC, "retry"):
            self.ledger.assign(Partition(topic, 0), start_offset=0, next_offset=0)
        self.controls = ControlContacts(ids("control"))
        for name in scored:
            self.controls.record_scored(contact(name))
        batchers = [
            Batcher(max_contacts=100, max_body_bytes=10_000, overhead_bytes=body_overhead, linger_s=0.0) for _ in "ab"
        ]
        self.queue = RequestQueue(
            *batchers,
            self.ledger,
            may_send_partial_batch=lambda _now, _open: True,
            sent_partial_batch=lambda _now: None,
            new_id=ids("batch"),
        )
        self.versions = VersionStates(100)
        self.breaker = CircuitBreaker(10.0)
        self.probe = HalfOpenProbe(
            queue=self.queue,
            controls=self.controls,
            breaker=self.breaker,
            versions=self.versions,
            new_id=ids("probe"),
            max_retry_after_s=900.0,
        )
        for version in versions:
            self.versions.use(version, self.now).trip("HTTP 503", self.now)
        self.breaker.trip("HTTP 503", self.now)
        for offset, name in enumerate(deferred):
            again = record(offset, topic="retry")._replace(origin=f"contact-features/0/{offset}")
            self.read(contact(name, source=again))
        for offset, name in enumerate(waiting):
            self.read(contact(name, 100 + offset))

    def read(self, one: Contact) -> None:
        assert self.ledger.read(one.record)
        self.queue.add(one, self.now)

    def next(self) -> Request | None:
        state = self.breaker.open_state
        self.now = max(self.now, state.next_probe_at if state else self.now)
        return self.probe.next(self.now)

    def fail(self, request: Request, after_s: float | None = None) -> None:
        failure = Failure(FailureKind.SERVER_ERROR, exchange(503), "HTTP 503", retry_after_s=after_s)
        assert self.probe.ended(request.batch_id)
        self.probe.failed(request, failure, self.now)
        if not request.is_control:
            self.queue.add(request.contacts[0], self.now)

    def probes(self, amount: int) -> list[str]:
        """The contacts of so many probes that fail; controls in brackets."""
        sent = []
        for _ in range(amount):
            request = self.next()
            assert request is not None
            assert request.is_single
            name = request.contacts[0].contact_id
            sent.append(f"[{name}]" if request.is_control else name)
            self.fail(request)
        return sent


def test_a_control_and_a_waiting_contact_take_turns_and_deferred_contacts_come_last() -> None:
    harness = Harness("a", "b", deferred="d", scored="xy")
    assert harness.probes(6) == ["[y]", "a", "[x]", "b", "[y]", "d"]


def test_without_a_score_each_probe_is_another_contact() -> None:
    assert Harness("a", "b", "c", deferred="d").probes(4) == ["a", "b", "c", "d"]


def test_once_all_that_were_read_have_failed_more_are_wanted() -> None:
    harness = Harness("a", "b")
    assert not harness.probe.all_failed
    assert harness.probes(2) == ["a", "b"]
    assert harness.probe.all_failed
    assert harness.probes(3) == ["a", "b", "a"], "there are no others, and the API may work again"
    assert harness.probe.all_failed
    harness.read(contact("c", 107))
    assert not harness.probe.all_failed
    assert harness.probes(1) == ["c"]


def test_with_nothing_read_controls_go_on() -> None:
    assert Harness(scored="x").probes(3) == ["[x]", "[x]", "[x]"]
    assert Harness().probe.all_failed


@pytest.mark.parametrize(("after_s", "wait_s"), [(None, 10.0), (3.0, 10.0), (45.0, 45.0), (5_000.0, 900.0)])
def test_one_at_a_time_and_the_next_after_the_interval_or_retry_after(after_s: float | None, wait_s: float) -> None:
    harness = Harness("a", "b")
    assert harness.probe.next(109.9) is None
    first = harness.probe.next(110.0)
    assert first is not None
    assert harness.probe.next(150.0) is None, "it is in flight"
    harness.now = 150.0
    harness.fail(first, after_s)
    assert harness.probe.next(150.0 + wait_s - 0.1) is None
    assert harness.probe.next(150.0 + wait_s) is not None


@pytest.mark.parametrize("amount", [1, 2, 3, 4])
def test_versions_take_turns_and_every_second_probe_of_each_is_a_control(amount: int) -> None:
    names = tuple(f"v{number}" for number in range(amount))
    harness = Harness(scored="x", versions=names)
    for version in names:
        for name in "abcd":
            harness.read(contact(name, harness.queue.batched, version=version))
    kinds: dict[str | None, list[bool]] = {name: [] for name in names}
    for _ in range(4 * amount):
        request = harness.next()
        assert request is not None
        kinds[request.key.model_version].append(request.is_control)
        harness.fail(request)
    assert all(one in ([True, False, True, False], [False, True, False, True]) for one in kinds.values())


def test_a_success_forgets_which_contacts_have_failed() -> None:
    harness = Harness("a")
    assert harness.probes(1) == ["a"]
    assert harness.probe.all_failed
    harness.controls.record_scored(contact("x"))
    request = harness.next()
    assert request is not None
    assert harness.probe.ended(request.batch_id)
    assert not harness.probe.ended(request.batch_id), "it was that probe once"
    harness.probe.succeeded()
    assert not harness.probe.all_failed


def test_a_version_whose_breaker_alone_is_open_takes_the_next_contact_that_is_read() -> None:
    harness = Harness(versions=("v1",))
    harness.versions.use("v2", harness.now)
    harness.breaker.reset()
    harness.probe.defer_until(0.0, harness.now)
    one, other = contact("a", 1, version="v1"), contact("b", 2, version="v1")
    assert not harness.probe.offer(one, 109.9)
    assert harness.probe.offer(one, 110.0)
    assert not harness.probe.offer(other, 110.0), "one is enough"
    request = harness.probe.next(110.0)
    assert request is not None
    assert (request.contacts, request.key.model_version) == ((one,), "v1")


@pytest.mark.parametrize("ends", ["recovered", "lost"])
def test_a_contact_that_was_offered_waits_as_any_other_once_no_probe_is_needed(ends: str) -> None:
    harness = Harness(versions=("v1",))
    harness.versions.use("v2", harness.now)
    harness.breaker.reset()
    one = contact("a", 1, version="v1")
    assert harness.ledger.read(one.record)
    assert harness.probe.offer(one, 110.0)
    if ends == "lost":
        harness.ledger.revoke(Partition(TOPIC, 0))
    harness.probe.drop_unowned()
    harness.versions.get("v1", 110.0).half_open()
    assert harness.probe.next(110.0) is None
    assert harness.queue.batched == (ends == "recovered")
