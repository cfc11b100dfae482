"""Start of a renamed delivery group: at the first pending callback, after all finished ones."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support_targets import settings

from stream_scorer.core.callbacks.delivery_start import CallbackPart, CallbackRecord, RetryStarts
from stream_scorer.errors import BrokerRefused
from stream_scorer.kafka.consumer import delivery_start as module
from stream_scorer.kafka.consumer.log_reader import OffsetRange

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from stream_scorer.kafka.consumer.initial_offsets import InitialOffsets


def record(level: int, offset: int, key: str, written_ms: int) -> CallbackRecord:
    return CallbackRecord(f"retry-{level}", 0, offset, key.encode(), written_ms)


def starts_of(
    records: Sequence[CallbackRecord], finished: Collection[str] = (), planned: Collection[str] = ()
) -> RetryStarts:
    starts = RetryStarts()
    part = CallbackPart(starts)
    for number, key in enumerate(planned):
        part.add_planned(record(0, number, key, 0))
    for one in records:
        part.add_retry(one)
    for number, key in enumerate(finished):
        part.add_receipt(record(0, number, key, 0))
    part.end()
    return starts


def test_a_pending_callback_is_its_last_record_without_a_receipt() -> None:
    records = [
        record(1, 0, "done", 10),
        record(1, 1, "moved", 20),
        record(2, 0, "done", 30),
        record(2, 1, "moved", 40),
        record(1, 2, "new", 50),
    ]
    for order in (records, records[::-1]):
        found = starts_of(order, {"done"}, planned=["moved", "new", "done", "untouched"])
        assert found.first_waiting == {("retry-1", 0): 2, ("retry-2", 0): 1}
        assert found.repeated == 3
        assert found.repeated_partitions == 0


def test_a_callback_moved_back_to_the_first_retry_topic_is_pending_there() -> None:
    found = starts_of([record(1, 0, "a", 10), record(2, 0, "a", 20), record(1, 1, "a", 30)])
    assert found.first_waiting == {("retry-1", 0): 1}


def test_finished_callbacks_after_the_start_offset_are_counted_as_repeats() -> None:
    found = starts_of([record(1, 0, "lost receipt", 10), record(1, 1, "done", 20)], {"done"})
    assert found.repeated_partitions == 1


def test_without_waiting_callbacks_there_is_no_start() -> None:
    assert starts_of([record(1, 0, "done", 10)], {"done"}).first_waiting == {}


def test_halves_of_a_callback_have_the_keys_of_the_whole() -> None:
    records = [record(1, number, f"callback-{number}", 10) for number in range(100)]
    starts = RetryStarts()
    parts = [half for part in CallbackPart(starts).halves() for half in part.halves()]
    for part in parts:
        for one in records:
            part.add_retry(one)
        assert 10 < len(part) < 40
    assert sum(map(len, parts)) == 100


# --- the log


@dataclass
class Log:
    """Records of one partition of each topic, in place of a broker."""

    records: dict[str, Callable[[], Iterable[tuple[str, int]]]] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)
    groups: Collection[str] = ()

    def __call__(self, *_: Any, **__: Any) -> Log:
        return self

    def stable_ranges(self, topic: str, _partitions: int) -> dict[int, OffsetRange]:
        return {0: OffsetRange(7, self.ends.get(topic, 1_000_000))}

    def read(self, topic: str, _ranges: Any) -> Iterator[list[Any]]:
        self.reads.append(topic)
        headers = [(module.ROUNDS_HEADER, b"1"), (module.THRESHOLD_HEADER, b"0.75")]
        for offset, (key, written_ms) in enumerate(self.records.get(topic, list)(), 10):
            yield [
                SimpleNamespace(partition=0, offset=offset, key=key.encode(), timestamp_ms=written_ms, headers=headers)
            ]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(module, "LogReader", log)
    monkeypatch.setattr(module, "check_topics", lambda _, topics: dict.fromkeys(topics, 1))
    monkeypatch.setattr(module, "has_commits", lambda _, group_id, __: group_id in log.groups)
    return log


def start(start_from: str = "latest") -> InitialOffsets:
    chosen = settings()
    chosen = chosen.model_copy(update={"kafka": chosen.kafka.model_copy(update={"start_from": start_from})})
    return module.delivery_start(chosen, ["retry-1", "retry-2"])


def many(number: int, prefix: str = "callback") -> Callable[[], Iterator[tuple[str, int]]]:
    return lambda: ((f"{prefix}-{one:027}", one) for one in range(number))


TOPICS = settings().topics


def test_retry_partitions_without_waiting_callbacks_start_at_the_end_that_was_examined(log: Log) -> None:
    log.records = {TOPICS.receipts: many(3), "retry-1": lambda: [("waits", 5)]}
    log.ends = {"retry-2": 40}
    assert start().retry_offsets == {("retry-1", 0): 10, ("retry-2", 0): 40}


def test_without_any_record_of_a_deliverer_retry_partitions_start_at_the_begin(log: Log) -> None:
    log.records = {TOPICS.callbacks: many(3)}
    log.groups = {settings().callbacks_group_id}
    assert start("earliest").retry_offsets == {("retry-1", 0): 7, ("retry-2", 0): 7}


@pytest.mark.parametrize("receipts", [0, 10])
def test_a_new_planner_does_not_plan_pending_callbacks_again(log: Log, receipts: int) -> None:
    log.records = {TOPICS.receipts: many(receipts), TOPICS.callbacks: many(20, "planned")}
    with pytest.raises(BrokerRefused, match="and 20 callbacks from its start on are not delivered yet"):
        start("earliest")
    start("latest")
    log.groups = {settings().callbacks_group_id}
    start("earliest")


def test_memory_does_not_grow_with_the_receipts(log: Log) -> None:
    log.records = {TOPICS.receipts: many(300_000), "retry-1": many(1000)}
    tracemalloc.start()
    try:
        start()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


def test_more_callbacks_than_fit_into_memory_are_read_in_parts(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CALLBACKS", 100)
    log.records = {TOPICS.receipts: many(800), "retry-1": many(1000), TOPICS.callbacks: many(500, "planned")}
    log.groups = {settings().callbacks_group_id}
    assert start("earliest").retry_offsets == {("retry-1", 0): 810, ("retry-2", 0): 1_000_000}
    assert log.reads.count(TOPICS.receipts) > 10


@pytest.mark.parametrize(("limit", "number"), [(100_000, "and 40 callbacks"), (10, "and at least ")])
def test_repeats_are_counted(log: Log, monkeypatch: pytest.MonkeyPatch, limit: int, number: str) -> None:
    monkeypatch.setattr(module, "MAX_CALLBACKS", limit)
    log.records = {TOPICS.receipts: many(40), TOPICS.callbacks: many(60)}
    with pytest.raises(BrokerRefused, match=number):
        start("earliest")
    start("latest")


def test_a_finished_callback_behind_one_that_waits_is_refused(log: Log) -> None:
    log.records = {TOPICS.receipts: lambda: [("done", 0)], "retry-1": lambda: [("waits", 1), ("done", 2)]}
    with pytest.raises(BrokerRefused, match="at least 1 callbacks"):
        start()
