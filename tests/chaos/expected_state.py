"""State of a run for the verifier: all committed records, the commits of the group, and the counts of the API.

Read with plain confluent_kafka, decoded with plain fastavro: a mistake of the product cannot conceal itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from scoring_harness import AUDIT, PATIENCE_S, Commit, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from confluent_kafka import Message
    from scoring_harness import ScoringHarness

PREFIX = "stream-scorer-"
KINDS = ("features", "scores", "review", "rejected", "audit")
CAMPAIGN_KINDS = ("callbacks", "receipts")
_STABLE_S = 120.0


class Row(NamedTuple):
    """One record of a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @property
    def place(self) -> str:
        """Return its location in the form of a source in the contract."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    def own_header(self, name: str) -> str | None:
        """Return the last value of a header of the worker; None without one."""
        found = [value for given, value in self.headers if given == PREFIX + name]
        return found[-1].decode() if found and found[-1] is not None else None


@dataclass(frozen=True, slots=True)
class Recovery:
    """The time until recovery after the end of a fault, and its limit."""

    fault: str
    seconds: float
    limit_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Samples of the resident memory of one process in MiB."""

    process: str
    mib: tuple[float, ...]


@dataclass(slots=True)
class ExpectedState:
    """One run.

    Attributes:
        rows: every topic's records by kind (``features``, ``scores``, …, ``retry-1``, …), each partition's in order.
        commits: the scoring group's commits by partition.
        account: how often the API scored each contact; None: not counted.
        retry_commits: the commits of the group on the retry topics, by topic and partition.
        group_id: that group.
        may_be_paid_again: the most contacts that may be billed twice because of the faults.
        campaign: whether a campaign worker ran and has committed the end of the scores.
        threshold: scores from here on are delivered.
        good: the keys of valid contacts.
        needless_failures: transactions that failed although the brokers were healthy.
        recoveries, memory: measurements.
    """

    rows: dict[str, list[Row]]
    commits: dict[int, Commit]
    account: dict[str, int] | None = None
    may_be_paid_again: int = 0
    retry_commits: dict[tuple[str, int], int] = field(default_factory=dict)
    group_id: str = ""
    campaign: bool = False
    threshold: float = 0.75
    good: AbstractSet[bytes] = frozenset()
    needless_failures: int = 0
    recoveries: list[Recovery] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)

    def audit_events(self) -> list[tuple[Row, dict[str, Any]]]:
        """The audit events, decoded, in the order of their topic."""
        return [(row, AUDIT.decode(row.value)) for row in self.rows["audit"]]


def read_state(
    harness: ScoringHarness, campaign_topics: Mapping[str, str] | None = None, decisions: str | None = None
) -> ExpectedState:
    """Read all topics once no worker runs and no transaction is open; ``decisions``: their topic."""
    topics = {**harness.topics, **{kind: (campaign_topics or {})[kind] for kind in CAMPAIGN_KINDS if campaign_topics}}
    topics |= {f"retry-{level}": topic for level, topic in enumerate(harness.retries, 1)}
    topics |= {"decisions": decisions} if decisions is not None else {}
    numbers = _partitions(harness, topics.values())
    places = [TopicPartition(topic, number) for topic, count in numbers.items() for number in range(count)]
    await_stable(harness, [place for place in places if place.topic != topics["features"]])
    retries = {topic: numbers[topic] for topic in harness.retries}
    commits, taken = read_commits(harness, numbers[topics["features"]]), read_retry_commits(harness, retries)
    rows = read_rows(harness, topics)
    if (read_commits(harness, numbers[topics["features"]]), read_retry_commits(harness, retries)) != (commits, taken):
        raise AssertionError("a worker committed during the verification: stop all workers first")
    campaign = campaign_topics is not None
    return ExpectedState(rows, commits, retry_commits=taken, group_id=harness.group_id, campaign=campaign)


