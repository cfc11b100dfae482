"""Scan of a topic on a real broker: bounds, order, transactions."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from scoring_harness import wait_until

from stream_scorer.core.desk.record_filter import parse_filter
from stream_scorer.desk.topic_scan import TopicScan
from stream_scorer.errors import BrokerRefused, UsageError
from stream_scorer.kafka.consumer import log_reader
from stream_scorer.local.kafka.process import free_port
from stream_scorer.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka_fixture import Broker

    from stream_scorer.kafka.consumer.log_reader import OffsetRange
    from stream_scorer.local.kafka.broker import EmbeddedKafka

pytestmark = pytest.mark.kafka

START_MS = 1_900_000_000_000
NOW_MS = START_MS + 3_600_000
HOUR_MS = 3_600_000


class Topic:
    """A topic with two partitions: record n of a partition has the value n, and a timestamp of n minutes."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.name = f"scan-{uuid.uuid4().hex[:12]}"
        self.settings = Settings.model_validate({"kafka": {"bootstrap_servers": servers}})
        self._admin = AdminClient({"bootstrap.servers": servers})
        self.create()

    def create(self) -> None:
        # The timestamps are in the future, which brokers reject by default.
        wanted = NewTopic(self.name, 2, 1, config={"message.timestamp.after.max.ms": str(2**62)})
        # Until a deletion has reached the broker, the topic exists.
        wait_until(lambda: self._admin.create_topics([wanted])[self.name].exception(30) is None, "the new topic")

    def delete(self) -> None:
        self._admin.delete_topics([self.name], operation_timeout=30)[self.name].result(30)

    def put(self, numbers: range, partition: int = 0, producer: Producer | None = None) -> None:
        client = producer or Producer({"bootstrap.servers": self.servers, "linger.ms": 0})
        for number in numbers:
            headers: Any = [("n", b"%d" % number)]
            client.produce(
                self.name,
                b"%d" % number,
                b"key",
                partition=partition,
                timestamp=START_MS + number * 60_000,
                headers=headers,
            )
        assert client.flush(30) == 0

    def scan(self, **options: Any) -> TopicScan:
        return TopicScan(self.settings, self.name, parse_filter(now_ms=NOW_MS, **options))

    def read(self, **options: Any) -> list[tuple[int, int]]:
        """Partition and number of the records, as they come."""
        return [(one.partition, int(one.value or b"-1")) for one in self.scan(**options).records()]

    def ranges(self, **options: Any) -> dict[int, OffsetRange]:
        return self.scan(**options).selected_ranges()


@pytest.fixture(scope="module")
def topic(broker: Broker) -> Topic:
    """Numbers 0 to 99 in partition 0, and 0 to 9 in partition 1."""
    made = Topic(broker.bootstrap_servers)
    made.put(range(100))
    made.put(range(10), partition=1)
    return made


def test_all_records_in_the_order_of_each_partition(topic: Topic) -> None:
    records = topic.read()
    assert [number for partition, number in records if partition == 0] == list(range(100))
    assert [number for partition, number in records if partition == 1] == list(range(10))
    [first] = topic.scan(places=[f"{topic.name}/1/3"]).records()
    assert first[:6] == (topic.name, 1, 3, b"key", b"3", [("n", b"3")])
    assert first.timestamp_ms == START_MS + 180_000
    assert first.headers_readable


def test_bounds_by_offset_and_partition(topic: Topic) -> None:
    assert topic.read(since="98") == [(0, 98), (0, 99)]
    assert sorted(topic.read(until="1")) == [(0, 0), (1, 0)]
    assert topic.read(partition=1, since="5", until="7") == [(1, 5), (1, 6)]
    assert topic.read(since="1000") == []
    assert topic.ranges(since="50", until="60")[0] == (50, 60)


