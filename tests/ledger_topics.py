"""Records of a scoring worker written by the test: inputs, outputs, audits and commits, with optional faults."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from kafka_fixture import is_known, make_topics
from scoring_harness import wait_until

from stream_scorer.core.audit.hash_chain import AuditChain, counts_of
from stream_scorer.core.avro.codec import Codec
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pytest

AUDIT = Codec.single_object(load_schema(SchemaFile.BATCH_AUDIT))
SCORE = Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE))
CONTACT = Codec.single_object(load_schema(SchemaFile.CONTACT_FEATURES))
KEY = b"c"
# Of every input: only its location differs.
INPUT = CONTACT.encode(
    {
        "event_id": "e",
        "contact_id": "c",
        "features": {"age": 40},
        "occurred_at": 0,
        "campaign_id": None,
        "model_version": None,
        "attributes": {},
    }
)
REASON = "out_of_range"
PARTITIONS = 2
NAMES = ("features", "scores", "review", "rejected", "audit")
SETTINGS = (*NAMES, "features_retry")


@dataclass(frozen=True)
class Out:
    """What is published of one input record.

    ``to`` names the topic's setting; None: nothing is published. ``audited`` is the outcome in the audit,
    None: it has no entry there; ``header_batch`` the batch id of the header; empty: that of the audit. ``value``
    replaces the correct value.
    """

    offset: int
    partition: int = 0
    to: str | None = "scores"
    audited: str | None = "SCORED"
    header_batch: str = ""
    lane: int | None = None
    value: bytes | None = None


def outs(offsets: Iterable[int], **fields: Any) -> list[Out]:
    return [Out(offset, **fields) for offset in offsets]


def review(offset: int) -> Out:
    return Out(offset, to="review", audited="REVIEW")


def rejected(offset: int) -> Out:
    return Out(offset, to="rejected", audited="REJECTED")


@dataclass
class Ledger:
    """Topics and a group of one test. Outputs go to partition ``lane`` of their topic, by default that of the input."""

    servers: str
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    shared: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[str, dict[str, str]] = field(default_factory=dict)
    group_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.group_id = f"group-{self.name}"
        admin = AdminClient({"bootstrap.servers": self.servers})
        topics = {self.topic(name): self.configs.get(name, {}) for name in NAMES}
        wanted = [NewTopic(topic, PARTITIONS, 1, config=config) for topic, config in topics.items()]
        make_topics(admin, wanted)

    def topic(self, name: str) -> str:
        return f"{self.shared.get(name, name)}-{self.name}"

    @property
    def settings(self) -> Settings:
        topics = {name: self.topic(name) for name in SETTINGS}
        kafka = {"bootstrap_servers": self.servers, "group_id": self.group_id}
        return Settings.model_validate({"kafka": kafka, "topics": topics})

    def set_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS", self.servers)
        monkeypatch.setenv("STREAM_SCORER_KAFKA__GROUP_ID", self.group_id)
        for name in SETTINGS:
            monkeypatch.setenv(f"STREAM_SCORER_TOPICS__{name.upper()}", self.topic(name))

    def put_inputs(self, count: int, partition: int = 0) -> None:
        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 0})
        for _ in range(count):
            producer.produce(self.topic("features"), INPUT, KEY, partition=partition)
        assert producer.flush(30) == 0

    def put_inputs_in_transaction(self, count: int, *, commit: bool) -> None:
        """Produce so many records to partition 0 in a transaction, which ends with a marker."""
        stable_end = self._stable_end()
        producer = self.producer()
        producer.begin_transaction()
        for _ in range(count):
            producer.produce(self.topic("features"), INPUT, KEY, partition=0)
        if commit:
            producer.commit_transaction(30)
        else:
            assert producer.flush(30) == 0
            producer.abort_transaction(30)
        # The broker responds before the marker is in the log, and the next record may be written before it.
        wait_until(lambda: self._stable_end() >= stable_end + count + 1, "the transaction's marker")

    def _stable_end(self) -> int:
        reader = Consumer(
            {"bootstrap.servers": self.servers, "group.id": "unused", "isolation.level": "read_committed"}
        )
        try:
            return int(reader.get_watermark_offsets(TopicPartition(self.topic("features"), 0), 10)[1])
        except KafkaException:  # the metadata of a new topic takes time to propagate
            return 0
        finally:
            reader.close()

    def producer(self) -> Producer:
        name = uuid.uuid4().hex
        producer = Producer({"bootstrap.servers": self.servers, "transactional.id": name, "linger.ms": 0})
        producer.init_transactions(30)
        return producer

    def reset_commit(
        self, offset: int, metadata: str | None = None, partition: int = 0, topic: str | None = None
    ) -> None:
        """Commit as an operator does: outside of any transaction, without metadata."""
        consumer = self._consumer()
        name = self.topic("features") if topic is None else topic
        consumer.commit(offsets=[TopicPartition(name, partition, offset, metadata or "")], asynchronous=False)
        consumer.close()

    def _consumer(self) -> Consumer:
        return Consumer({"bootstrap.servers": self.servers, "group.id": self.group_id})

    def delete_before(self, name: str, offset: int, partition: int = 0) -> None:
        """Delete the records of a topic below an offset, as retention does."""
        admin = AdminClient({"bootstrap.servers": self.servers})
        for deleted in admin.delete_records([TopicPartition(self.topic(name), partition, offset)]).values():
            deleted.result(30)

    def replace(self, name: str) -> None:
        """Delete a topic and create it again."""
        admin, topic = AdminClient({"bootstrap.servers": self.servers}), self.topic(name)
        admin.delete_topics([topic], operation_timeout=30)[topic].result(30)

        def is_created() -> bool:
            [future] = admin.create_topics([NewTopic(topic, PARTITIONS, 1)], operation_timeout=30).values()
            return future.exception(30) is None  # the topic exists until the deletion has reached the broker

        wait_until(is_created, f"topic {topic} to be created again")

        # An earlier transaction to it fails.
        wait_until(lambda: is_known(admin, topic), f"the broker to know topic {topic}")

    def make_retry_topic(self) -> str:
        """The first retry topic, with as many partitions as the others have."""
        name = f"{self.topic('features_retry')}-1"
        admin = AdminClient({"bootstrap.servers": self.servers})
        make_topics(admin, [NewTopic(name, PARTITIONS, 1)])
        return name

    def put_retry(self, topic: str, offset: int, *, group: str | None = None) -> None:
        """A record of a retry topic, of partition 0, which names an input of partition 0."""
        headers: list[tuple[str, str | bytes | None]] = [
            ("stream-scorer-source", f"{self.topic('features')}/0/{offset}".encode()),
            ("stream-scorer-group", (self.group_id if group is None else group).encode()),
        ]
        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 0})
        producer.produce(topic, INPUT, KEY, partition=0, headers=headers)
        assert producer.flush(30) == 0

    def scorer(self) -> Scorer:
        return Scorer(self)


class Scorer:
    """One producer session with its hash chain."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._producer = ledger.producer()
        self._chain = AuditChain(uuid.uuid4().hex, AUDIT)

    def publish(
        self,
        published: list[Out],
        committed: int | None = None,
        *,
        start: int = 0,
        partition: int = 0,
        spoil_audit: bool = False,
    ) -> None:
        """Publish one transaction; ``committed`` is the offset it commits for the partition, if any."""
        self.begin(published, committed, start=start, partition=partition, spoil_audit=spoil_audit)
        self.commit()

    def begin(
        self,
        published: list[Out],
        committed: int | None = None,
        *,
        start: int = 0,
        partition: int = 0,
        spoil_audit: bool = False,
    ) -> None:
        batch_id = uuid.uuid4().hex
        self._producer.begin_transaction()
        for out in published:
            self._output(out, batch_id)
        self._plan = self._chain.plan([_event(batch_id, list(self._entries(published)))])
        for value in self._plan.values:
            spoilt = value.replace(b"a model", b"A MODEL") if spoil_audit else value
            self._producer.produce(self._ledger.topic("audit"), spoilt, self._chain.key)
        if committed is not None:
            place = TopicPartition(self._ledger.topic("features"), partition, committed, f"start={start}")
            consumer = self._ledger._consumer()
            self._producer.send_offsets_to_transaction([place], consumer.consumer_group_metadata(), 30)
            consumer.close()
        assert self._producer.flush(30) == 0

    def commit(self) -> None:
        self._producer.commit_transaction(30)
        self._chain.confirm(self._plan)

    def abort(self) -> None:
        self._producer.abort_transaction(30)

    def skip_a_link(self) -> None:
        """Leave an event out of the chain."""
        self._chain.confirm(self._chain.plan([_event("lost", [])]))

    def _output(self, out: Out, batch_id: str) -> None:
        if out.to is None:
            return
        headers: list[tuple[str, str | bytes | None]] = [
            ("traceparent", b"00-1-1-00"),
            ("stream-scorer-source", self._source(out).encode()),
            ("stream-scorer-batch", (out.header_batch or batch_id).encode()),
        ]
        if out.to == "rejected":
            headers.append(("stream-scorer-error-reason", REASON.encode()))
        value = INPUT if out.to == "rejected" else SCORE.encode(_score(batch_id, review=out.to == "review"))
        value = value if out.value is None else out.value
        lane = out.partition if out.lane is None else out.lane
        self._producer.produce(self._ledger.topic(out.to), value, KEY, lane, headers=headers)

    def _source(self, out: Out) -> str:
        return f"{self._ledger.topic('features')}/{out.partition}/{out.offset}"

    def _entries(self, published: list[Out]) -> Iterator[dict[str, Any]]:
        for out in published:
            if out.audited is not None:
                none = out.audited == "REJECTED"
                reasons = {"SCORED": [], "REVIEW": ["narrow_interval"], "REJECTED": [REASON]}
                yield {
                    "source": self._source(out),
                    "contact_id": "c",
                    "outcome": out.audited,
                    "score": None if none else 0.5,
                    "confidence_lower": None if none else 0.4,
                    "confidence_upper": None if none else 0.6,
                    "imputed_features": [],
                    "reasons": reasons[out.audited],
                    "event_id": "e",
                    "features_hash": None,
                    "reused_from": None,
                    "billed": True,
                }


def _score(batch_id: str, *, review: bool) -> dict[str, Any]:
    return {
        "event_id": "e",
        "contact_id": "c",
        "campaign_id": None,
        "model_id": "a model",
        "model_version": None,
        "score": 0.5,
        "confidence_lower": 0.4,
        "confidence_upper": 0.6,
        "latency_ms": 1.0,
        "occurred_at": 0,
        "scored_at": 0,
        "imputed_features": [],
        "batch_id": batch_id,
        "review_reasons": ["narrow_interval"] if review else [],
        "attributes": {},
    }


def _event(batch_id: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "batch_id": batch_id,
        "model_id": "a model",
        "model_version": None,
        "request_contacts": len(entries),
        "started_at": 0,
        "finished_at": 0,
        "latency_ms": 1.0,
        "attempts": 1,
        "api_status": 200,
        "correlation_id": None,
        "counts": counts_of(entries),
        "contacts": entries,
    }
