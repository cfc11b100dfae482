"""Harness for the dispatcher: simulated time, an API that is a function, the real ledger, batcher and quota."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from support_core import TOPIC, answered, contact, ids, policy, record, server_error

from stream_scorer.clock import Clock
from stream_scorer.core.batcher import Batcher
from stream_scorer.core.events import Partition, Rejected
from stream_scorer.core.ledger import Ledger
from stream_scorer.genesys.quota import Quota
from stream_scorer.genesys.wire import body_overhead
from stream_scorer.scoring.circuit_breaker import BreakerState, CircuitBreaker
from stream_scorer.scoring.dispatcher import RequestDispatcher
from stream_scorer.scoring.ports import Untraced
from stream_scorer.scoring.wait_reasons import WaitReason, WaitTimer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stream_scorer.core.events import Answer, Contact, Outcome, SourceRecord
    from stream_scorer.core.request import Request
    from stream_scorer.scoring.observing import Observer

STEP_S = 0.05


def ok(request: Request) -> Answer:
    return answered(names(request))


def names(request: Request) -> list[str]:
    return [one.contact_id for one in request.contacts]


def scripted(*answers: Answer, then: Callable[[Request], Answer] = ok) -> Callable[[Request], Answer]:
    """First these answers, then those of a healthy API."""
    left: Iterator[Answer] = iter(answers)
    return lambda request: next(left, None) or then(request)


def always(answer: Answer) -> Callable[[Request], Answer]:
    return lambda _: answer


def poisoned(*bad: str, answer: Answer | None = None) -> Callable[[Request], Answer]:
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
    """Asks ``world.api`` when a request is sent, and hands the answer out after ``world.latency_s``."""

    def __init__(self, world: World, size: int) -> None:
        self.size = size
        self._world = world
        self._under_way: list[tuple[float, Request, Answer]] = []

    def submit(self, request: Request) -> None:
        world = self._world
        assert len(self._under_way) < self.size, "more at once than there are slots"
        asked = [one.record for _, other, _ in self._under_way for one in other.contacts]
        assert not any(one.record in asked for one in request.contacts), "a record asked about twice at once"
        assert len(set(names(request))) == len(request.contacts)
        answer = world.api(request)
        world.sent.append(Sent(world.now, request))
        self._under_way.append((world.now + world.latency_s, request, answer))

    def answers(self, wait_s: float = 0.0) -> list[tuple[Request, Answer]]:
        assert wait_s >= 0
        arrived = [(request, answer) for at, request, answer in self._under_way if at <= self._world.now]
        self._under_way = [one for one in self._under_way if one[0] > self._world.now]
        return arrived


class Observed:
    def __init__(self) -> None:
        self.holds: list[BreakerState | None] = []
        self.unknown = 0
        self.wait: WaitReason | None = None

    def response_received(self, request: Request, answer: Answer, trace_id: str | None) -> None:
        pass

    def breaker_changed(self, _before: BreakerState | None, hold: BreakerState | None) -> None:
        self.holds.append(hold)

    def wait_observed(self, reason: WaitReason | None) -> None:
        self.wait = reason

    def unmatched_results(self, amount: int) -> None:
        self.unknown += amount


class World:
    def __init__(
        self,
        api: Callable[[Request], Answer] = ok,
        *,
        slots: int = 8,
        requests_per_minute: int = 300,
        max_contacts: int = 1_000,
        latency_s: float = 0.1,
        max_contacts_per_minute: int | None = None,
        **changes: Any,
    ) -> None:
        self.api = api
        self.latency_s = latency_s
        self.now = 1_000.0
        self.sent: list[Sent] = []
        self.observed = Observed()
        self.ledger = Ledger()
        self.batcher = Batcher(
            max_contacts=max_contacts, max_body_bytes=512_000, overhead_bytes=body_overhead, linger_s=0.2
        )
        self.quota = Quota(requests_per_minute)
        self.waits = WaitTimer()
        self.breaker = CircuitBreaker(10.0, on_change=self.observed.breaker_changed)
        self.dispatcher = RequestDispatcher(
            pool=Pool(self, slots),
            batcher=self.batcher,
            ledger=self.ledger,
            quota=self.quota,
            breaker=self.breaker,
            policy=policy(**changes),
            clock=Clock(lambda: self.now, lambda: int(self.now * 1_000), lambda: 0.5, ids("batch")),
            observe=cast("Observer", self.observed),
            trace=Untraced(),
            max_contacts_per_minute=max_contacts_per_minute,
        )
        self.topic: dict[int, list[SourceRecord]] = {}
        self.position: dict[int, int] = {}
        self.made: dict[tuple[int, int], Contact] = {}
        self.own(0)

    # --- what the worker does

    def own(self, partition: int) -> None:
        self.ledger.own(Partition(TOPIC, partition), start_offset=0, next_offset=0)
        self.position[partition] = 0
        self.topic.setdefault(partition, [])

    def disown(self, partition: int) -> None:
        one = Partition(TOPIC, partition)
        self.ledger.disown(one, self.dispatcher.asked_records(one))
        self.batcher.drop(lambda contact: not self.ledger.is_pending(contact.record))
        del self.position[partition]

    def produce(self, wanted: Iterable[str], partition: int = 0, **more: Any) -> list[SourceRecord]:
        """Puts contacts on the topic."""
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
                self.batcher.add(self.made[one.partition, one.offset], self.now)

    def feed(self, wanted: Iterable[str], partition: int = 0, **more: Any) -> list[SourceRecord]:
        """Puts contacts on the topic and reads them."""
        produced = self.produce(wanted, partition, **more)
        self.read(partition)
        return produced

    def step(self, seconds: float = STEP_S) -> None:
        self.dispatcher.send()
        self.dispatcher.poll_timers()
        self.waits.observe(self.observed.wait, self.now)
        self.dispatcher.handle_responses()
        self.now += seconds

    def run(self, seconds: float, step_s: float = STEP_S) -> None:
        end = self.now + seconds
        while self.now < end:
            self.step(step_s)

    def run_until(self, done: Callable[[], bool], within_s: float = 600.0) -> None:
        end = self.now + within_s
        while not done():
            assert self.now < end, f"not within {within_s} s; breaker: {self.breaker.open_state}"
            self.step()

    def finish(self, within_s: float = 600.0) -> None:
        self.run_until(lambda: not any(self.ledger.has_pending([one]) for one in self.ledger.partitions), within_s)

    # --- what has come of it

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for owned in self.ledger._owned.values() for outcome in owned.finished.values()]

    @property
    def results(self) -> dict[str, str]:
        """By contact id: ``scored``, or why not."""
        return {
            outcome.contact_id if isinstance(outcome, Rejected) else outcome.contact.contact_id: outcome.reasons[0]
            if isinstance(outcome, Rejected)
            else "scored"
            for outcome in self.outcomes
        }

    @property
    def asked(self) -> Counter[str]:
        return Counter(name for sent in self.sent for name in sent.names)

    def times(self) -> list[float]:
        """When requests went out, in seconds since the first, rounded to a step."""
        return [round(sent.at - self.sent[0].at, 2) for sent in self.sent]

    def probes(self) -> list[Sent]:
        hold = next(hold for hold in self.observed.holds if hold is not None)
        return [sent for sent in self.sent if sent.at >= hold.since]


def numbered(amount: int, prefix: str = "c") -> list[str]:
    assert re.fullmatch(r"[a-z]+", prefix)
    return [f"{prefix}{number}" for number in range(amount)]
