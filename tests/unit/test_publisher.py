"""The publisher against a scripted sink and group, with the real ledger, encoder and audit chain."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

from stream_scorer.core.audit.events import verify_chain
from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.records import Partition, SourceRecord
from stream_scorer.core.scoring.types import Contact, Deferred, Rejected, RequestAudit, Scored, Skipped
from stream_scorer.errors import BrokerRefused, BrokerUnavailable, ProducerFenced
from stream_scorer.kafka.producer.records import Committed, Failed, RecordsRejected
from stream_scorer.runtime.clock import Clock
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.scoring.output_records import Encoder, OutputTopics
from stream_scorer.scoring.ports import OutcomeLedger, Untraced
from stream_scorer.scoring.publisher import Publisher
from stream_scorer.scoring.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from confluent_kafka import TopicPartition

    from stream_scorer.core.records import Headers
    from stream_scorer.core.scoring.types import Outcome
    from stream_scorer.kafka.producer.records import OutRecord, Publication

IN = Partition("in", 0)
OTHER = Partition("in", 1)
RETRY = Partition("retry-1", 0)
AUDIT = Codec.single_object(load_schema(SchemaFile.BATCH_AUDIT))
SCORES = Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE))
LIMITS = {
    "scores": 1_000_000,
    "review": 1_000_000,
    "rejected": 2_000_000,
    "audit": 1_000_000,
    "retry-1": 1_000_000,
    "retry-2": 1_000_000,
}


class FakeSink:
    """Sink with scripted responses; committed transactions are visible in ``log``."""

    def __init__(self) -> None:
        self.answers: list[Publication | Callable[[list[OutRecord]], Publication]] = []
        self.opened = 0
        self.log: list[OutRecord] = []
        self.offsets: dict[Partition, tuple[int, str]] = {}
        self.sizes: list[int] = []
        self.refuses_all = False
        self._open = False

    @property
    def is_open(self) -> bool:
        return self._open

    def open(self) -> Failed | None:
        self.opened += 1
        self._open = True
        return None

    def close(self) -> None:
        self._open = False

    def publish(self, records: list[OutRecord], offsets: list[TopicPartition], group: Any) -> Publication:
        assert group == "generation 1"
        assert self._open
        self.sizes.append(len(records))
        answer = self.answers.pop(0) if self.answers else Committed()
        if self.refuses_all:
            answer = RecordsRejected(dict.fromkeys(range(len(records)), "Broker failed to validate record"))
        if callable(answer):
            answer = answer(records)
        if isinstance(answer, Committed):
            self.accept(records, offsets)
        else:
            self._open = False
        return answer

    def accept(self, records: Iterable[OutRecord], offsets: Iterable[TopicPartition]) -> None:
        self.log += records
        for offset in offsets:
            self.offsets[Partition(offset.topic, offset.partition)] = (offset.offset, offset.metadata)

    def sources(self) -> list[int]:
        found = [dict(r.headers)["stream-scorer-source"] for r in self.log if r.topic != "audit"]
        return [int(source.decode().split("/")[2]) for source in found if source is not None]


class FakeGroup:
    def __init__(self, sink: FakeSink) -> None:
        self._sink = sink
        self.unavailable = False
        self.member = True
        self.topics_error: BrokerUnavailable | BrokerRefused | None = None
        self.ends: dict[Partition, int] = {}

    def group_metadata(self) -> str | None:
        return "generation 1" if self.member else None

    def check_topics(self, _topics: Collection[str]) -> None:
        if self.topics_error is not None:
            raise self.topics_error

    def commit_offset(self, partition: Partition, next_offset: int) -> int:
        return max(next_offset, self.ends.get(partition, 0))

    def commit_metadata(self, _partition: Partition, start_offset: int) -> str:
        return f"start={start_offset}"

    def committed(self, partitions: list[Partition]) -> dict[Partition, int]:
        if self.unavailable:
            raise BrokerUnavailable("no coordinator")
        return {p: self._sink.offsets[p][0] for p in partitions if p in self._sink.offsets}


class Silent:
    """Observer that records the published offsets and the failures."""

    def __init__(self) -> None:
        self.counted: list[list[int]] = []
        self.troubles: list[str | None] = []

    def commit_blocked(self, message: str | None) -> None:
        self.troubles.append(message)

    def published(self, outcomes: Iterable[Outcome], *, records: int) -> None:
        assert records
        self.counted.append([outcome.record.offset for outcome in outcomes])

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_fields: None


class Harness:
    def __init__(self, limits: dict[str, int] = LIMITS) -> None:
        self.now = 100.0
        ids = itertools.count()
        self.ledger = OutcomeLedger()
        self.ledger.assign(IN, start_offset=5, next_offset=10)
        self.sink = FakeSink()
        self.group = FakeGroup(self.sink)
        self.observe = observe = Silent()
        self.counted = observe.counted
        self.publisher = Publisher(
            sink=self.sink,
            group=self.group,
            ledger=self.ledger,
            encoder=Encoder(
                OutputTopics("scores", "review", "rejected", "audit", limits, "retry"), "group", SCORES, Untraced()
            ),
            audit_topic="audit",
            audit_codec=AUDIT,
            model_id="m",
            model_version=None,
            commit_interval_s=0.2,
            clock=Clock(lambda: self.now, lambda: 1_700_000_000_000, lambda: 0.5, lambda: f"id-{next(ids)}"),
            observe=observe,  # type: ignore[arg-type]
            trace=Untraced(),
            retry_topics=["retry-1"],
        )

    def finish(
        self,
        offset: int,
        *,
        value: bytes = b"v",
        key: bytes = b"k",
        campaign: str | None = None,
        partition: int = 0,
    ) -> None:
        record = SourceRecord(
            "in", partition, offset, key, value, [("traceparent", b"00-1"), ("stream-scorer-batch", b"old")]
        )
        assert self.ledger.read(record)
        contact = Contact(record, f"e{offset}", f"c{offset}", campaign, 1, None, False, (), b"{}")
        facts = RequestAudit("batch-1", "m", None, 1, 1, 2, 3.0, 1, 200, "corr")
        self.ledger.finish(Scored(contact, facts, 0.5, 0.3, 0.7, ()))

    def reject(self, offset: int, *, value: bytes | None = b"v", key: bytes = b"k", header: bytes = b"") -> None:
        record = SourceRecord("in", 0, offset, key, value, [("h", header)])
        assert self.ledger.read(record)
        self.ledger.finish(Rejected(record, ("undecodable",), "it is no Avro", "", 1_700_000_000_000))

    def defer(self, offset: int, *, level: int = 1, value: bytes = b"v", held: str = "", origin: str = "") -> None:
        headers: Headers = [("h", b"1"), ("stream-scorer-deferred", b"7"), ("stream-scorer-group", b"old")]
        record = SourceRecord("in", 0, offset, b"k", value, headers, origin=origin)
        assert self.ledger.read(record)
        self.ledger.finish(Deferred(record, f"c{offset}", 2, level, 1_700_000_060_000, held))

    def skip(self, offset: int) -> None:
        record = SourceRecord("in", 0, offset, b"k", b"v", [])
        assert self.ledger.read(record)
        self.ledger.finish(Skipped(record))

    def publish(self) -> bool:
        """Publish again, after the backoff of the last failure."""
        self.now += 1.0
        return self.publisher.flush()

    def audits(self) -> list[dict[str, Any]]:
        return [AUDIT.decode(r.value) for r in self.sink.log if r.topic == "audit"]


def test_a_transaction_holds_records_audit_and_offsets_with_the_start_of_the_group() -> None:
    harness = Harness()
    harness.finish(10)
    harness.finish(12)
    assert harness.publish()
    assert harness.sink.sources() == [10, 12]
    assert harness.sink.offsets[IN] == (13, "start=5")
    assert [entry["source"] for event in harness.audits() for entry in event["contacts"]] == ["in/0/10", "in/0/12"]
    assert harness.ledger.uncommitted == 0


def test_headers_have_source_and_batch_and_keep_foreign_headers() -> None:
    harness = Harness()
    harness.finish(10)
    harness.publish()
    score = harness.sink.log[0]
    assert score.topic == "scores"
    assert score.key == b"c10"
    assert score.headers == [
        ("stream-scorer-source", b"in/0/10"),
        ("stream-scorer-batch", b"batch-1"),
        ("traceparent", b"00-1"),
    ]


def test_a_deferred_contact_is_its_record_with_its_state_and_no_audit_entry() -> None:
    harness = Harness()
    harness.finish(10)
    harness.defer(11, level=2, held="refused_by_api/400/v1")
    harness.finish(12)
    assert harness.publish()
    assert harness.sink.offsets[IN] == (13, "start=5")
    [deferred] = [record for record in harness.sink.log if record.topic == "retry-2"]
    assert (deferred.key, deferred.value) == (b"k", b"v")
    assert deferred.headers == [
        ("h", b"1"),
        ("stream-scorer-source", b"in/0/11"),
        ("stream-scorer-deferred", b"2"),
        ("stream-scorer-not-before", b"1700000060000"),
        ("stream-scorer-group", b"group"),
        ("stream-scorer-held", b"refused_by_api/400/v1"),
    ]
    assert [entry["source"] for event in harness.audits() for entry in event["contacts"]] == ["in/0/10", "in/0/12"]
    assert harness.counted == [[10, 11, 12]]


def test_a_contact_deferred_again_keeps_its_location_on_the_features_topic() -> None:
    harness = Harness()
    harness.defer(10, origin="features/3/17")
    harness.publish()
    headers = dict(harness.sink.log[0].headers)
    assert headers["stream-scorer-source"] == b"features/3/17"
    assert "stream-scorer-held" not in headers


def test_the_outcome_of_a_deferred_contact_has_its_rounds_and_its_location_on_the_features_topic() -> None:
    harness = Harness()
    headers: Headers = [("h", b"1"), ("stream-scorer-deferred", b"3"), ("stream-scorer-group", b"group")]
    record = SourceRecord("in", 0, 10, b"k", b"v", headers, origin="features/3/17")
    assert harness.ledger.read(record)
    harness.ledger.finish(Rejected(record, ("refused_by_api",), "refused", "c", 1_700_000_000_000))
    harness.publish()
    rejected = harness.sink.log[0]
    assert rejected.topic == "rejected"
    assert rejected.headers[:4] == [
        ("stream-scorer-source", b"features/3/17"),
        ("stream-scorer-batch", b"id-1"),
        ("stream-scorer-deferred", b"3"),
        ("h", b"1"),
    ]
    assert [entry["source"] for event in harness.audits() for entry in event["contacts"]] == ["features/3/17"]


def test_a_deferred_contact_that_does_not_fit_into_its_topic_is_rejected_with_its_value() -> None:
    harness = Harness({**LIMITS, "retry-1": 2_000})
    harness.defer(10, value=b"v" * 3_000)
    harness.finish(11)
    assert harness.publish()
    rejected = harness.sink.log[0]
    assert (rejected.topic, rejected.value) == ("rejected", b"v" * 3_000)
    said = dict(rejected.headers)
    assert said["stream-scorer-error-reason"] == b"unpublishable"
    assert b"retry topic" in (said["stream-scorer-error-detail"] or b"")
    assert harness.sink.sources() == [10, 11]


def test_a_deferred_contact_that_the_broker_refuses_is_rejected() -> None:
    harness = Harness()
    harness.defer(10)
    harness.sink.answers = [RecordsRejected({0: "too large"})]
    assert not harness.publish()
    assert harness.publish()
    assert harness.sink.log[0].topic == "rejected"
    [[entry]] = [event["contacts"] for event in harness.audits()]
    assert (entry["contact_id"], entry["reasons"]) == ("c10", ["unpublishable"])


def test_a_skipped_record_is_committed_without_output() -> None:
    harness = Harness()
    harness.skip(10)
    harness.skip(11)
    assert harness.publish()
    assert harness.sink.log == []
    assert harness.counted == []
    assert harness.sink.offsets[IN] == (12, "start=5")
    harness.finish(12)
    harness.skip(13)
    harness.finish(14)
    assert harness.publish()
    assert harness.sink.sources() == [12, 14]
    assert harness.sink.offsets[IN] == (15, "start=5")
    assert harness.counted == [[12, 14]]


def test_commits_on_retry_topics_are_renewed_although_nothing_is_read_there() -> None:
    """The group is not subscribed to them, so the broker deletes commits older than its retention."""
    harness = Harness()
    harness.ledger.assign(RETRY, start_offset=2, next_offset=7)
    assert harness.publish()
    assert harness.sink.sizes == [], "there is nothing to commit"
    harness.now += 60
    harness.publisher.flush_due()
    assert harness.sink.offsets == {RETRY: (7, "start=2")}
    harness.finish(10)
    harness.now += 1800
    assert harness.publish()
    assert harness.sink.sizes == [0, 2]
    harness.sink.offsets.clear()
    harness.finish(11)
    harness.now += 1800
    harness.publisher.flush_due()
    assert harness.sink.offsets == {IN: (12, "start=5"), RETRY: (7, "start=2")}
    harness.publisher.flush_due()
    assert len(harness.sink.sizes) == 3


def test_a_renewal_that_fails_is_repeated_and_repeats_what_is_committed() -> None:
    harness = Harness()
    harness.ledger.assign(RETRY, start_offset=2, next_offset=7)
    assert harness.ledger.read(SourceRecord("retry-1", 0, 8, b"k", b"v", []))
    harness.now += 60
    harness.sink.answers = [Failed("no broker")]
    assert not harness.publish()
    assert harness.publish()
    assert harness.sink.offsets == {RETRY: (8, "start=2")}, "the record at 8 is read and not finished"


def test_without_retry_partitions_nothing_is_renewed() -> None:
    harness = Harness()
    harness.now += 7200
    assert harness.publish()
    assert harness.sink.sizes == []


def test_a_failed_transaction_is_published_again_by_a_new_producer_with_a_new_chain() -> None:
    harness = Harness()
    harness.finish(10)
    harness.sink.answers = [Failed("broken")]
    assert not harness.publish()
    assert harness.ledger.uncommitted == 1
    assert harness.publish()
    assert harness.sink.sources() == [10]
    assert harness.sink.opened == 2


def test_recovery_is_reported_at_the_first_commit_and_not_with_a_new_producer() -> None:
    """If a right is missing, each new producer is valid and each transaction fails: one failure, reported once."""
    harness = Harness()
    harness.finish(10)
    harness.sink.answers = [Failed("no right"), Failed("no right")]
    assert not harness.publish()
    harness.now += 1.0
    harness.publisher.flush_due()
    assert harness.sink.opened == 2
    assert harness.observe.troubles == ["no right", "no right"]
    assert harness.publish()
    assert harness.observe.troubles == ["no right", "no right", None]


def test_recovery_is_reported_with_a_new_producer_if_nothing_is_left_to_commit() -> None:
    harness = Harness()
    harness.finish(10)
    harness.sink.answers = [Failed("no broker")]
    assert not harness.publish()
    harness.ledger.revoke(IN, set())
    harness.now += 1.0
    harness.publisher.flush_due()
    assert harness.observe.troubles == ["no broker", None]


def test_the_first_session_may_take_ten_seconds_before_a_failure_is_reported() -> None:
    """On a new cluster the transaction coordinator has to be created first: no warning of a healthy worker."""
    harness = Harness()
    harness.sink.open = lambda: Failed("_TIMED_OUT: retry call to resume")  # type: ignore[method-assign]
    for _ in range(10):
        assert not harness.publisher.open()
        harness.now += 1.0
    assert harness.observe.troubles == []
    assert not harness.publisher.open()
    assert harness.observe.troubles == ["_TIMED_OUT: retry call to resume"]


def test_an_unknown_commit_is_resolved_by_the_offsets_and_not_published_twice() -> None:
    harness = Harness()
    harness.finish(10)
    harness.finish(11)

    def commit_and_lose_the_answer(records: list[OutRecord]) -> Failed:
        harness.sink.log += records
        harness.sink.offsets[IN] = (12, "start=5")
        return Failed("timed out")

    harness.sink.answers = [commit_and_lose_the_answer]
    assert not harness.publish()
    assert harness.counted == []
    harness.finish(12)
    assert harness.publish()
    assert harness.sink.sources() == [10, 11, 12]
    assert harness.counted == [[10, 11], [12]], "what is settled counts as well, and once"
    chains = {event["chain_id"] for event in harness.audits()}
    assert len(chains) == 2, "only a confirmed commit may be linked to"
    for chain in chains:
        values = [r.value for r in harness.sink.log if r.topic == "audit" and r.key == chain.encode()]
        assert verify_chain([value for value in values if value is not None], AUDIT) == []


def test_an_unknown_commit_of_a_revoked_partition_is_not_counted() -> None:
    harness = Harness()
    other = Partition("in", 1)
    harness.ledger.assign(other, start_offset=0, next_offset=0)
    harness.finish(10)
    assert harness.ledger.read(SourceRecord("in", 1, 0, b"k", b"v", []))
    harness.ledger.finish(Rejected(SourceRecord("in", 1, 0, b"k", b"v", []), ("undecodable",), "", "", 0))

    def commit_and_lose_the_answer(records: list[OutRecord]) -> Failed:
        harness.sink.log += records
        harness.sink.offsets.update({IN: (11, "start=5"), other: (1, "start=0")})
        return Failed("timed out")

    harness.sink.answers = [commit_and_lose_the_answer]
    assert not harness.publish()
    harness.ledger.revoke(other)
    assert harness.publish()
    assert harness.counted == [[10]]


def test_nothing_is_published_while_a_commit_is_unresolved() -> None:
    harness = Harness()
    harness.finish(10)
    harness.sink.answers = [Failed("timed out")]
    harness.publish()
    harness.group.unavailable = True
    assert not harness.publish()
    assert harness.publisher._committer.last_error == "no coordinator"
    assert len(harness.sink.sizes) == 1
    harness.group.unavailable = False
    assert harness.publish()
    assert harness.publisher._committer.last_error is None
    assert harness.sink.sources() == [10]


def test_a_worker_removed_from_its_group_starts_no_transaction() -> None:
    harness = Harness()
    harness.finish(10)
    harness.group.member = False
    assert not harness.publish()
    assert harness.publisher.is_stale
    assert harness.sink.sizes == []


def test_nothing_of_a_recreated_topic_is_committed_even_at_shutdown() -> None:
    harness = Harness()
    harness.finish(10)
    harness.group.topics_error = BrokerRefused("topic in was deleted and created again")
    with pytest.raises(BrokerRefused):
        harness.publish()
    harness.group.topics_error = None
    assert not harness.publish()
    assert harness.publisher.is_stale
    assert harness.sink.offsets == {}


def test_a_topic_with_an_unreadable_id_blocks_the_commit() -> None:
    harness = Harness()
    harness.finish(10)
    harness.group.topics_error = BrokerUnavailable("topic in does not exist now")
    assert not harness.publish()
    assert harness.publisher._committer.last_error == "topic in does not exist now"
    assert harness.sink.sizes == []
    harness.group.topics_error = None
    assert harness.publish()
    assert harness.publisher._committer.last_error is None
    assert harness.sink.sources() == [10]


def test_a_revocation_commits_the_outcomes_rejected_by_the_previous_rebalance() -> None:
    """Otherwise the new owner of the partitions pays again for what is finished here."""
    harness = Harness()
    harness.finish(10)
    harness.sink.answers = [Failed("ILLEGAL_GENERATION", stale=True)]
    assert not harness.publish()
    assert harness.publisher.is_stale
    assert not harness.publisher.flush(), "too early, as long as the group reports nothing"
    revoke(harness)
    assert harness.sink.sources() == [10]


def test_a_revocation_does_not_wait_after_another_rebalance() -> None:
    harness = Harness()
    harness.finish(10)
    harness.sink.answers = [Failed("ILLEGAL_GENERATION", stale=True)] * 2
    assert not harness.publish()
    revoke(harness)
    assert harness.sink.sources() == []
    assert harness.sink.answers == []


def test_a_revocation_with_late_responses_commits_the_finished_outcomes() -> None:
    harness = Harness()
    harness.finish(10)

    def wait(_wait_s: float) -> None:
        harness.now += 1.0

    revoke(harness, MagicMock(has_in_flight=lambda _: True, may_finish=lambda _: True, handle_responses=wait))
    assert harness.now >= 105.0, "it waited as long as it may"
    assert harness.sink.sources() == [10]


def revoke(harness: Harness, dispatcher: Any = None) -> None:
    """Revoke the partition as the group does; without a dispatcher no request is in flight."""
    nothing: Any = MagicMock()
    dispatcher = dispatcher or MagicMock(has_in_flight=lambda _: False, may_finish=lambda _: False)
    worker = Worker(
        **dict.fromkeys(
            (
                "source",
                "pending_schemas",
                "flow",
                "retry_partitions",
                "retries",
                "intake",
                "breaker",
                "quota",
                "observe",
                "trace",
            ),
            nothing,
        ),
        dispatcher=dispatcher,
        ledger=harness.ledger,
        publisher=harness.publisher,
        clock=Clock(lambda: harness.now, lambda: 0, lambda: 0.5, lambda: "id"),
        stopping=threading.Event(),
        session_timeout_s=3.0,
        revoke_wait_s=5.0,
        shutdown_timeout_s=5.0,
    )
    worker.on_revoking([IN])


def test_a_single_refused_record_becomes_unpublishable_and_the_rest_is_published() -> None:
    harness = Harness()
    harness.finish(10)
    harness.finish(11)
    harness.sink.answers = [RecordsRejected({1: "policy"})]
    assert not harness.publish()
    assert harness.publish()
    assert harness.sink.sources() == [10, 11]
    rejected = harness.sink.log[1]
    assert rejected.topic == "rejected"
    assert (rejected.key, rejected.value) == (b"k", b"v")
    assert dict(rejected.headers)["stream-scorer-error-reason"] == b"unpublishable"
    assert [e["outcome"] for event in harness.audits() for e in event["contacts"]] == ["SCORED", "REJECTED"]


def test_a_broker_that_refuses_most_records_rejects_no_contact() -> None:
    """With a wrong clock, several rejected timestamps in one batch are reported as invalid records."""
    harness = Harness()
    for offset in range(10, 14):
        harness.finish(offset)
    harness.sink.refuses_all = True
    for _ in range(8):
        assert not harness.publish()
    assert harness.sink.sizes[-1] == 2, "a score and its audit event, still refused"
    trouble = harness.publisher._committer.last_error or ""
    assert trouble.startswith("the broker refuses 2 of 2 records of a transaction, so no contact is rejected for it: ")
    assert harness.sink.log == []
    harness.sink.refuses_all = False
    while harness.sink.sources() != [10, 11, 12, 13]:
        assert harness.publish()
    assert {record.topic for record in harness.sink.log} == {"scores", "audit"}
    assert harness.publisher._committer.last_error is None


def test_a_topic_that_refuses_one_record_after_the_other_rejects_three_contacts_and_then_none() -> None:
    """The cause is the topic's: its validation, a policy, a limit that was lowered."""
    harness = Harness()
    for offset in range(10, 30):
        harness.finish(offset)

    def refuse_scores(records: list[OutRecord]) -> Publication:
        scores = [index for index, record in enumerate(records) if record.topic == "scores"]
        return RecordsRejected({scores[0]: "Broker failed to validate record"}) if scores else Committed()

    harness.sink.answers = [refuse_scores] * 60
    for _ in range(60):
        harness.publish()
    assert harness.sink.answers == []
    assert harness.sink.sizes[-1] == 2, "a score and its audit event, still refused"
    trouble = harness.publisher._committer.last_error or ""
    assert trouble.startswith("topic scores has refused 3 records in a row, so no further contact is rejected for it: ")
    for _ in range(20):
        harness.publish()
    assert harness.sink.sources() == list(range(10, 30))
    assert Counter(record.topic for record in harness.sink.log if record.topic != "audit")["rejected"] == 3


