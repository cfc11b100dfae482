"""Retry topics on a real Kafka: which records are read, when, and one outcome for each contact."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from scoring_harness import FEATURES, SCORE, contact, event

from stream_scorer.core.exactly_once.commit_metadata import parse_metadata
from stream_scorer.reconciliation import reconcile
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message
    from worker_harness import WorkerHarness, WorkerProcess

pytestmark = pytest.mark.kafka

HOUR_S = 3600.0


def source(stage: WorkerHarness, partition: int, offset: int) -> str:
    return f"{stage.topics['features']}/{partition}/{offset}"


def defer(
    stage: WorkerHarness,
    contact_id: str,
    of: str,
    *,
    level: int = 1,
    partition: int = 0,
    rounds: int = 1,
    due_in_s: float = 0.0,
    group: str | None = None,
) -> None:
    """Write a record to a retry topic as a worker does."""
    headers = {
        "h": "1",
        "stream-scorer-source": of,
        "stream-scorer-deferred": str(rounds),
        "stream-scorer-not-before": str(round((time.time() + due_in_s) * 1000)),
        "stream-scorer-group": stage.group_id if group is None else group,
    }
    put(stage, contact_id, level=level, partition=partition, headers=headers)


def put(stage: WorkerHarness, contact_id: str, *, level: int, partition: int, headers: dict[str, str]) -> None:
    producer = Producer(stage._client)
    given = [(name, text.encode()) for name, text in headers.items()]
    value = FEATURES.encode(event(contact_id))
    producer.produce(stage.retries[level - 1], value, contact_id.encode(), partition=partition, headers=given)
    assert producer.flush(30) == 0


def commit(stage: WorkerHarness, topic: str, offsets: dict[int, tuple[int, int]]) -> None:
    """Commit offset and start of partitions, as a worker of the group does."""
    with stage.reader(stage.group_id) as reader:
        places = [TopicPartition(topic, number, at, f"start={start}") for number, (at, start) in offsets.items()]
        reader.commit(offsets=places, asynchronous=False)


def commits(stage: WorkerHarness, topic: str, partitions: int) -> dict[int, tuple[int, int | None]]:
    with stage.reader(stage.group_id) as reader:
        answers = reader.committed([TopicPartition(topic, number) for number in range(partitions)], 10)
    return {a.partition: (a.offset, parse_metadata(a.metadata).start) for a in answers if a.offset >= 0}


def outcomes(stage: WorkerHarness) -> dict[str, list[tuple[str, dict[str, str], Message]]]:
    """Return kind and headers of the outputs by source."""
    found: dict[str, list[tuple[str, dict[str, str], Message]]] = {}
    for kind in ("scores", "review", "rejected"):
        ends = stage.ends(kind)
        with stage.reader() as reader:
            reader.assign([TopicPartition(stage.topics[kind], number, 0) for number in ends])
            at_end: set[int | None] = set()
            while len(at_end) < len(ends):
                for message in reader.consume(100, 0.1):
                    if message.error() is not None:
                        at_end.add(message.partition())
                        continue
                    given: Any = message.headers() or []
                    headers = {name: (value or b"").decode() for name, value in given}
                    found.setdefault(headers["stream-scorer-source"], []).append((kind, headers, message))
    return found


def await_outcomes(
    stage: WorkerHarness, worker: WorkerProcess, number: int
) -> dict[str, tuple[str, dict[str, str], Message]]:
    """Wait for so many outcomes, stop the worker, and return the only outcome of each source."""
    stage.wait(lambda: len(outcomes(stage)) >= number, f"{number} outcomes", needs=worker)
    assert worker.stop() == 0
    found = outcomes(stage)
    assert len(found) == number
    assert all(len(some) == 1 for some in found.values()), found
    return {of: some for of, [some] in found.items()}


def test_records_of_a_retry_topic_are_processed_by_their_headers(make_stage: Callable[..., WorkerHarness]) -> None:
    stage = make_stage(partitions=2, retry_partitions=2)
    stage.changes |= {"STREAM_SCORER_SCORING__RETRY_DELAYS_S": "[60, 600, 3600]"}
    # Contacts 0 to 4 were deferred, or finished before; the group began at 1.
    stage.produce([contact(f"c{number}", 0) for number in range(5)])
    commit(stage, stage.topics["features"], {0: (5, 1), 1: (0, 0)})
    stage.produce([contact(f"fresh{number}", 1) for number in range(3)])
    for level in (1, 2):
        defer(stage, "theirs", source(stage, 0, 2), level=level, group="another")
    defer(stage, "c0", source(stage, 0, 0))
    defer(stage, "c1", source(stage, 0, 1), rounds=0)
    defer(stage, "c2", source(stage, 0, 2), level=2, partition=1, rounds=2)
    defer(stage, "c3", source(stage, 0, 3), due_in_s=4.0)
    defer(stage, "theirs", source(stage, 0, 3), group="another")
    defer(stage, "c4", source(stage, 0, 4), level=3, due_in_s=HOUR_S)
    defer(stage, "theirs", source(stage, 0, 4), level=3, group="another")
    put(stage, "own", level=2, partition=0, headers={"h": "1"})
    began = time.monotonic()
    worker = stage.start_ready("--from", "earliest", scoring__retry_delays_s=None)
    found = await_outcomes(stage, worker, 3 + 3 + 1)
    assert time.monotonic() - began > 2.0, "c3 was not due"
    own = f"{stage.retries[1]}/0/1"
    assert set(found) == {*(source(stage, 0, n) for n in (1, 2, 3)), *(source(stage, 1, n) for n in range(3)), own}
    rounds = {of: headers.get("stream-scorer-deferred") for of, (_, headers, _) in found.items()}
    assert [rounds[source(stage, 0, n)] for n in (1, 2, 3)] == ["0", "2", "1"]
    assert rounds[own] == "2", "as its level"
    assert all(rounds[source(stage, 1, n)] is None for n in range(3))
    assert all(headers["h"] == "1" for of, (_, headers, _) in found.items() if rounds[of] is not None)
    scores = {of: SCORE.decode(message.value())["contact_id"] for of, (_, _, message) in found.items()}
    assert [scores[source(stage, 0, n)] for n in (1, 2, 3)] == ["c1", "c2", "c3"]
    # Skipped records are committed as well; records that are not due are not.
    assert commits(stage, stage.retries[0], 2) == {0: (5, 0)}
    assert commits(stage, stage.retries[1], 2) == {0: (2, 0), 1: (1, 0)}
    assert commits(stage, stage.retries[2], 2).get(0, (0, None))[0] == 0
    report = reconcile(load_settings(environ=stage.settings()))
    assert report.is_balanced, report.findings
    assert report.equation == "7 inputs = 6 scores + 0 review + 0 rejected + 1 deferred"


def test_a_group_that_lost_its_commits_reads_no_contact_twice(make_stage: Callable[..., WorkerHarness]) -> None:
    """Its retry topics have contacts of its former start, which it reads again from the features topic."""
    stage = make_stage(partitions=1)
    stage.produce([contact(f"c{number}", 0) for number in range(4)])
    commit(stage, stage.topics["features"], {0: (4, 0)})
    commit(stage, stage.retries[0], {0: (0, 0)})
    defer(stage, "c1", source(stage, 0, 1))
    defer(stage, "c2", source(stage, 0, 2), due_in_s=2.0)
    admin = AdminClient(stage._client)
    [deleted] = admin.delete_consumer_groups([stage.group_id]).values()
    deleted.result(30)
    worker = stage.start_ready("--from", "earliest")
    stage.wait_done(needs=worker)
    defer(stage, "late", source(stage, 0, 3) + "0")  # a later deferral of this start: read, and after all before it
    found = await_outcomes(stage, worker, 5)
    assert set(found) == {*(source(stage, 0, n) for n in range(4)), source(stage, 0, 30)}
    assert commits(stage, stage.retries[0], 1) == {0: (3, 2)}


def test_retry_partitions_follow_the_features_partitions_through_joins_and_kills(
    make_stage: Callable[..., WorkerHarness],
) -> None:
    stage = make_stage(retry_partitions=4)
    stage.produce([contact(f"c{number}", number % 4) for number in range(8)])
    commit(stage, stage.topics["features"], dict.fromkeys(range(4), (2, 0)))
    one = stage.start_ready("--from", "earliest", name="one")
    two = stage.start("--from", "earliest", name="two")

    def owned(worker: WorkerProcess) -> set[tuple[str, int]]:
        have: set[tuple[str, int]] = set()
        for line in worker.log_lines():
            if line.get("event") == "partition assigned":
                have.add((line["topic"], line["partition"]))
            elif line.get("event") == "partition revoked":
                have.discard((line["topic"], line["partition"]))
        return have

    def is_even() -> bool:
        return all(
            sum(topic == stage.topics["features"] for topic, _ in owned(worker)) == 2 and len(owned(worker)) == 2 * 4
            for worker in (one, two)
        )

    stage.wait(is_even, "two partitions of each topic for each worker", needs=two)
    assert not owned(one) & owned(two)
    for number in range(4):
        defer(stage, f"c{number}", source(stage, number, 0), partition=number)
    stage.wait(lambda: len(outcomes(stage)) == 4, "the outcomes of the deferred contacts", needs=two)
    two.kill()
    for number in range(4):
        defer(stage, f"c{number + 4}", source(stage, number, 1), partition=number, level=2)
    found = await_outcomes(stage, one, 8)
    assert {headers["stream-scorer-deferred"] for _, headers, _ in found.values()} == {"1"}