def test_bounds_by_time_seek(topic: Topic) -> None:
    assert topic.read(since="5m")[0] == (0, 55)
    assert len(topic.read(since="5m")) == 45
    assert topic.ranges(since="5m") == {0: (55, 100), 1: (10, 10)}
    assert topic.read(since="2m", until="1m") == [(0, 58)]
    assert topic.read(since="2030-03-17T17:46:40+00:00", until="2030-03-17T17:47:40Z", partition=0) == [(0, 0)]
    # An hour behind the bound nothing is read.
    assert topic.ranges(until="59m")[0] == (0, 61)
    assert topic.read(partition=0, until="59m") == [(0, 0)]


def test_records_out_of_order_are_found_by_their_time(broker: Broker) -> None:
    made = Topic(broker.bootstrap_servers)
    for number in (10, 50, 20, 90, 30):
        made.put(range(number, number + 1))
    assert made.read(since="45m", until="25m") == [(0, 20), (0, 30)]
    assert made.read(since="25m") == [(0, 50), (0, 90)]


def test_a_single_location_is_read(topic: Topic) -> None:
    assert topic.ranges(places=[f"{topic.name}/0/70"]) == {0: (70, 71)}
    assert topic.ranges(places=[f"{topic.name}/0/7000"]) == {0: (7000, 7000)}
    assert topic.ranges(places=[f"{topic.name}/0/70", "other/0/1"]) == topic.ranges()
    assert topic.read(places=[f"{topic.name}/0/7000"]) == []


def test_only_committed_records(broker: Broker) -> None:
    made = Topic(broker.bootstrap_servers)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(30)
    for numbers, commit in ((range(3), True), (range(3, 5), False), (range(5, 6), True)):
        producer.begin_transaction()
        made.put(numbers, producer=producer)
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)
    producer.begin_transaction()
    made.put(range(6, 7), producer=producer)
    assert [number for _, number in made.read()] == [0, 1, 2, 5]
    producer.abort_transaction(30)


def test_the_scan_ends_when_its_reader_has_enough(topic: Topic) -> None:
    records = topic.scan().records()
    assert next(records).topic == topic.name
    records.close()  # type: ignore[attr-defined]


def test_follow_yields_what_is_committed_later(broker: Broker) -> None:
    made = Topic(broker.bootstrap_servers)
    made.put(range(2))
    found: list[int] = []
    adding: threading.Thread | None = None
    batches = made.scan(since="1").follow()
    for batch in batches:
        found += [int(one.value or b"-1") for one in batch]
        if found == [1] and adding is None:
            adding = threading.Thread(target=made.put, args=(range(2, 5),))
            adding.start()
        if len(found) == 4:
            break
    batches.close()  # type: ignore[attr-defined]
    assert adding is not None
    adding.join()
    assert found == [1, 2, 3, 4]


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "created again"])
def test_follow_ends_when_its_topic_is_deleted(broker: Broker, monkeypatch: pytest.MonkeyPatch, *, again: bool) -> None:
    monkeypatch.setattr(log_reader, "_IDENTITY_S", 0.5)
    made = Topic(broker.bootstrap_servers)
    made.put(range(1))
    batches = made.scan().follow()
    while not next(batches):
        pass
    made.delete()
    if again:
        made.create()
    with pytest.raises(BrokerRefused, match=f"topic {made.name} was deleted"):
        for _ in batches:
            pass


def test_wrong_topics_and_partitions(topic: Topic) -> None:
    with pytest.raises(UsageError, match=r"--partition 2: topic .* has the partitions 0 to 1"):
        topic.read(partition=2)
    with pytest.raises(BrokerRefused, match="topic missing-topic is missing"):
        TopicScan(topic.settings, "missing-topic", parse_filter(now_ms=NOW_MS))


@pytest.mark.slow
def test_offsets_are_read_after_a_broker_has_come_back(private_kafka: Callable[..., EmbeddedKafka]) -> None:
    """An admin client caches leaders and their epochs, which a restarted broker rejects."""
    kafka = private_kafka(port=free_port())
    servers = kafka.start().bootstrap_servers
    topic = Topic(servers)
    reader = log_reader.LogReader(topic.settings, "any", timeout_s=40)
    before = reader.extents(topic.name, 2)
    for _ in range(2):
        kafka.kill()
        kafka.start()
        assert reader.extents(topic.name, 2) == before