def test_a_head_rejected_by_its_topic_does_not_block_other_partitions() -> None:
    harness = Harness()
    harness.ledger.assign(OTHER, start_offset=0, next_offset=0)

    def refuse_those_of_in_0(records: list[OutRecord]) -> Publication:
        refused = [index for index, record in enumerate(records) if b"in/0/10" in dict(record.headers).values()]
        return RecordsRejected({refused[0]: "policy"}) if refused else Committed()

    harness.reject(10)
    for offset in range(4):
        harness.finish(offset, partition=OTHER.number)
    harness.sink.answers = [refuse_those_of_in_0] * 60
    for _ in range(20):
        harness.publish()
    assert harness.sink.sources() == [0, 1, 2, 3]
    assert harness.sink.offsets[OTHER] == (4, "start=0")


def test_a_commit_moves_behind_markers_while_another_partition_is_busy() -> None:
    harness = Harness()
    harness.ledger.assign(OTHER, start_offset=0, next_offset=3)
    harness.group.ends = {OTHER: 5}
    for offset in range(10, 13):
        harness.finish(offset)
        harness.publish()
        harness.now += 2
    assert harness.sink.offsets == {IN: (13, "start=5"), OTHER: (5, "start=0")}
    assert harness.ledger.read(SourceRecord("in", 1, 5, b"k", b"v", []))


