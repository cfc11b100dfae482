"""End offsets of partitions as seen by the consumer, on a real broker."""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from scoring_harness import wait_until

from stream_scorer.core.records import Partition
from stream_scorer.kafka.client.config import admin_config, consumer_config, silent_logger
from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
from stream_scorer.kafka.consumer.latest_offsets import LatestOffsets
from stream_scorer.settings import Settings
from stream_scorer.settings.sections import KafkaSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka_fixture import Broker


class Owner:
    """Rebalance listener without an offset ledger; it records the broker errors."""

    def __init__(self) -> None:
        self.cut_off_by: list[str] = []

    def on_assigned(self, partition: Partition, *, start_offset: int, next_offset: int) -> None:
        """Ignore."""

    def on_revoking(self, partitions: list[Partition]) -> None:
        """Ignore."""

    def on_revoked(self, partitions: list[Partition]) -> None:
        """Ignore."""

    def on_rebalance_completed(self) -> None:
        """Ignore."""

    def on_disconnected(self, reason: str) -> None:
        """Record the error."""
        self.cut_off_by.append(reason)


def write(producer: Producer, topic: str, values: list[bytes], *, end: Callable[[], None]) -> None:
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value)
    producer.flush()
    end()


def test_aborted_records_and_markers_are_not_lag(broker: Broker) -> None:
    """A killed producer leaves the aborted records of its transaction, which a quiet topic keeps."""
    topic = f"ends-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic})
    producer.init_transactions()
    write(producer, topic, [b"a", b"b"], end=producer.commit_transaction)
    write(producer, topic, [b"gone"] * 200, end=producer.abort_transaction)
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, group_id=topic)
    source = GroupConsumer(consumer_config(Settings(kafka=kafka)), [topic], wait=lambda _: True)
    here = Partition(topic, 0)
    source.subscribe(Owner())
    try:
        read: list[bytes | None] = []

        def until(end: int) -> None:
            for _ in range(600):
                read.extend(record.value for record in source.read(100, 0.05))
                if source.end_offsets([here]).get(here) == end:
                    return
            raise AssertionError(f"the end is {source.end_offsets([here])}, {len(read)} records were read")

        until(2)
        write(producer, topic, [b"c"], end=producer.commit_transaction)
        behind_c = 2 + 1 + 200 + 1 + 1
        until(behind_c)
        assert read == [b"a", b"b", b"c"]
        producer.begin_transaction()
        producer.produce(topic, b"open")
        producer.flush()
        until(behind_c + 2)  # the transaction is still open; and the marker before it
        producer.abort_transaction()
        until(behind_c)
        assert read == [b"a", b"b", b"c"]
    finally:
        source.close()


def test_the_end_offset_advances_while_reading_is_paused(broker: Broker) -> None:
    """A paused partition is not fetched, so the client does not receive its new end offsets."""
    topic = f"ends-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers, group_id=topic))
    now = [0.0]
    latest = LatestOffsets(admin_config(settings, logger=silent_logger()), lambda: now[0])
    source = GroupConsumer(consumer_config(settings), [topic], wait=lambda _: True, latest=latest)
    here = Partition(topic, 0)

    def write_one() -> None:
        producer.produce(topic, b"x")
        assert producer.flush(30) == 0

    def is_end(end: int) -> bool:
        source.read(100, 0.05)
        return source.end_offsets([here]).get(here) == end

    source.subscribe(Owner())
    try:
        write_one()
        wait_until(lambda: is_end(1), "the first record")
        source.pause()
        write_one()
        wait_until(lambda: is_end(2), "the end with the second record")
        write_one()
        now[0] = 15.0
        wait_until(lambda: is_end(3), "the end with the third record")
        source.resume()
        read: list[int] = []
        wait_until(
            lambda: [read.extend(record.offset for record in source.read(100, 0.05)), read == [1, 2]][1],
            "the records that were written while reading was paused",
        )
        assert is_end(3)
    finally:
        source.close()


def test_a_paused_partition_resumes_at_its_offset_without_gap_or_repeat(broker: Broker) -> None:
    """Records after the offset, read before or fetched between resume and seek, are discarded."""
    topic, amount = f"pauses-{uuid.uuid4().hex[:8]}", 20_000
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 3, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "queue.buffering.max.messages": 100_000})
    for number in range(3):
        for _ in range(amount):
            producer.produce(topic, b"x" * 100, partition=number)
    assert producer.flush(60) == 0
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, group_id=topic)
    source = GroupConsumer(consumer_config(Settings(kafka=kafka)), [topic], wait=lambda _: True)
    source.subscribe(Owner())
    chance = random.Random(7)  # noqa: S311 - the same pauses in every run
    paused: dict[Partition, int] = {}
    next_offsets = [0, 0, 0]

    def read_on() -> bool:
        for partition, offset in list(paused.items()):
            if (chance.random() < 0.2 or len(paused) == 3) and source.resume_from(partition, offset):
                del paused[partition]
        for record in source.read(1_000, 0.02):
            partition = Partition(record.topic, record.partition)
            if partition in paused:
                continue
            assert record.offset == next_offsets[record.partition], "a gap, or a repeated record"
            if chance.random() < 0.001:
                paused[partition] = record.offset
                source.pause_partition(partition)
            else:
                next_offsets[record.partition] += 1
        return next_offsets == [amount] * 3

    try:
        wait_until(read_on, "all records", 60.0)
    finally:
        source.close()


def test_unreachable_brokers_are_named() -> None:
    """Otherwise the worker would only report that it waits for its group."""
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1", group_id="unused", properties={"log_level": 0})
    source, owner = GroupConsumer(consumer_config(Settings(kafka=kafka)), ["any"], wait=lambda _: True), Owner()
    source.subscribe(owner)
    wait_until(lambda: source.read(10, 0.1) == [] and owner.cut_off_by, "the client to give up on all brokers")
    source.close()
    assert "127.0.0.1:1" in owner.cut_off_by[0]
    assert "Connection refused" in owner.cut_off_by[0]
