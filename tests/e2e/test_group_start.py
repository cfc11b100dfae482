"""A group without commits beside output topics whose records were deleted by retention: the offsets remain."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from scoring_harness import ScoringHarness, contacts

from stream_scorer.core.exactly_once.commit_metadata import CommitMetadata, parse_metadata
from stream_scorer.errors import BrokerRefused, CheckFailed
from stream_scorer.kafka.consumer.initial_offsets import StartReport, planning_start, scoring_start, write_start
from stream_scorer.reconciliation import reconcile
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from kafka_fixture import Broker

    from stream_scorer.settings import Settings

pytestmark = pytest.mark.kafka


def write_and_delete(bootstrap_servers: str, topic: str) -> None:
    """Empty a topic as retention does: no records, and a high watermark."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "acks": "all"})
    producer.produce(topic, b"v", partition=1)
    assert producer.flush(30) == 0
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for deleted in admin.delete_records([TopicPartition(topic, 1, -1)]).values():
        assert deleted.result(30).low_watermark == 1


def refused(settings: Settings) -> str:
    with pytest.raises(BrokerRefused) as caught:
        write_start(settings, scoring_start(settings), chosen=False)
    return str(caught.value)


def test_a_scoring_group_does_not_start_over_beside_emptied_outputs(broker: Broker) -> None:
    harness = ScoringHarness(broker.bootstrap_servers, partitions=2)
    settings = load_settings(environ=harness.settings())
    for kind in ("audit", "rejected", "review", "scores"):
        write_and_delete(broker.bootstrap_servers, harness.topics[kind])
        message = refused(settings)
        assert f"topic {harness.topics[kind]} has been written to already" in message
        assert "--from earliest" in message
        assert harness.commits() == {}
    allowed = load_settings(environ={**harness.settings(), "STREAM_SCORER_KAFKA__ALLOW_NEW_GROUP": "true"})
    write_start(allowed, scoring_start(allowed), chosen=False)
    begun = {number: parse_metadata(commit.metadata) for number, commit in harness.commits().items()}
    assert begun[0] == begun[1]
    assert begun[0].start == 0
    assert begun[0].topic_id
    write_start(settings, scoring_start(settings), chosen=False)  # it has commits by now


def test_a_planning_group_does_not_start_over_beside_emptied_receipts_or_callbacks(broker: Broker) -> None:
    names = {kind: f"{kind}-{uuid.uuid4().hex[:12]}" for kind in ("scores", "receipts", "callbacks")}
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    for made in admin.create_topics([NewTopic(name, 2, 1) for name in names.values()], operation_timeout=30).values():
        made.result(30)
    environ = {
        "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "STREAM_SCORER_KAFKA__GROUP_ID": f"group-{uuid.uuid4().hex[:12]}",
        **{f"STREAM_SCORER_TOPICS__{kind.upper()}": name for kind, name in names.items()},
    }
    settings = load_settings(environ=environ)
    for kind in ("callbacks", "receipts"):
        write_and_delete(broker.bootstrap_servers, names[kind])
        with pytest.raises(BrokerRefused, match=f"topic {names[kind]} has been written to already"):
            write_start(settings, planning_start(settings), chosen=False)
    write_start(settings, planning_start(settings), chosen=True)  # --from


def test_commits_of_a_former_topic_are_refused_until_the_new_one_is_accepted(broker: Broker) -> None:
    """Commits that Kafka has not deleted: written by a worker after the deletion of the topic."""
    harness = ScoringHarness(broker.bootstrap_servers, partitions=2)
    settings = load_settings(environ=harness.settings())
    start = scoring_start(settings, harness.retries)
    assert write_start(settings, start, chosen=True) == StartReport()
    present = parse_metadata(harness.commits()[0].metadata).topic_id
    former = str(CommitMetadata(0, "former", others=(("lane", "2"),)))
    with harness.reader(harness.group_id) as reader:
        places = [TopicPartition(harness.topics["features"], number, 40, former) for number in range(2)]
        reader.commit(offsets=places, asynchronous=False)
    with pytest.raises(BrokerRefused, match=rf"\(id former\), not of the present one \(id {present}\)"):
        write_start(settings, start, chosen=True)
    harness.produce(contacts(3, 2))
    with pytest.raises(CheckFailed, match="none of its 3 records counts as finished"):
        reconcile(settings)
    report = write_start(settings, start, chosen=True, new_topic=True)
    assert report == StartReport(replaced=(harness.topics["features"],))
    for commit in harness.commits().values():
        accepted = parse_metadata(commit.metadata)
        assert (commit.offset, accepted.start, accepted.topic_id) == (0, 0, present)
        assert accepted.since_ms is not None
    assert write_start(settings, start, chosen=True, new_topic=True) == StartReport(), "once"


def test_an_output_that_is_dated_far_ahead_does_not_hide_the_outcomes_of_a_new_topic(broker: Broker) -> None:
    """Its time would be the lower bound for outputs of the new topic, so none would count for hours."""
    any_time = {"scores": {"message.timestamp.after.max.ms": str(2**62)}}
    harness = ScoringHarness(broker.bootstrap_servers, partitions=2, configs=any_time)
    settings, scores = load_settings(environ=harness.settings()), harness.topics["scores"]
    start = scoring_start(settings, harness.retries)
    write_start(settings, start, chosen=True)
    former = str(CommitMetadata(0, "former"))
    with harness.reader(harness.group_id) as reader:
        places = [TopicPartition(harness.topics["features"], number, 40, former) for number in range(2)]
        reader.commit(offsets=places, asynchronous=False)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "acks": "all"})
    now_ms = time.time_ns() // 1_000_000
    errors: list[Any] = []
    for ahead_ms in (0, 3 * 3_600_000):
        producer.produce(
            scores,
            b"v",
            partition=1,
            timestamp=now_ms + ahead_ms,
            on_delivery=lambda error, _: errors.append(error),
        )
    assert producer.flush(30) == 0
    assert errors == [None, None]
    with pytest.raises(BrokerRefused) as caught:
        write_start(settings, start, chosen=True, new_topic=True)
    assert f"{scores}/1: the record at offset 1 is dated 3.0 hours ahead" in str(caught.value)
    assert {commit.offset for commit in harness.commits().values()} == {40}
    for deleted in admin.delete_records([TopicPartition(scores, 1, 2)]).values():
        deleted.result(30)
    write_start(settings, start, chosen=True, new_topic=True)
    since_ms = {parse_metadata(commit.metadata).since_ms for commit in harness.commits().values()}
    [bound_ms] = since_ms
    assert bound_ms is not None
    assert now_ms < bound_ms <= time.time_ns() // 1_000_000 + 1, "the deleted record is no bound"