def test_a_renewal_never_moves_a_commit_back() -> None:
    harness = Harness()
    harness.ledger.assign(RETRY, start_offset=2, next_offset=7)
    harness.group.ends = {RETRY: 9}
    harness.publish()
    assert harness.sink.offsets == {RETRY: (9, "start=2")}
    harness.group.ends = {}  # a seek: the end is unknown again
    harness.now += 60
    harness.publish()
    assert harness.sink.sizes == [0, 0], "renewed"
    assert harness.sink.offsets == {RETRY: (9, "start=2")}


def test_a_rejected_batch_is_split_so_that_only_the_bad_record_is_rejected() -> None:
    harness = Harness()
    for offset in (10, 11, 12):
        harness.finish(offset)

    def refuse_whatever_holds_11(records: list[OutRecord]) -> Publication:
        outputs = [i for i, r in enumerate(records) if r.topic == "scores"]
        holds = any(dict(records[i].headers)["stream-scorer-source"] == b"in/0/11" for i in outputs)
        return RecordsRejected(dict.fromkeys(outputs, "too large")) if holds else Committed()

    harness.sink.answers = [refuse_whatever_holds_11] * 5
    for _ in range(6):
        harness.publish()
    assert harness.sink.sources() == [10, 11, 12]
    assert [r.topic for r in harness.sink.log if r.topic != "audit"] == ["scores", "rejected", "scores"]


