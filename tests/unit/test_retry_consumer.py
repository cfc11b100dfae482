"""Retry partitions of a worker: those of its input partitions, after every rebalance."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from stream_scorer.core.records import Partition
from stream_scorer.kafka.consumer import group_consumer, retry_consumer
from stream_scorer.kafka.consumer.group_consumer import GroupConsumer

COUNTS = {"in": 2, "retry-1": 2, "retry-2": 5}


class Client:
    """A consumer without a broker; the commit of every partition is its number."""

    counts = COUNTS
    away = False

    def __init__(self, _config: dict[str, Any]) -> None:
        self.callbacks: dict[str, Any] = {}
        self.positions: dict[Partition, int] = {}
        self.paused: set[Partition] = set()
        self.messages: list[Any] = []

    def subscribe(self, _topics: list[str], **callbacks: Any) -> None:
        self.callbacks = callbacks

    def list_topics(self, topic: str, _timeout_s: float) -> Any:
        if self.away:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        count = self.counts.get(topic)
        error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if count is None else None
        return SimpleNamespace(
            topics={topic: SimpleNamespace(error=error, partitions=dict.fromkeys(range(count or 0)))}
        )

    def committed(self, partitions: list[TopicPartition], _timeout_s: float) -> list[TopicPartition]:
        return [TopicPartition(p.topic, p.partition, p.partition, "start=0") for p in partitions]

    def get_watermark_offsets(self, _partition: TopicPartition, *_: Any, **__: Any) -> tuple[int, int]:
        return 0, 100

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.positions |= {Partition(p.topic, p.partition): p.offset for p in partitions}

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        for p in partitions:
            del self.positions[Partition(p.topic, p.partition)]

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(*partition) for partition in self.positions]

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.paused |= {Partition(p.topic, p.partition) for p in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.paused -= {Partition(p.topic, p.partition) for p in partitions}

    def seek(self, partition: TopicPartition) -> None:
        self.positions[Partition(partition.topic, partition.partition)] = partition.offset

    def consume(self, most: int, _wait_s: float) -> list[Any]:
        given, self.messages = self.messages[:most], self.messages[most:]
        return given

    def close(self) -> None:
        """Ignore."""


class Owner:
    def __init__(self) -> None:
        self.owns: dict[Partition, int] = {}
        self.reported: list[str] = []

    def on_assigned(self, partition: Partition, *, start_offset: int, next_offset: int) -> None:
        assert start_offset == 0
        self.owns[partition] = next_offset

    def on_revoking(self, partitions: list[Partition]) -> None:
        self.reported.append("revoking")
        assert all(partition in self.owns for partition in partitions)

    def on_revoked(self, partitions: list[Partition]) -> None:
        self.reported.append("disowned")
        for partition in partitions:
            del self.owns[partition]

    def on_rebalance_completed(self) -> None:
        self.reported.append("settled")

    def on_disconnected(self, reason: str) -> None:
        raise AssertionError(reason)


class Group:
    """A source whose partitions are assigned and revoked by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(group_consumer, "Consumer", Client)
        monkeypatch.setattr(retry_consumer, "Consumer", Client)
        monkeypatch.setattr(group_consumer.time, "monotonic", lambda: self.now)
        self.source = GroupConsumer({"group.id": "g"}, ["in"], lambda _: False, retry_topics=["retry-1", "retry-2"])
        self.owner = Owner()
        self.source.subscribe(self.owner)
        self.input: Any = self.source._consumer
        assert self.source._retries is not None
        self.retries: Any = self.source._retries.client

    def assign(self, *numbers: int) -> None:
        self.input.callbacks["on_assign"](self.input, [TopicPartition("in", number) for number in numbers])

    def revoke(self, *numbers: int, how: str = "on_revoke") -> None:
        self.input.callbacks[how](self.input, [TopicPartition("in", number) for number in numbers])

    @property
    def read(self) -> list[str]:
        """Return the retry partitions that are read, which equal those of the owner."""
        here = sorted(self.retries.positions)
        assert here == sorted(partition for partition in self.owner.owns if partition.topic != "in")
        return [f"{topic}/{number}" for topic, number in here]


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    return Group(monkeypatch)


