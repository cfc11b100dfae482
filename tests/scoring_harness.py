"""A stage for one test of the worker: topics and a group of its own on a real broker, contacts put there, commits read.

Nothing here goes through the product: contacts are encoded with plain fastavro, topics and commits are read with plain
confluent_kafka. So a mistake of the product cannot hide itself.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

# The stubs of the client do not list its own public names.
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)
from confluent_kafka.cimpl import NewTopic
from fastavro.schema import fingerprint, to_parsing_canonical_form
from kafka_fixture import make_topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SCHEMAS = Path(__file__).parents[1] / "schemas"
OUTPUTS = ("scores", "review", "rejected", "audit")
MEGABYTE = 1024 * 1024
# Of the retry topics: what a worker asks for.
RETENTION_MS = 30 * 86_400_000
# Generous: a loaded machine may be ten times as slow, and a test that waits for a condition loses nothing by it.
PATIENCE_S = 90.0
_LOOK_EVERY_S = 0.03


class Avro:
    """One schema of ours, used with plain fastavro; timestamps stay integers."""

    def __init__(self, file: str) -> None:
        text = (SCHEMAS / file).read_text(encoding="utf-8")
        raw = json.loads(text, object_hook=lambda part: {k: v for k, v in part.items() if k != "logicalType"})
        self.schema = fastavro.parse_schema(raw)
        name = fingerprint(to_parsing_canonical_form(raw), "CRC-64-AVRO")
        self.header = b"\xc3\x01" + bytes.fromhex(name)

    def body(self, value: Mapping[str, Any]) -> bytes:
        out = BytesIO()
        fastavro.schemaless_writer(out, self.schema, value)
        return out.getvalue()

    def encode(self, value: Mapping[str, Any]) -> bytes:
        return self.header + self.body(value)

    def decode(self, data: bytes | None) -> dict[str, Any]:
        assert data is not None, "a value of ours was expected, and it is null"
        assert data.startswith(self.header), f"no value of ours: {data[:10].hex()}"
        stream = BytesIO(data)
        stream.seek(len(self.header))
        value: dict[str, Any] = fastavro.schemaless_reader(stream, self.schema, None)  # type: ignore[assignment]
        assert stream.tell() == len(data), "bytes follow the end of the value"
        return value


FEATURES = Avro("contact-features.avsc")
SCORE = Avro("contact-score.avsc")
AUDIT = Avro("batch-audit.avsc")


@dataclass(frozen=True, slots=True)
class Input:
    """A record for the features topic; ``partition`` -1: by its key."""

    key: bytes | None
    value: bytes | None
    partition: int = -1
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)


def event(contact_id: str, **changes: Any) -> dict[str, Any]:
    """A good ``ContactFeatures`` value."""
    features = {"previous_calls": 3, "avg_handle_time": 210.5, "last_contact_days": 12, "segment_id": "retired"}
    return {
        "event_id": f"event-{contact_id}",
        "contact_id": contact_id,
        "features": features,
        "occurred_at": 1_700_000_000_000,
        "campaign_id": "spring",
        "model_version": None,
        "attributes": {},
        **changes,
    }


def contact(contact_id: str, partition: int = -1, headers: Any = (), **changes: Any) -> Input:
    """A record with a good contact, or one that is good but for ``changes``."""
    return Input(contact_id.encode(), FEATURES.encode(event(contact_id, **changes)), partition, list(headers))


def contacts(number: int, partitions: int, prefix: str = "C") -> Iterable[Input]:
    """Good contacts with distinct ids, dealt to the partitions in turn; every seventh has a feature to impute."""
    for n in range(number):
        contact_id = f"{prefix}-{n:06}"
        features = {
            "previous_calls": n % 9,
            "avg_handle_time": float(n % 700),
            "last_contact_days": None if n % 7 == 0 else n % 60,
            "segment_id": ("retired", "student", "services")[n % 3],
        }
        yield contact(contact_id, n % partitions, features=features)


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed offset with the metadata that came with it."""

    offset: int
    metadata: str