def test_a_score_over_its_topics_limit_is_rejected_before_anything_is_sent() -> None:
    harness = Harness({**LIMITS, "scores": 2_000})
    harness.finish(10, campaign="x" * 2_000)
    harness.finish(11)
    assert harness.publish()
    assert [r.topic for r in harness.sink.log if r.topic != "audit"] == ["rejected", "scores"]
    assert len(harness.sink.sizes) == 1


def test_a_rejected_original_over_its_topics_limit_is_published_without_value() -> None:
    harness = Harness({**LIMITS, "rejected": 10_000})
    harness.reject(10, value=b"x" * 20_000)
    harness.reject(11, key=b"k" * 20_000)
    harness.reject(12, header=b"h" * 20_000)
    harness.reject(13, value=None)
    assert harness.publish()
    out = [r for r in harness.sink.log if r.topic == "rejected"]
    truncated = [dict(r.headers).get("stream-scorer-error-truncated") for r in out]
    assert truncated == [b"true", b"true", b"true", None]
    assert [r.value for r in out] == [None] * 4
    assert [r.key for r in out] == [b"k", None, b"k", b"k"]
    assert harness.sink.sources() == [10, 11, 12, 13]


def test_a_rejecting_audit_topic_fails_the_transaction_without_loss() -> None:
    harness = Harness()
    harness.finish(10)
    harness.sink.answers = [RecordsRejected({1: "policy"})] * 3
    for _ in range(3):
        assert not harness.publish()
    assert "topic audit refuses an audit event" in (harness.publisher._committer.last_error or "")
    assert harness.publish()
    assert [r.topic for r in harness.sink.log] == ["scores", "audit"]