def read_rows(harness: ScoringHarness, topics: Mapping[str, str]) -> dict[str, list[Row]]:
    """Return the committed records of these topics by kind, each partition's in order."""
    numbers = _partitions(harness, topics.values())
    kinds = {topic: kind for kind, topic in topics.items()}
    rows: dict[str, list[Row]] = {kind: [] for kind in topics}
    for row in _read(harness, [TopicPartition(topic, number) for topic in numbers for number in range(numbers[topic])]):
        rows[kinds[row.topic]].append(row)
    return rows


def read_commits(harness: ScoringHarness, partitions: int) -> dict[int, Commit]:
    """The scoring group's commits on the features topic."""
    answers = _commits(harness, [TopicPartition(harness.topics["features"], number) for number in range(partitions)])
    return {a.partition: Commit(a.offset, a.metadata or "") for a in answers}


def read_retry_commits(harness: ScoringHarness, partitions: Mapping[str, int]) -> dict[tuple[str, int], int]:
    """The scoring group's commits on the retry topics."""
    places = [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]
    return {(a.topic, a.partition): a.offset for a in _commits(harness, places)}


def _commits(harness: ScoringHarness, wanted: list[TopicPartition]) -> list[TopicPartition]:
    """Return the commits of the scoring group; retried until the brokers respond."""
    with harness.reader(harness.group_id) as reader:

        def ask() -> list[TopicPartition] | None:
            try:
                answers = reader.committed(wanted, 10)
            except KafkaException:
                return None
            return None if any(answer.error is not None for answer in answers) else answers

        answers: list[TopicPartition] = wait_until(ask, "the commits of the group")
        return [answer for answer in answers if answer.offset >= 0]


def await_stable(harness: ScoringHarness, places: list[TopicPartition]) -> None:
    """Wait until no transaction is open: that of a killed worker ends with its time-out."""
    with harness.reader() as committed, harness.reader(isolation="read_uncommitted") as written:

        def ends(reader: Consumer, place: TopicPartition) -> Any:
            return reader.get_watermark_offsets(place, 10, cached=False)

        def stable() -> bool:
            try:
                return all(ends(committed, place) == ends(written, place) for place in places)
            except KafkaException:
                return False  # a restarted broker has no leaders yet

        wait_until(stable, "the end of all open transactions", _STABLE_S)


def _partitions(harness: ScoringHarness, topics: Iterable[str]) -> dict[str, int]:
    with harness.reader() as reader:

        def ask() -> dict[str, int] | None:
            try:
                known = reader.list_topics(timeout=10).topics
            except KafkaException:
                return None
            found = {topic: len(known[topic].partitions) for topic in topics if topic in known}
            return found if len(found) == len(set(topics)) else None

        topics = list(topics)
        found: dict[str, int] = wait_until(ask, f"the partitions of {topics}")
        return found


def _read(harness: ScoringHarness, places: list[TopicPartition]) -> Iterable[Row]:
    with harness.reader() as reader:
        deadline = time.monotonic() + PATIENCE_S
        waiting = {(place.topic, place.partition) for place in places}
        reader.assign([TopicPartition(topic, number, 0) for topic, number in waiting])
        while waiting:
            if time.monotonic() > deadline:
                raise AssertionError(f"reading stands still before the end of {sorted(waiting)[:5]}")
            # Short, since the client waits for so many records even after the last one.
            for message in reader.consume(10_000, 0.1):
                deadline = time.monotonic() + PATIENCE_S
                error = message.error()
                if error is None:
                    yield _row(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard((message.topic() or "", message.partition() or 0))
                elif not error.retriable():
                    raise KafkaException(error)


def _row(message: Message) -> Row:
    try:
        headers: Any = message.headers() or ()
    except (SystemError, UnicodeDecodeError):  # a header of the worker is always UTF-8
        headers = ()
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Row(topic, partition, offset, message.key(), message.value(), tuple(headers))