def test_retry_partitions_go_with_the_input_partition_of_their_number_modulo(group: Group) -> None:
    group.assign(1)
    assert group.read == ["retry-1/1", "retry-2/1", "retry-2/3"]
    group.assign(0)
    assert group.read == ["retry-1/0", "retry-1/1", *(f"retry-2/{number}" for number in range(5))]
    assert group.retries.positions[Partition("retry-2", 3)] == 3, "from the commit"
    group.assign()
    assert group.owner.reported == ["settled"] * 3


def test_no_two_workers_read_the_same_retry_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Group(monkeypatch), Group(monkeypatch)
    one.assign(0)
    other.assign(1)
    assert not set(one.read) & set(other.read)
    assert len(one.read) + len(other.read) == 7


@pytest.mark.parametrize("how", ["on_revoke", "on_lost"])
def test_retry_partitions_go_with_a_partition_that_is_taken_away(group: Group, how: str) -> None:
    group.assign(0, 1)
    group.owner.reported.clear()
    group.revoke(0, how=how)
    assert group.read == ["retry-1/1", "retry-2/1", "retry-2/3"]
    assert group.owner.reported == (["revoking", "disowned"] if how == "on_revoke" else ["disowned"])


def test_a_worker_without_partitions_reads_no_retry_partition(group: Group) -> None:
    group.assign()
    assert group.read == []
    assert group.owner.reported == ["settled"]


def test_paused_partitions_stay_paused_when_a_retry_partition_is_added(group: Group) -> None:
    group.source.pause()
    group.assign(1)
    assert Partition("retry-1", 1) in group.retries.paused
    group.source.resume()
    assert group.retries.paused == set()


def test_a_retry_partition_is_paused_and_resumed_at_its_head(group: Group) -> None:
    group.assign(1)
    head = Partition("retry-1", 1)
    group.source.pause_partition(head)
    group.source.pause()
    group.source.resume()
    assert group.retries.paused == {head}
    assert group.source.resume_from(head, 7)
    assert group.retries.paused == set()
    assert group.retries.positions[head] == 7


def test_a_seek_follows_the_resume_since_only_a_seek_begins_to_fetch(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    group.assign(1)
    head = Partition("retry-1", 1)
    group.source.pause_partition(head)
    paused_at_seek: list[set[Partition]] = []
    monkeypatch.setattr(group.retries, "seek", lambda _: paused_at_seek.append(set(group.retries.paused)))
    assert group.source.resume_from(head, 7)
    assert paused_at_seek == [set()]


def test_a_partition_without_a_seek_stays_paused(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: TopicPartition) -> None:
        raise KafkaException(KafkaError(KafkaError._STATE))

    group.assign(1)
    head = Partition("retry-1", 1)
    group.source.pause_partition(head)
    with monkeypatch.context() as patch:
        patch.setattr(group.retries, "seek", fail)
        assert not group.source.resume_from(head, 7)
    assert group.retries.paused == {head}
    assert group.source.resume_from(head, 7)
    assert group.retries.positions[head] == 7


def test_partitions_that_are_added_are_found_without_a_rebalance(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    group.assign(1)
    monkeypatch.setattr(Client, "counts", {**COUNTS, "retry-2": 6})
    group.source.read(1, 0.0)
    assert "retry-2/5" not in group.read
    group.now += 60
    group.source.read(1, 0.0)
    assert "retry-2/5" in group.read


def test_a_broker_that_does_not_answer_changes_nothing(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    group.assign(1)
    before = group.read
    monkeypatch.setattr(Client, "away", True)
    group.now += 60
    group.source.read(1, 0.0)
    assert group.read == before


def test_a_retry_topic_that_is_missing_is_not_read_and_others_are(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "counts", {"in": 2, "retry-1": 2})
    group.assign(1)
    assert group.read == ["retry-1/1"]
