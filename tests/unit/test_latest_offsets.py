"""End offsets of paused partitions: requested every 15 s in the background, also during outages."""

from __future__ import annotations

import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from stream_scorer.core.records import Partition
from stream_scorer.errors import SettingsError
from stream_scorer.kafka.consumer import group_consumer as source_module
from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
from stream_scorer.kafka.consumer.latest_offsets import LatestOffsets

ONE, TWO = Partition("features", 0), Partition("features", 1)


class FakeAdmin:
    """Admin client that responds on demand; ``requests`` are the partitions of each request."""

    def __init__(self) -> None:
        self.requests: list[list[Partition]] = []
        self.futures: dict[Partition, Future[Any]] = {}
        self.failure: Exception | None = None

    def poll(self, _timeout: float) -> int:
        return 0

    def list_offsets(self, wanted: dict[TopicPartition, Any], **_: Any) -> dict[TopicPartition, Future[Any]]:
        places = [Partition(place.topic, place.partition) for place in wanted]
        self.requests.append(places)
        if self.failure is not None:
            raise self.failure
        futures: dict[TopicPartition, Future[Any]] = {place: Future() for place in wanted}
        self.futures = dict(zip(places, futures.values(), strict=True))
        return futures

    def answer(self, partition: Partition, offset: int) -> None:
        self.futures[partition].set_result(SimpleNamespace(offset=offset))

    def fail(self, partition: Partition) -> None:
        self.futures[partition].set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))


class Harness:
    def __init__(self) -> None:
        self.now = 100.0
        self.admin = FakeAdmin()
        self.created = 0
        self.latest = LatestOffsets({}, lambda: self.now, self._create)

    def _create(self, _config: dict[str, Any]) -> FakeAdmin:
        self.created += 1
        return self.admin


def test_nothing_is_connected_or_requested_while_nothing_is_paused() -> None:
    harness = Harness()
    assert harness.latest.poll([]) == {}
    assert harness.created == 0


def test_one_request_every_15_s_whose_answers_come_later() -> None:
    harness = Harness()
    assert harness.latest.poll([ONE, TWO]) == {}
    harness.admin.answer(ONE, 7)
    assert harness.latest.poll([ONE, TWO]) == {ONE: 7}
    harness.admin.answer(TWO, 8)
    harness.now += 14.9
    assert harness.latest.poll([ONE, TWO]) == {TWO: 8}
    assert harness.admin.requests == [[ONE, TWO]]
    harness.now += 0.1
    assert harness.latest.poll([TWO]) == {}
    assert harness.admin.requests == [[ONE, TWO], [TWO]]
    assert harness.created == 1


def test_no_second_request_while_one_is_pending() -> None:
    harness = Harness()
    harness.latest.poll([ONE])
    harness.now += 60.0
    harness.latest.poll([ONE])
    assert len(harness.admin.requests) == 1
    harness.admin.fail(ONE)
    assert harness.latest.poll([ONE]) == {}
    assert len(harness.admin.requests) == 2


@pytest.mark.parametrize("failure", [KafkaException(KafkaError(KafkaError._FAIL)), SettingsError("no certificate")])
def test_a_request_that_cannot_be_made_is_due_again_after_15_s(failure: Exception) -> None:
    harness = Harness()
    harness.admin.failure = failure
    for _ in range(3):
        assert harness.latest.poll([ONE]) == {}
    assert len(harness.admin.requests) == 1
    harness.now += 15.0
    harness.admin.failure = None
    harness.latest.poll([ONE])
    harness.admin.answer(ONE, 3)
    assert harness.latest.poll([ONE]) == {ONE: 3}


def test_unreachable_brokers_block_nothing() -> None:
    """With the real client, and no broker."""
    latest = LatestOffsets({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, time.monotonic)
    began = time.monotonic()
    for _ in range(20):
        assert latest.poll([ONE, TWO]) == {}
    latest.close()
    assert time.monotonic() - began < 2.0


class TestSource:
    """`GroupConsumer.end_offsets` with a client whose watermarks change only with a fetch."""

    @pytest.fixture
    def harness(self, monkeypatch: pytest.MonkeyPatch) -> Harness:
        harness = Harness()
        self.fetched = {ONE: 10, TWO: 20}
        fetched = self.fetched

        class FakeConsumer:
            def __init__(self, _config: dict[str, Any]) -> None: ...

            def get_watermark_offsets(self, place: TopicPartition, *, cached: bool) -> tuple[int, int]:
                assert cached, "it would block"
                return 0, fetched[Partition(place.topic, place.partition)]

            def assignment(self) -> list[TopicPartition]:
                return [TopicPartition(*one) for one in fetched]

            def pause(self, _places: list[TopicPartition]) -> None: ...

            def resume(self, _places: list[TopicPartition]) -> None: ...

        monkeypatch.setattr(source_module, "Consumer", FakeConsumer)
        self.source = GroupConsumer({"group.id": "g"}, ["features"], lambda _: True, latest=harness.latest)
        return harness

    def ends(self) -> dict[Partition, int]:
        return dict(self.source.end_offsets([ONE, TWO]))

    def test_a_fetched_partition_needs_no_request(self, harness: Harness) -> None:
        assert self.ends() == {ONE: 10, TWO: 20}
        assert harness.admin.requests == []

    def test_all_are_requested_while_reading_is_paused_and_the_fetch_counts_again_after_it(
        self, harness: Harness
    ) -> None:
        self.source.pause()
        assert self.ends() == {ONE: 10, TWO: 20}
        harness.admin.answer(ONE, 15)
        harness.admin.answer(TWO, 20)
        assert self.ends() == {ONE: 15, TWO: 20}
        self.source.resume()
        assert self.ends() == {ONE: 15, TWO: 20}, "the lag must not jump back until a fetch has caught up"
        self.fetched[ONE] = 16
        assert self.ends() == {ONE: 16, TWO: 20}
        self.fetched[ONE] = 12  # the log was truncated: an older response must not replace it
        assert self.ends() == {ONE: 12, TWO: 20}
        assert len(harness.admin.requests) == 1

    def test_only_paused_partitions_are_requested(self, harness: Harness) -> None:
        self.source.pause_partition(TWO)
        self.ends()
        assert harness.admin.requests == [[TWO]]


def test_a_client_whose_request_failed_is_replaced() -> None:
    """After a restart of the brokers an admin client kept failing with a fenced leader epoch, 37 times in a row."""
    harness = Harness()
    harness.latest.poll([ONE, TWO])
    harness.admin.answer(ONE, 7)
    harness.admin.fail(TWO)
    assert harness.latest.poll([ONE, TWO]) == {ONE: 7}
    harness.now += 15.0
    harness.latest.poll([ONE, TWO])
    harness.admin.answer(ONE, 8)
    harness.admin.answer(TWO, 9)
    assert harness.latest.poll([ONE, TWO]) == {ONE: 8, TWO: 9}
    assert harness.created == 2