class ScoringHarness:
    """Topics, a group, and what stands in them."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        partitions: int = 4,
        replication: int = 1,
        retry_partitions: int = 1,
        configs: Mapping[str, Any] | None = None,
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.partitions = partitions
        self.replication = replication
        name = uuid.uuid4().hex[:12]
        self.group_id = f"group-{name}"
        self.topics = {kind: f"{kind}-{name}" for kind in ("features", *OUTPUTS)}
        self.retry_base = f"retry-{name}"
        self.retry_partitions = retry_partitions
        self._client: dict[str, Any] = {
            "bootstrap.servers": bootstrap_servers,
            "log_level": 0,
            "reconnect.backoff.max.ms": 500,
        }
        self._make(configs or {})

    def _make(self, configs: Mapping[str, Any]) -> None:
        ours = {
            "features": {"max.message.bytes": str(2 * MEGABYTE)},
            "rejected": {"max.message.bytes": str(2 * MEGABYTE)},
            "audit": {"retention.ms": str(400 * 86_400_000)},
        }
        admin = AdminClient(self._client)
        wanted = [
            NewTopic(topic, self.partitions, self.replication, config={**ours.get(kind, {}), **configs.get(kind, {})})
            for kind, topic in self.topics.items()
        ]
        kept = {"max.message.bytes": str(2 * MEGABYTE), "retention.ms": str(RETENTION_MS)}
        wanted += [NewTopic(topic, self.retry_partitions, self.replication, config=kept) for topic in self.retries]
        make_topics(admin, wanted)

    @property
    def retries(self) -> list[str]:
        """The retry topics of the default delays, level 1 first."""
        return [f"{self.retry_base}-{level}" for level in (1, 2, 3)]

    def set_config(self, kind: str, name: str, value: str) -> None:
        """Changes a property of a topic."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.topics[kind])
        resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET))
        admin = AdminClient(self._client)  # kept: its futures end with it
        for changed in admin.incremental_alter_configs([resource]).values():
            changed.result(30)

        def is_known() -> bool:
            [future] = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, self.topics[kind])]).values()
            return bool(future.result(30)[name].value == value)

        wait_until(is_known, f"the broker to know {name} of {self.topics[kind]}")

    def settings(self) -> dict[str, str]:
        """The environment variables that put a worker on this stage."""
        topics = {f"STREAM_SCORER_TOPICS__{kind.upper()}": topic for kind, topic in self.topics.items()}
        return {
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "STREAM_SCORER_KAFKA__GROUP_ID": self.group_id,
            "STREAM_SCORER_TOPICS__FEATURES_RETRY": self.retry_base,
            **topics,
        }

    def produce(self, inputs: Iterable[Input]) -> int:
        """Puts records on the features topic; how many."""
        producer = Producer(
            {
                **self._client,
                "acks": "all",
                "linger.ms": 5,
                "message.max.bytes": 3 * MEGABYTE,
                # A broker refuses a batch by its size: none is larger than its largest record.
                "batch.size": MEGABYTE,
                "queue.buffering.max.messages": 500_000,
            }
        )
        failures: list[str] = []
        number = 0
        for given in inputs:
            producer.produce(
                self.topics["features"],
                given.value,
                given.key,
                partition=given.partition,
                headers=given.headers,  # type: ignore[arg-type]  # the stub wants the invariant list of a wider union
                on_delivery=lambda error, _: failures.append(str(error)) if error else None,
            )
            number += 1
            if number % 1000 == 0:
                producer.poll(0)
        assert producer.flush(PATIENCE_S) == 0
        assert not failures, failures[0]
        return number

    def ends(self, kind: str = "features") -> dict[int, int]:
        """The next offset of every partition of a topic, committed or not."""
        with self.reader(isolation="read_uncommitted") as reader:
            places = [TopicPartition(self.topics[kind], number) for number in range(self.partitions)]

            def ask() -> dict[int, int] | None:
                try:
                    return {p.partition: reader.get_watermark_offsets(p, 10, cached=False)[1] for p in places}
                except KafkaException:
                    return None  # a broker that has just come back has no leaders yet

            found: dict[int, int] = wait_until(ask, f"the ends of {self.topics[kind]}")
            return found

    def commits(self) -> dict[int, Commit]:
        """The group's commits; a partition without one is left out."""
        with self.reader(self.group_id) as reader:
            return self._commits(reader)

    def retry_commits(self) -> dict[tuple[str, int], int]:
        """The group's commits on the retry topics; a partition without one is left out."""
        places = [TopicPartition(topic, number) for topic in self.retries for number in range(self.retry_partitions)]
        with self.reader(self.group_id) as reader:
            answers = _committed(reader, places)
        for answer in answers:
            if answer.error is not None:
                raise KafkaException(answer.error)
        return {(a.topic, a.partition): a.offset for a in answers if a.offset >= 0}

    def _commits(self, reader: Consumer) -> dict[int, Commit]:
        wanted = [TopicPartition(self.topics["features"], number) for number in range(self.partitions)]
        answers = _committed(reader, wanted)
        for answer in answers:
            if answer.error is not None:
                raise KafkaException(answer.error)
        return {a.partition: Commit(a.offset, a.metadata or "") for a in answers if a.offset >= 0}

    def commit_by_hand(self, offsets: Mapping[int, int]) -> None:
        """Sets commits of the group as an operator does with Kafka's own tools."""
        with self.reader(self.group_id) as reader:
            topic = self.topics["features"]
            reader.commit(
                offsets=[TopicPartition(topic, n, offset) for n, offset in offsets.items()], asynchronous=False
            )

    def watch(self) -> Progress:
        """A cheap way to look at the group's progress again and again."""
        return Progress(self)

    def watch_retries(self) -> WaitingContacts:
        """A cheap way to count the contacts in the retry topics again and again."""
        return WaitingContacts(self)

    def reader(self, group_id: str | None = None, *, isolation: str = "read_committed") -> Consumer:
        """A consumer that joins no group and stores no offset; a context manager."""
        return Consumer(
            {
                **self._client,
                "group.id": group_id or f"reader-{uuid.uuid4().hex}",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "max.partition.fetch.bytes": 4 * MEGABYTE,
                "fetch.wait.max.ms": 50,
            }
        )