def test_fenced_three_times_in_five_minutes_ends_the_worker_and_names_the_setting() -> None:
    harness = Harness()
    harness.finish(10)
    harness.sink.answers = [Failed("fenced", fenced=True)] * 3
    harness.publish()
    harness.now += 100
    harness.publish()
    harness.now += 100
    with pytest.raises(ProducerFenced, match=r"kafka\.instance_id"):
        harness.publish()


def test_fencing_far_apart_or_plain_failures_do_not_end_the_worker() -> None:
    harness = Harness()
    harness.finish(10)
    harness.sink.answers = [Failed("fenced", fenced=True), *[Failed("timed out")] * 5, *[Failed("f", fenced=True)] * 2]
    for _ in range(6):
        harness.publish()
    harness.now += 301
    for _ in range(2):
        harness.publish()
    assert harness.publish()


def test_a_commit_is_due_after_the_interval_and_delayed_after_a_failure() -> None:
    harness = Harness()
    harness.finish(10)
    harness.publisher.flush_due()
    harness.finish(11)
    harness.now += 0.1
    harness.publisher.flush_due()
    assert harness.sink.sources() == [10]
    harness.now += 0.15
    harness.sink.answers = [Failed("broken")]
    harness.publisher.flush_due()
    harness.publisher.flush_due()
    assert len(harness.sink.sizes) == 2
    harness.now += 1.0
    harness.publisher.flush_due()
    assert harness.sink.sources() == [10, 11]
