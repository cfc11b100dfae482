"""What the judge judges: everything a ``read_committed`` reader finds, the group's commits, and what others counted.

Read with plain confluent_kafka, decoded with plain fastavro: a mistake of the product cannot hide itself.
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
        """Where it stands, as the contract writes sources."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    def own_header(self, name: str) -> str | None:
        """The last value of a header of ours; None where there is none."""
        found = [value for given, value in self.headers if given == PREFIX + name]
        return found[-1].decode() if found and found[-1] is not None else None


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long something took to go on by itself after a fault had ended, and how long it may."""

    fault: str
    seconds: float
    limit_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of one process in MiB, sample after sample."""

    process: str
    mib: tuple[float, ...]


@dataclass(slots=True)
class ExpectedState:
    """One run.

    Attributes:
        rows: every topic's records by kind (``features``, ``scores``, …, ``retry-1``, …), each partition's in order.
        commits: the scoring group's commits by partition.
        account: how often the API scored each contact, by its own account; None: not counted.
        retry_commits: its commits on the retry topics, by topic and partition.
        group_id: that group.
        may_be_paid_again: the most contacts that the faults of the run may have cost a second time.
        campaign: whether a campaign worker was at work, and has come to the end of the scores.
        threshold: scores from here on are called.
        good: the keys of contacts with which nothing is wrong.
        needless_failures: transactions that failed although nothing was the matter with the brokers.
        recoveries, memory: what was measured.
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


def read_books(
    arena: ScoringHarness, campaign_topics: Mapping[str, str] | None = None, decisions: str | None = None
) -> ExpectedState:
    """Reads everything, once no worker is at work and no transaction is open; ``decisions``: their topic."""
    topics = {**arena.topics, **{kind: (campaign_topics or {})[kind] for kind in CAMPAIGN_KINDS if campaign_topics}}
    topics |= {f"retry-{level}": topic for level, topic in enumerate(arena.retries, 1)}
    topics |= {"decisions": decisions} if decisions is not None else {}
    numbers = _partitions(arena, topics.values())
    places = [TopicPartition(topic, number) for topic, count in numbers.items() for number in range(count)]
    await_stable(arena, [place for place in places if place.topic != topics["features"]])
    retries = {topic: numbers[topic] for topic in arena.retries}
    commits, taken = read_commits(arena, numbers[topics["features"]]), read_retry_commits(arena, retries)
    rows = read_rows(arena, topics)
    if (read_commits(arena, numbers[topics["features"]]), read_retry_commits(arena, retries)) != (commits, taken):
        raise AssertionError("a worker committed while the judge was reading: stop all workers first")
    campaign = campaign_topics is not None
    return ExpectedState(rows, commits, retry_commits=taken, group_id=arena.group_id, campaign=campaign)


def read_rows(arena: ScoringHarness, topics: Mapping[str, str]) -> dict[str, list[Row]]:
    """What a reader finds on these topics now, by kind, each partition's in order."""
    numbers = _partitions(arena, topics.values())
    kinds = {topic: kind for kind, topic in topics.items()}
    rows: dict[str, list[Row]] = {kind: [] for kind in topics}
    for row in _read(arena, [TopicPartition(topic, number) for topic in numbers for number in range(numbers[topic])]):
        rows[kinds[row.topic]].append(row)
    return rows


def read_commits(arena: ScoringHarness, partitions: int) -> dict[int, Commit]:
    """The scoring group's commits on the features topic."""
    answers = _commits(arena, [TopicPartition(arena.topics["features"], number) for number in range(partitions)])
    return {a.partition: Commit(a.offset, a.metadata or "") for a in answers}


def read_retry_commits(arena: ScoringHarness, partitions: Mapping[str, int]) -> dict[tuple[str, int], int]:
    """The scoring group's commits on the retry topics."""
    places = [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]
    return {(a.topic, a.partition): a.offset for a in _commits(arena, places)}


def _commits(arena: ScoringHarness, wanted: list[TopicPartition]) -> list[TopicPartition]:
    """The scoring group's commits where it has any, asked for until the brokers answer."""
    with arena.reader(arena.group_id) as reader:

        def ask() -> list[TopicPartition] | None:
            try:
                answers = reader.committed(wanted, 10)
            except KafkaException:
                return None
            return None if any(answer.error is not None for answer in answers) else answers

        answers: list[TopicPartition] = wait_until(ask, "the commits of the group")
        return [answer for answer in answers if answer.offset >= 0]


def await_stable(arena: ScoringHarness, places: list[TopicPartition]) -> None:
    """Waits until no transaction is open: what a killed worker left ends with its time-out."""
    with arena.reader() as committed, arena.reader(isolation="read_uncommitted") as written:

        def ends(reader: Consumer, place: TopicPartition) -> Any:
            return reader.get_watermark_offsets(place, 10, cached=False)

        def stable() -> bool:
            try:
                return all(ends(committed, place) == ends(written, place) for place in places)
            except KafkaException:
                return False  # a broker that has just come back has no leaders yet

        wait_until(stable, "the end of all open transactions", _STABLE_S)


def _partitions(arena: ScoringHarness, topics: Iterable[str]) -> dict[str, int]:
    with arena.reader() as reader:

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


def _read(arena: ScoringHarness, places: list[TopicPartition]) -> Iterable[Row]:
    with arena.reader() as reader:
        deadline = time.monotonic() + PATIENCE_S
        waiting = {(place.topic, place.partition) for place in places}
        reader.assign([TopicPartition(topic, number, 0) for topic, number in waiting])
        while waiting:
            if time.monotonic() > deadline:
                raise AssertionError(f"reading stands still before the end of {sorted(waiting)[:5]}")
            # Not longer: the client waits for so many records, also when the last one has come.
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
    except (SystemError, UnicodeDecodeError):  # a name that is not UTF-8 cannot be one of ours
        headers = ()
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Row(topic, partition, offset, message.key(), message.value(), tuple(headers))
