"""Harness of the deliverer: an in-memory broker, a scripted campaign manager, and a simulated clock.

Everything else is the real code: loop, ledger, committer, dispatcher, intake, encoder. It runs in one thread, so runs
with the same choices are identical.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memory_metrics import MemoryMetrics

from stream_scorer.callbacks.deliverer import Deliverer
from stream_scorer.callbacks.dispatcher import Dispatcher
from stream_scorer.callbacks.intake import CallbackIntake
from stream_scorer.callbacks.observer import DelivererObserver
from stream_scorer.callbacks.output_records import CallbackEncoder, CallbackTopics
from stream_scorer.callbacks.receipt_writer import ReceiptWriter
from stream_scorer.callbacks.sender import Sender
from stream_scorer.callbacks.trace_headers import Untraced
from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.callbacks.circuit_breaker import CircuitBreakers
from stream_scorer.core.callbacks.records import callback_value, read_callback, threshold_headers
from stream_scorer.core.callbacks.retry_policy import Delivery, DeliveryOutcome, DeliveryRules
from stream_scorer.core.callbacks.types import Callback, DeliveryAnswer, DeliveryKind
from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
from stream_scorer.core.records import Partition, SourceRecord
from stream_scorer.kafka.consumer.flow_control import FlowControl
from stream_scorer.kafka.consumer.paused_retry_partitions import PausedRetryPartitions
from stream_scorer.kafka.producer.committer import Committer
from stream_scorer.kafka.producer.records import Committed, Failed
from stream_scorer.kafka.registry.paused_schema_partitions import PausedSchemaPartitions
from stream_scorer.kafka.registry.serde import SingleObjectSerde
from stream_scorer.runtime.clock import Clock
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from confluent_kafka import TopicPartition

    from stream_scorer.kafka.consumer.group_consumer import RebalanceListener
    from stream_scorer.kafka.producer.records import OutRecord, Publication
    from stream_scorer.kafka.registry.paused_schema_partitions import SchemaLookup

CALLBACKS = Codec.single_object(load_schema(SchemaFile.CAMPAIGN_CALLBACK))
RECEIPTS = Codec.single_object(load_schema(SchemaFile.CALLBACK_RECEIPT))
PARTITIONS = 2
START_MS = 1_800_000_000_000
RETRY_TOPICS = ("retry-1", "retry-2", "retry-3")
DELAYS_S = (10.0, 30.0, 90.0)
MAX_BYTES = dict.fromkeys(("callbacks", *RETRY_TOPICS, "rejected", "receipts"), 1_000_000)


def callback(name: str, campaign_id: str | None = "spring", **changes: Any) -> Callback:
    made = Callback(
        callback_id=name,
        campaign_id=campaign_id,
        target="t",
        body=f"body of {name}".encode(),
        sources=(f"scores/0/{name}",),
        event_ids=("e",),
        contact_ids=("c",),
        planned_at_ms=START_MS,
        attempts=0,
        not_before_ms=START_MS,
    )
    return replace(made, **changes)


def delivered(latency_ms: float = 50.0) -> DeliveryAnswer:
    return DeliveryAnswer(DeliveryKind.DELIVERED, "HTTP 200", 200, latency_ms)


def refused() -> DeliveryAnswer:
    return DeliveryAnswer(DeliveryKind.REFUSED, "HTTP 400", 400, 50.0)


def later(retry_after_s: float | None = None, latency_ms: float = 50.0) -> DeliveryAnswer:
    return DeliveryAnswer(DeliveryKind.TRY_LATER, "HTTP 503", 503, latency_ms, retry_after_s)


def gone() -> DeliveryAnswer:
    return DeliveryAnswer(DeliveryKind.SWITCHED_OFF, "HTTP 410", 410, 50.0, remedy="end the campaign")


class StopError(Exception):
    """The process is killed."""


@dataclass
class Attempt:
    """One request as received by the campaign manager."""

    at_s: float
    callback: Callback


class SimulatedReceivers:
    """The broker's logs, the time, and the campaign manager.

    Args:
        answer: the response of the campaign manager to an attempt.
    """

    def __init__(self, answer: Callable[[SimulatedReceivers, Callback], DeliveryAnswer]) -> None:
        self.now = 1_000.0
        self.answer = answer
        self.logs: dict[Partition, list[SourceRecord]] = defaultdict(list)
        self.committed: dict[Partition, int] = {}
        self.attempts: list[Attempt] = []
        self.allowance: int | None = None
        self.endings: list[str] = []  # results of the next transactions: ok, lost or stale (nothing committed), unknown
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.records_in_time: int | None = None  # a transaction with more records times out

    @property
    def now_ms(self) -> int:
        return START_MS + round((self.now - 1_000.0) * 1000)

    def write(self, topic: str, key: bytes | None, value: bytes | None, headers: Any = (), number: int = -1) -> None:
        if number < 0:
            number = sum(key or b"") % PARTITIONS
        log = self.logs[Partition(topic, number)]
        log.append(SourceRecord(topic, number, len(log), key, value, list(headers), True, self.now_ms))

    def plan(self, callbacks: Iterable[Callback], topic: str = "callbacks") -> None:
        for one in callbacks:
            self.write(topic, one.callback_id.encode(), CALLBACKS.encode(callback_value(one)), threshold_headers(one))

    def topic(self, name: str) -> list[SourceRecord]:
        return [record for partition, log in self.logs.items() if partition.topic == name for record in log]

    def receipts(self) -> dict[str, list[dict[str, Any]]]:
        found = defaultdict(list)
        for record in self.topic("receipts"):
            receipt = RECEIPTS.decode(record.value)
            found[receipt["callback_id"]].append(receipt)
        return dict(found)

    def outcomes(self) -> dict[str, str]:
        """Return the only outcome of each callback."""
        receipts = self.receipts()
        assert all(len(found) == 1 for found in receipts.values()), "a callback has several receipts"
        return {callback_id: found[0]["outcome"] for callback_id, found in receipts.items()}

    def sent(self) -> Counter[str]:
        return Counter(attempt.callback.callback_id for attempt in self.attempts)

    def last_sent(self, prefix: str) -> float:
        """Return the time of the last request for a callback with this id prefix."""
        return max(attempt.at_s for attempt in self.attempts if attempt.callback.callback_id.startswith(prefix))

    def waiting(self) -> int:
        """Return the records that no transaction has committed yet."""
        return sum(
            len(log) - self.committed.get(partition, 0)
            for partition, log in self.logs.items()
            if partition.topic in ("callbacks", *RETRY_TOPICS)
        )


class FakeSource:
    """A consumer of all partitions."""

    def __init__(self, world: SimulatedReceivers, places: list[Partition]) -> None:
        self._world = world
        self._places = places
        self._listener: RebalanceListener | None = None
        self._at: dict[Partition, int] = {}
        self._paused = False
        self._held: set[Partition] = set()
        self.progress = 0

    def subscribe(self, listener: RebalanceListener) -> None:
        self._listener = listener
        self.assign(self._places)

    def assign(self, places: Iterable[Partition]) -> None:
        assert self._listener is not None
        for place in places:
            self._at[place] = self._world.committed.get(place, 0)
            self._listener.on_assigned(place, start_offset=0, next_offset=self._at[place])
        self._listener.on_rebalance_completed()

    def lose(self, places: Iterable[Partition]) -> None:
        assert self._listener is not None
        lost = [place for place in places if place in self._at]
        self._listener.on_revoked(lost)
        for place in lost:
            del self._at[place]
            self._held.discard(place)

    def revoke(self, places: Iterable[Partition]) -> None:
        assert self._listener is not None
        taken = [place for place in places if place in self._at]
        self._listener.on_revoking(taken)
        self.lose(taken)

    def read(self, max_records: int, wait_s: float) -> list[SourceRecord]:
        found: list[SourceRecord] = []
        for place in sorted(self._at):
            if self._paused or place in self._held:
                continue
            log = self._world.logs[place]
            new = log[self._at[place] : self._at[place] + max_records - len(found)]
            self._at[place] += len(new)
            found += new
        self.progress += len(found)
        if not found:
            self._world.now += wait_s
        return found

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def pause_partition(self, partition: Partition) -> None:
        assert partition in self._at
        self._held.add(partition)

    def resume_from(self, partition: Partition, offset: int) -> bool:
        if partition in self._held:
            self._held.discard(partition)
            self._at[partition] = offset
        return True

    def group_metadata(self) -> str:
        return "generation"

    def check_topics(self, topics: Collection[str]) -> None:
        """Accept: the topics were not recreated."""

    def commit_offset(self, _partition: Partition, next_offset: int) -> int:
        return next_offset

    def commit_metadata(self, _partition: Partition, start_offset: int) -> str:
        return f"start={start_offset}"

    def committed(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {p: self._world.committed[p] for p in partitions if p in self._world.committed}

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {partition: len(self._world.logs[partition]) for partition in partitions}

    def close(self) -> None:
        self.revoke(list(self._at))


class FakeSink:
    """Sink whose transactions write to the in-memory logs."""

    def __init__(self, world: SimulatedReceivers) -> None:
        self._world = world
        self.is_open = False
        self.progress = 0
        self.sizes: list[int] = []  # records of each transaction

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def publish(self, records: list[OutRecord], offsets: list[TopicPartition], group: Any) -> Publication:
        assert self.is_open
        assert group == "generation"
        self.progress += 1
        self.sizes.append(len(records))
        if self._world.records_in_time is not None and len(records) > self._world.records_in_time:
            self.is_open = False
            return Failed("too much for the line", late=True)
        ending = self._world.endings.pop(0) if self._world.endings else "ok"
        if ending not in ("lost", "stale"):
            for record in records:
                self._world.write(record.topic, record.key, record.value, record.headers)
            for place in offsets:
                partition = Partition(place.topic, place.partition)
                assert place.offset > self._world.committed.get(partition, 0), "an offset went back"
                self._world.committed[partition] = place.offset
        if ending == "ok":
            return Committed()
        self.is_open = False
        return Failed(ending, stale=ending == "stale")


class FakePool:
    """Worker pool that passes requests to the simulated campaign manager."""

    def __init__(self, world: SimulatedReceivers) -> None:
        self._world = world
        self._under_way: list[tuple[float, int, Delivery, DeliveryAnswer]] = []
        self._numbers = itertools.count()
        self.most = 0
        self.progress = 0

    def submit(self, delivery: Delivery) -> None:
        world = self._world
        world.attempts.append(Attempt(world.now, delivery.callback))
        answer = world.answer(world, delivery.callback)
        done_at = world.now + answer.latency_ms / 1000
        heapq.heappush(self._under_way, (done_at, next(self._numbers), delivery, answer))
        self.most = max(self.most, len(self._under_way))
        self.progress += 1

    def answers(self, wait_s: float = 0.0) -> list[tuple[Delivery, DeliveryAnswer]]:
        self._world.now += wait_s
        found = []
        while self._under_way and self._under_way[0][0] <= self._world.now:
            _, _, delivery, answer = heapq.heappop(self._under_way)
            found.append((delivery, answer))
        self.progress += len(found)
        return found


class Stopping:
    """Stop event, checked once a round: it advances the clock, faster while nothing happens."""

    def __init__(self, bench: DeliveryHarness) -> None:
        self._bench = bench
        self._seen = 0
        self._step_s = 0.005

    def is_set(self) -> bool:
        return self._bench.next_round()

    def set(self) -> None:
        """The loop has set the event at its end."""

    def wait(self, seconds: float) -> bool:
        self._bench.world.now += seconds
        return False

    def step(self, progress: int) -> float:
        self._step_s = 0.005 if progress != self._seen else min(2 * self._step_s, 0.5)
        self._seen = progress
        return self._step_s


class Log:
    def __init__(self, world: SimulatedReceivers) -> None:
        self._world = world

    def info(self, event: str, **fields: Any) -> None:
        self._world.lines.append((event, fields))

    warning = info


class DeliveryHarness:
    """One life of a deliverer; ``codec`` reads callbacks, ``lookup`` knows the schemas of their writers."""

    def __init__(
        self,
        world: SimulatedReceivers,
        *,
        slots: int = 8,
        max_per_minute: int | None = None,
        max_uncommitted: int = 1_000,
        codec: Codec = CALLBACKS,
        lookup: SchemaLookup | None = None,
    ) -> None:
        self.world = world
        self.places = [Partition(topic, n) for topic in ("callbacks", *RETRY_TOPICS) for n in range(PARTITIONS)]
        clock = Clock(lambda: world.now, lambda: world.now_ms, lambda: 0.5, lambda: "id")
        rules = DeliveryRules(DELAYS_S)
        self.source = FakeSource(world, self.places)
        self.sink = FakeSink(world)
        self.pool = FakePool(world)
        self.ledger: OffsetLedger[DeliveryOutcome] = OffsetLedger()
        self.metrics = MemoryMetrics("callbacks")
        self.observe = DelivererObserver(Log(world), self.metrics, clock, target="t")
        topics = CallbackTopics("callbacks", RETRY_TOPICS, "rejected", "receipts", MAX_BYTES)
        source: Any = self.source
        committer: Committer[DeliveryOutcome] = Committer(
            sink=self.sink,
            group=source,
            ledger=self.ledger,
            max_outcomes=2_000,
            monotonic=clock.monotonic,
            observe=self.observe,
        )
        breakers = CircuitBreakers(5.0, max(DELAYS_S))
        self.dispatcher = Dispatcher(slots, rules, max_per_minute, breakers)
        receipts = ReceiptWriter(
            committer=committer,
            ledger=self.ledger,
            encoder=CallbackEncoder(topics, CALLBACKS, RECEIPTS),
            clock=clock,
            observe=self.observe,
            trace=Untraced(),
            commit_interval_s=0.05,
        )
        sender = Sender(
            dispatcher=self.dispatcher,
            pool=self.pool,
            allowance=lambda: world.allowance,
            breakers=breakers,
            ledger=self.ledger,
            rules=rules,
            clock=clock,
            observe=self.observe,
            trace=Untraced(),
            finish=receipts.finish,
        )
        self._stopping: Any = Stopping(self)
        self._until: Callable[[], bool] = lambda: True
        self._every_round: Callable[[], None] = lambda: None
        self.rounds = 0
        self.deliverer = Deliverer(
            source=source,
            pending_schemas=PausedSchemaPartitions(
                source, self.ledger, lookup or SingleObjectSerde().lookup, self.observe.schemas_pending
            ),
            flow=FlowControl(
                source,
                self.ledger,
                max_records=max_uncommitted,
                max_bytes=128 * 1024 * 1024,
                is_retry=RETRY_TOPICS.__contains__,
            ),
            ledger=self.ledger,
            intake=CallbackIntake(codec, {topic: n for n, topic in enumerate(RETRY_TOPICS, 1)}, rules, world.now_ms),
            retry_partitions=PausedRetryPartitions(source),
            dispatcher=self.dispatcher,
            sender=sender,
            receipts=receipts,
            clock=clock,
            observe=self.observe,
            stopping=self._stopping,
            revoke_wait_s=5.0,
            shutdown_timeout_s=25.0,
        )

    def run(self, until: Callable[[], bool], every_round: Callable[[], None] = lambda: None) -> None:
        """Run until the condition is true, then stop cleanly; StopError of ``every_round`` kills the process."""
        self._until, self._every_round = until, every_round
        self.deliverer.run()

    def kill_when(self, when: Callable[[], bool]) -> None:
        """Run until the condition is true, then kill the process."""

        def look() -> None:
            if when():
                raise StopError

        self.deliverer._finish = lambda _error: None  # type: ignore[method-assign]
        try:
            self.run(lambda: False, look)
        except StopError:
            return

    def run_dry(self) -> None:
        """Run until no callback is pending."""
        self.run(lambda: not self.world.waiting())

    def next_round(self) -> bool:
        self.rounds += 1
        assert self.rounds < 100_000, "this does not come to an end"
        self._every_round()
        self.world.now += self._stopping.step(self.source.progress + self.sink.progress + self.pool.progress)
        return self._until()


def read(record: SourceRecord) -> Callback:
    """Return the callback in a record."""
    return read_callback(CALLBACKS, record)
