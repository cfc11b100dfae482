"""Harness of the dispatcher: simulated time, an API that is a function, and the real ledger, batcher and quota.

`DispatcherHarness` reads topics, commits finished records in order, and reads deferred contacts again from their
retry topics.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from support_core import TOPIC, answered, contact, ids, policy, record, server_error

from stream_scorer.core.records import Partition, SourceRecord, key_of
from stream_scorer.core.scoring.batcher import Batcher
from stream_scorer.core.scoring.refusal_limit import RefusalLimit
from stream_scorer.core.scoring.types import Deferred, Rejected
from stream_scorer.genesys.request_quota import Quota
from stream_scorer.genesys.wire import body_overhead
from stream_scorer.runtime.clock import Clock
from stream_scorer.scoring.circuit_breaker import BreakerState, CircuitBreaker
from stream_scorer.scoring.deferral import NAMED_REFUSALS, Deferral
from stream_scorer.scoring.dispatcher import RequestDispatcher
from stream_scorer.scoring.ports import OutcomeLedger, Untraced
from stream_scorer.scoring.wait_reasons import WaitReason, WaitTimer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stream_scorer.core.records import RecordKey
    from stream_scorer.core.scoring.api_response import ApiResponse
    from stream_scorer.core.scoring.refusal_limit import Cause
    from stream_scorer.core.scoring.request import Request
    from stream_scorer.core.scoring.types import Contact, Outcome
    from stream_scorer.scoring.observer import Observer

STEP_S = 0.05
RETRY_DELAYS_S = (60.0, 600.0, 3_600.0)


def ok(request: Request) -> ApiResponse:
    return answered(names(request))


def names(request: Request) -> list[str]:
    return [one.contact_id for one in request.contacts]


def scripted(*answers: ApiResponse, then: Callable[[Request], ApiResponse] = ok) -> Callable[[Request], ApiResponse]:
    """First these answers, then those of a healthy API."""
    left: Iterator[ApiResponse] = iter(answers)
    return lambda request: next(left, None) or then(request)


def always(answer: ApiResponse) -> Callable[[Request], ApiResponse]:
    return lambda _: answer


def poisoned(*bad: str, answer: ApiResponse | None = None) -> Callable[[Request], ApiResponse]:
    """An API that fails every request with one of these contacts."""
    failure = answer or server_error(500)
    return lambda request: failure if set(bad) & set(names(request)) else ok(request)


class Sent(NamedTuple):
    at: float
    request: Request

    @property
    def names(self) -> list[str]:
        return names(self.request)


class Pool:
    """Calls ``world.api`` when a request is sent; the answer comes after ``world.latency_of(request, answer)``."""

    def __init__(self, world: DispatcherHarness, size: int) -> None:
        self.size = size
        self._world = world
        self._in_flight: list[tuple[float, Request, ApiResponse]] = []

    def submit(self, request: Request) -> None:
        world = self._world
        assert len(self._in_flight) < self.size, "more at once than there are slots"
        if not request.is_control:
            flying = (other for _, other, _ in self._in_flight if not other.is_control)
            keys = {key_of(one.record) for one in request.contacts}
            assert keys.isdisjoint(key_of(one.record) for other in flying for one in other.contacts), (
                "sent twice at once"
            )
            assert keys.isdisjoint(world.committed), "sent after its commit"
        assert len(set(names(request))) == len(request.contacts)
        answer = world.api(request)
        world.sent.append(Sent(world.now, request))
        self._in_flight.append((world.now + world.latency_of(request, answer), request, answer))

    def answers(self, wait_s: float = 0.0) -> list[tuple[Request, ApiResponse]]:
        assert wait_s >= 0
        arrived = sorted((one for one in self._in_flight if one[0] <= self._world.now), key=lambda one: one[0])
        self._in_flight = [one for one in self._in_flight if one[0] > self._world.now]
        return [(request, answer) for _, request, answer in arrived]


class Observed:
    def __init__(self) -> None:
        self.states: list[BreakerState | None] = []
        self.version_trips: list[tuple[str | None, str | None, int]] = []
        self.unmatched = 0
        self.controls = 0
        self.wait: WaitReason | None = None
        self.limit: list[tuple[Cause, int, bool]] = []

    def response_received(self, request: Request, answer: ApiResponse, trace_id: str | None) -> None:
        pass

    def breaker_changed(self, _before: BreakerState | None, state: BreakerState | None) -> None:
        self.states.append(state)

    def version_breaker_changed(self, model_version: str | None, reason: str | None, *, opened: int) -> None:
        self.version_trips.append((model_version, reason, opened))

    def wait_observed(self, reason: WaitReason | None) -> None:
        self.wait = reason

    def unmatched_results(self, amount: int) -> None:
        self.unmatched += amount

    def control_sent(self) -> None:
        self.controls += 1

    def refusal_limit_reached(self, cause: Cause, count: int, is_held: bool) -> None:
        self.limit.append((cause, count, is_held))

    @property
    def opened(self) -> list[BreakerState]:
        return [state for state in self.states if state is not None and state.is_open]


class DispatcherHarness:
    def __init__(
        self,
        api: Callable[[Request], ApiResponse] = ok,
        *,
        slots: int = 8,
        requests_per_minute: int = 300,
        max_contacts: int = 1_000,
        latency_s: float = 0.1,
        max_contacts_per_minute: int | None = None,
        retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S,
        max_refused_share: float = 0.01,
        **changes: Any,
    ) -> None:
        self.api = api
        self.latency_s = latency_s
        self.latency_of: Callable[[Request, ApiResponse], float] = lambda _request, _answer: self.latency_s
        self.now = 1_000.0
        self.sent: list[Sent] = []
        self.observed = Observed()
        self.ledger = OutcomeLedger()
        self.quota = Quota(requests_per_minute)
        self.wait_timer = WaitTimer()
        self.breaker = CircuitBreaker(10.0, on_change=self.observed.breaker_changed)
        self.clock = Clock(lambda: self.now, lambda: int(self.now * 1_000), lambda: 0.5, ids("batch"))
        deferral = Deferral(
            retry_delays_s, RefusalLimit(max_refused_share), self.clock, self.observed.refusal_limit_reached
        )
        self.dispatcher = RequestDispatcher(
            pool=Pool(self, slots),
            batcher=self._batcher(max_contacts),
            deferred=self._batcher(max_contacts),
            ledger=self.ledger,
            quota=self.quota,
            breaker=self.breaker,
            policy=policy(named_refusals=NAMED_REFUSALS, **changes),
            deferral=deferral,
            clock=self.clock,
            observe=cast("Observer", self.observed),
            trace=Untraced(),
            max_contacts=max_contacts,
            max_contacts_per_minute=max_contacts_per_minute,
        )
        self.topic: dict[int, list[SourceRecord]] = {}
        self.position: dict[int, int] = {}
        self.made: dict[tuple[int, int], Contact] = {}
        self.published: list[Outcome] = []
        self.committed: set[RecordKey] = set()
        self._next_offsets: dict[Partition, int] = {}
        self.published_at: list[float] = []
        self._retries: defaultdict[int, deque[tuple[int, Contact]]] = defaultdict(deque)
        self._retry_offsets: Counter[int] = Counter()
        for level in range(1, len(retry_delays_s) + 1):
            self.ledger.assign(Partition(f"{TOPIC}-retry-{level}", 0), start_offset=0, next_offset=0)
        self.own(0)

    @staticmethod
    def _batcher(max_contacts: int) -> Batcher:
        return Batcher(max_contacts=max_contacts, max_body_bytes=512_000, overhead_bytes=body_overhead, linger_s=0.2)

    # --- what the worker does

    def own(self, partition: int) -> None:
        next_offset = self._next_offsets.get(Partition(TOPIC, partition), 0)
        self.ledger.assign(Partition(TOPIC, partition), start_offset=0, next_offset=next_offset)
        self.position[partition] = next_offset
        self.topic.setdefault(partition, [])

    def disown(self, partition: int) -> None:
        one = Partition(TOPIC, partition)
        self.ledger.revoke(one, self.dispatcher.requested_records(one))
        self.dispatcher.drop_unowned()
        del self.position[partition]

    def produce(self, wanted: Iterable[str], partition: int = 0, **more: Any) -> list[SourceRecord]:
        """Put contacts on the topic."""
        log = self.topic.setdefault(partition, [])
        produced = []
        for name in wanted:
            one = record(len(log), partition, value=b"%s %d" % (name.encode(), len(log)))
            log.append(one)
            self.made[one.partition, one.offset] = contact(name, source=one, **more)
            produced.append(one)
        return produced

    def read(self, partition: int = 0, limit: int = 1_000_000) -> None:
        log = self.topic[partition]
        for one in log[self.position[partition] :][:limit]:
            self.position[partition] += 1
            if self.ledger.read(one):
                self.dispatcher.add(self.made[one.partition, one.offset], self.now)

    def feed(self, wanted: Iterable[str], partition: int = 0, **more: Any) -> list[SourceRecord]:
        """Put contacts on the topic and read them."""
        produced = self.produce(wanted, partition, **more)
        self.read(partition)
        return produced

    def step(self, seconds: float = STEP_S) -> None:
        self._read_retries()
        self.dispatcher.send()
        self.dispatcher.poll_timers()
        self.wait_timer.observe(self.observed.wait, self.now)
        self.dispatcher.handle_responses()
        self.commit()
        self.now += seconds

    def commit(self) -> None:
        heads = self.ledger.committable(1_000_000)
        for head in heads:
            self._next_offsets[head.partition] = head.next_offset
            for outcome in head.outcomes:
                self.published.append(outcome)
                self.committed.add(key_of(outcome.record))
                self.published_at.append(self.now)
                if isinstance(outcome, Deferred):
                    self._write_retry(outcome)
        self.ledger.mark_committed(heads)

    def _write_retry(self, outcome: Deferred) -> None:
        original = self._contact_of(outcome.record.source)
        offset = self._retry_offsets[outcome.level]
        self._retry_offsets[outcome.level] += 1
        retry = SourceRecord(
            f"{TOPIC}-retry-{outcome.level}", 0, offset, b"key", outcome.record.value, [], origin=outcome.record.source
        )
        again = original._replace(record=retry, rounds=outcome.rounds, held=outcome.held)
        self._retries[outcome.level].append((outcome.not_before_ms, again))

    def _contact_of(self, source: str) -> Contact:
        _, partition, offset = source.rsplit("/", 2)
        return self.made[int(partition), int(offset)]

    def _read_retries(self) -> None:
        if self.breaker.open_state is not None:
            return
        for waiting in self._retries.values():
            while waiting and waiting[0][0] <= self.now * 1_000:
                _, again = waiting.popleft()
                assert self.ledger.read(again.record)
                self.dispatcher.add(again, self.now)

    @property
    def deferred(self) -> int:
        """Contacts that wait in a retry topic."""
        return sum(map(len, self._retries.values()))

    def run(self, seconds: float, step_s: float = STEP_S) -> None:
        end = self.now + seconds
        while self.now < end:
            self.step(step_s)

    def run_until(self, done: Callable[[], bool], within_s: float = 600.0, step_s: float = STEP_S) -> None:
        end = self.now + within_s
        while not done():
            assert self.now < end, f"not within {within_s} s; breaker: {self.breaker.open_state}"
            self.step(step_s)

    def finish(self, within_s: float = 600.0, step_s: float = STEP_S) -> None:
        """Run until every contact has its outcome, those in the retry topics too.

        While all that is left waits in the retry topics, nothing happens: that time is skipped.
        """
        end = self.now + within_s
        while self.is_busy or self.deferred:
            assert self.now < end, f"not within {within_s} s; breaker: {self.breaker.open_state}"
            if not self.is_busy and not self.dispatcher.in_flight and self.breaker.open_state is None:
                self.now = max(self.now, min(waiting[0][0] for waiting in self._retries.values() if waiting) / 1_000)
            self.step(step_s)

    def settle(self, within_s: float = 600.0) -> None:
        """Run until every contact has its outcome or waits in a retry topic."""
        self.run_until(lambda: not self.is_busy, within_s)

    @property
    def is_busy(self) -> bool:
        return self.ledger.uncommitted > 0

    # --- what has come out

    @property
    def outcomes(self) -> list[Outcome]:
        """Scores and rejections, also those that are not committed yet."""
        finished = [outcome for owned in self.ledger._assigned.values() for outcome in owned.finished.values()]
        return [one for one in (*self.published, *finished) if not isinstance(one, Deferred)]

    @property
    def deferrals(self) -> list[Deferred]:
        return [one for one in self.published if isinstance(one, Deferred)]

    @property
    def results(self) -> dict[str, str]:
        """By contact id: ``scored``, or why not."""
        return {
            outcome.contact_id if isinstance(outcome, Rejected) else outcome.contact.contact_id: outcome.reasons[0]
            if isinstance(outcome, Rejected)
            else "scored"
            for outcome in self.outcomes
            if not isinstance(outcome, Deferred)
        }

    @property
    def asked(self) -> Counter[str]:
        return Counter(name for sent in self.sent for name in sent.names)

    def times(self) -> list[float]:
        """When requests were sent, in seconds since the first, rounded to a step."""
        return [round(sent.at - self.sent[0].at, 2) for sent in self.sent]

    def probes(self) -> list[Sent]:
        opened = self.observed.opened
        return [sent for sent in self.sent if opened and sent.at >= opened[0].since]


def numbered(amount: int, prefix: str = "c") -> list[str]:
    assert re.fullmatch(r"[a-z]+", prefix)
    return [f"{prefix}{number}" for number in range(amount)]
