"""Topic ids: the check before a commit, with every kind of broker."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from stream_scorer.core.records import Partition
from stream_scorer.errors import BrokerRefused, BrokerUnavailable
from stream_scorer.kafka.consumer.topic_ids import TopicIdentity, TopicIds, ids_of

IN = Partition("in", 0)
NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"


class Brokers:
    """Brokers with these topics; None: no id, an error code: that error."""

    def __init__(self, **topics: str | int | None) -> None:
        self.topics = topics
        self.requests = 0
        self.are_away = False

    def poll(self, _timeout_s: float) -> int:
        return 0

    def describe_topics(self, topics: Any, **_options: Any) -> dict[str, Future[Any]]:
        self.requests += 1
        found: dict[str, Future[Any]] = {}
        for name in topics.topic_names:
            found[name] = future = Future()
            code = KafkaError._TIMED_OUT if self.are_away else self.topics.get(name, KafkaError.UNKNOWN_TOPIC_OR_PART)
            if isinstance(code, int):
                future.set_exception(KafkaException(KafkaError(code)))
            else:
                future.set_result(SimpleNamespace(topic_id=code or NO_ID))
        return found


class Now:
    s = 0.0

    def __call__(self) -> float:
        return self.s


def identity(brokers: Brokers, now: Now | None = None) -> TopicIdentity:
    return TopicIdentity(TopicIds({}, lambda _: brokers), "g", now or Now())


def committed(metadata: str, offset: int = 10, topic: str = "in") -> TopicPartition:
    return TopicPartition(topic, 0, offset, metadata)


def test_a_commit_of_the_present_topic_keeps_all_it_carries() -> None:
    one = identity(Brokers(**{"in": "a"}))
    one.begin([committed("start=3;topic=a;lane=2")], 1.0)
    one.check({"in"})
    assert one.metadata(IN, 3) == "start=3;topic=a;lane=2"


@pytest.mark.parametrize("metadata", ["start=3", "", "lane=2"])
def test_a_commit_without_topic_adopts_the_present_id(metadata: str) -> None:
    """As written by the previous version, for example after a rollback, or by an operator."""
    brokers = Brokers(**{"in": "a"})
    one = identity(brokers)
    one.begin([committed(metadata)], 1.0)
    assert one.metadata(IN, 3).startswith("start=3;topic=a")
    brokers.topics["in"] = "b"
    with pytest.raises(BrokerRefused):
        one.check({"in"})


def test_a_partition_without_commit_is_of_the_present_topic() -> None:
    one = identity(Brokers(**{"in": "a"}))
    one.begin([committed("", offset=-1001)], 1.0)
    assert one.metadata(IN, 0) == "start=0;topic=a"


def test_a_commit_of_a_former_topic_is_refused_with_both_ids_and_the_remedy() -> None:
    with pytest.raises(BrokerRefused) as caught:
        identity(Brokers(**{"in": "b"})).begin([committed("start=3;topic=a")], 1.0)
    message = str(caught.value)
    assert message.startswith("topic in was deleted and created again: the offsets of group g are those of the former")
    for part in ("(id a)", "(id b)", "--new-topic and --from earliest"):
        assert part in message


def test_a_topic_that_is_created_again_while_it_is_read_is_found_before_the_commit() -> None:
    brokers = Brokers(**{"in": "a"}, retry="r")
    one = identity(brokers)
    one.begin([committed("start=3;topic=a"), committed("start=0", topic="retry")], 1.0)
    brokers.topics["in"] = "b"
    one.check({"retry"})
    with pytest.raises(BrokerRefused, match="topic in was deleted and created again"):
        one.check({"in", "retry"})


def test_a_topic_that_comes_back_without_commits_is_found_by_the_process_that_read_the_former_one() -> None:
    """Kafka deletes the commits of a deleted topic, and a rebalance revokes its partitions meanwhile."""
    brokers = Brokers(**{"in": "a"})
    one = identity(brokers)
    one.begin([committed("start=3;topic=a")], 1.0)
    one.revoke([IN])
    brokers.topics["in"] = "b"
    with pytest.raises(BrokerRefused, match="topic in was deleted and created again"):
        one.begin([committed("", offset=-1001)], 1.0)


def test_nothing_is_committed_for_a_topic_that_is_deleted() -> None:
    brokers = Brokers(**{"in": "a"})
    one = identity(brokers)
    one.begin([committed("start=3;topic=a")], 1.0)
    del brokers.topics["in"]
    with pytest.raises(BrokerUnavailable, match="topic in does not exist now"):
        one.check({"in"})


def test_brokers_that_do_not_answer_are_no_evidence() -> None:
    brokers = Brokers(**{"in": "a"})
    one = identity(brokers)
    one.begin([committed("start=3;topic=a")], 1.0)
    brokers.are_away = True
    with pytest.raises(BrokerUnavailable, match="reading the ids of topics"):
        one.check({"in"})
    with pytest.raises(BrokerUnavailable):
        one.begin([committed("start=3;topic=a")], 1.0)


@pytest.mark.parametrize("answer", [None, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_brokers_without_topic_ids_change_nothing(answer: int | None) -> None:
    one = identity(Brokers(**{"in": answer}))
    one.begin([committed("start=3;topic=a")], 1.0)
    one.check({"in"})
    assert one.metadata(IN, 3) == "start=3;topic=a", "the id is kept for the brokers that do"
    other = identity(Brokers(**{"in": answer}))
    other.begin([committed("start=3")], 1.0)
    assert other.metadata(IN, 3) == "start=3"


def test_an_idle_worker_detects_a_recreated_topic_within_two_checks() -> None:
    brokers, now = Brokers(**{"in": "a"}), Now()
    one = identity(brokers, now)
    one.begin([committed("start=3;topic=a")], 1.0)
    brokers.topics["in"] = "b"
    for now.s in (1.0, 14.9):
        one.poll()
    assert brokers.requests == 1
    now.s = 15.0
    one.poll()
    with pytest.raises(BrokerRefused, match="topic in was deleted and created again"):
        one.poll()


def test_a_background_check_does_not_block() -> None:
    brokers, now = Brokers(**{"in": "a"}), Now()
    one = identity(brokers, now)
    one.begin([committed("start=3;topic=a")], 1.0)
    brokers.are_away = True
    for now.s in (15.0, 16.0, 30.0, 31.0):
        one.poll()
    assert brokers.requests == 3


def test_a_missing_response_is_no_evidence() -> None:
    with pytest.raises(BrokerUnavailable, match="no answer within 0 s"):
        ids_of({"in": Future()})


def test_resolved_schema_ids_are_carried_from_commit_to_commit() -> None:
    class Schemas:
        ids: tuple[int, ...] = ()

        def mark_resolved(self, schema_ids: Any) -> None:
            self.ids += tuple(schema_ids)

        def resolved(self) -> tuple[int, ...]:
            return self.ids

    schemas = Schemas()
    one = TopicIdentity(TopicIds({}, lambda _: Brokers(**{"in": "a"})), "g", Now(), schemas)
    one.begin([committed("start=3;topic=a;schemas=5")], 1.0)
    schemas.ids += (17,)
    assert one.metadata(IN, 3) == "start=3;topic=a;schemas=5,17"
