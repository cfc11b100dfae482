"""Recreated topics: their offsets restart under the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic
from scoring_harness import contacts, wait_until

from stream_scorer.core.exactly_once.commit_metadata import parse_metadata
from stream_scorer.errors import NothingToCheck
from stream_scorer.reconciliation import reconcile
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_harness import WorkerHarness, WorkerProcess

pytestmark = pytest.mark.kafka


def replace_topic(stage: WorkerHarness, topic: str) -> None:
    """Delete a topic and create it again."""
    admin = AdminClient({"bootstrap.servers": stage.bootstrap_servers})
    admin.delete_topics([topic], operation_timeout=30)[topic].result(30)

    def is_created() -> bool:
        [future] = admin.create_topics([NewTopic(topic, 1, 1)], operation_timeout=30).values()
        return future.exception(30) is None  # the topic exists until the deletion has reached the broker

    wait_until(is_created, f"topic {topic} to be created again")


def the_line(worker: WorkerProcess, exit_code: int) -> str:
    """Return the only output line of a worker that exits."""
    assert worker.exit_code() == exit_code, worker.log()
    [line] = worker.errors()
    return line


def test_a_worker_stops_before_it_loses_the_first_records_of_a_new_topic(
    make_stage: Callable[..., WorkerHarness],
) -> None:
    """Field case: a worker at offset 10, and 25 records written as soon as the topic is there again."""
    stage = make_stage(partitions=1)
    features = stage.topics["features"]
    settings = load_settings(environ=stage.settings())
    stage.produce(contacts(10, 1))
    worker = stage.start_ready()
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    first = parse_metadata(stage.commits()[0].metadata)
    assert (first.start, first.since_ms) == (0, None)
    assert first.topic_id

    # A commit of the previous version, as after a rollback: the present id is adopted with the next commit.
    stage.commit_by_hand({0: 10})
    worker = stage.start_ready()
    stage.produce(contacts(1, 1, prefix="after"))
    stage.wait_done(needs=worker)
    assert parse_metadata(stage.commits()[0].metadata).topic_id == first.topic_id

    replace_topic(stage, features)
    stage.produced = 0
    stage.produce(contacts(25, 1, prefix="new"))
    line = the_line(worker, 1)
    assert f"topic {features} was deleted and created again" in line
    assert first.topic_id in line
    assert all(commit.offset <= 11 for commit in stage.commits().values()), "nothing of the new topic is committed"
    # Kafka drops the commits of a topic that is deleted.
    wait_until(lambda: stage.commits() == {}, "the commits of the former topic to be dropped")
    assert "has no committed offsets" in the_line(stage.start(), 1)
    assert "--from" in the_line(stage.start("--new-topic"), 2)
    with pytest.raises(NothingToCheck, match="Kafka drops its commits"):
        reconcile(settings)

    worker = stage.start_ready("--new-topic", "--from", "earliest")
    assert [line["topics"] for line in worker.said("new topics accepted")] == [[features]]
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    scored = stage.simulator.scored()
    assert all(scored[f"new-{number:06}"] >= 1 for number in range(25))
    accepted = parse_metadata(stage.commits()[0].metadata)
    assert accepted.start == 0
    assert accepted.topic_id not in (None, first.topic_id)
    assert accepted.since_ms is not None
    # The outputs of the former topic have the same places as their sources.
    report = reconcile(settings)
    assert report.is_balanced, report.findings
    assert sum(partition.inputs for partition in report.partitions) == 25