class Progress:
    """How far the group has come; keeps one connection for as long as it is asked."""

    def __init__(self, arena: ScoringHarness) -> None:
        self._arena = arena
        self._reader = arena.reader(arena.group_id)

    def done(self) -> int:
        """Records below the committed offsets; -1 while the broker does not answer."""
        try:
            return sum(commit.offset for commit in self._arena._commits(self._reader).values())
        except KafkaException:
            return -1

    def by_partition(self) -> dict[int, int]:
        """The committed offsets, empty while the broker does not answer."""
        try:
            return {number: commit.offset for number, commit in self._arena._commits(self._reader).items()}
        except KafkaException:
            return {}

    def close(self) -> None:
        self._reader.close()


class WaitingContacts:
    """The contacts of the group in its retry topics that it has not committed; keeps its connections."""

    def __init__(self, arena: ScoringHarness) -> None:
        self._group_id = arena.group_id.encode()
        self._places = [(topic, number) for topic in arena.retries for number in range(arena.retry_partitions)]
        self._group = arena.reader(arena.group_id)
        self._written = arena.reader(isolation="read_uncommitted")
        self._reader = arena.reader()
        self._reader.assign([TopicPartition(*place, 0) for place in self._places])
        self._offsets: dict[tuple[str, int], list[int]] = {place: [] for place in self._places}
        self._ends: dict[tuple[str, int], int] = {}

    def number(self) -> int:
        """How many wait; -1 while a transaction is open or the broker does not answer."""
        try:
            # In this order: a contact that moves between two topics meanwhile is counted twice, not overlooked.
            answers = self._group.committed([TopicPartition(*place) for place in self._places], 10)
            ends = {
                place: self._written.get_watermark_offsets(TopicPartition(*place), 10, cached=False)[1]
                for place in self._places
            }
        except KafkaException:
            return -1
        self._read()
        if any(self._ends.get(place, -1) < end for place, end in ends.items()):
            return -1
        taken = {(answer.topic, answer.partition): answer.offset for answer in answers}
        return sum(offset >= taken[place] for place, offsets in self._offsets.items() for offset in offsets)

    def _read(self) -> None:
        while messages := self._reader.consume(1_000, 0.05):
            for message in messages:
                place, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
                if message.error() is not None:
                    self._ends[place] = offset
                elif ("stream-scorer-group", self._group_id) in (message.headers() or []):
                    self._offsets[place].append(offset)

    def close(self) -> None:
        for reader in (self._group, self._written, self._reader):
            reader.close()


_COORDINATOR_MOVES = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}


def _committed(reader: Consumer, places: list[TopicPartition]) -> list[TopicPartition]:
    """The commits of a reader's group; asked for again while a busy broker does not coordinate it."""
    found: list[TopicPartition] = []

    def is_answered() -> bool:
        try:
            found[:] = reader.committed(places, 10)
        except KafkaException as error:
            if error.args[0].code() not in _COORDINATOR_MOVES:
                raise
            return False
        return True

    wait_until(is_answered, "the group's commits")
    return found


def wait_until(condition: Callable[[], Any], what: str | Callable[[], str], limit_s: float = PATIENCE_S) -> Any:
    """Looks again and again until ``condition`` gives something true, and returns that."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {limit_s:g} s in vain: {what() if callable(what) else what}"
        time.sleep(_LOOK_EVERY_S)
    return found
