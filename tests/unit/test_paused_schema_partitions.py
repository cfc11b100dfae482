"""Unknown writer schemas: their fetch, and the partitions paused for it."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from scoring_harness import wait_until

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.avro.confluent import SchemaMissingError, WriterUnknownError, confluent_header
from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
from stream_scorer.core.records import Partition, SourceRecord
from stream_scorer.errors import RegistryUnavailable
from stream_scorer.kafka.registry.paused_schema_partitions import PausedSchemaPartitions
from stream_scorer.kafka.registry.schema_fetcher import SchemaFetcher

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN = 1
SCHEMA = {"type": "record", "name": "R", "fields": []}


class Registry:
    """Registry with scripted responses: a schema, None for "not found", or an error."""

    def __init__(self) -> None:
        self.answers: dict[int, Any] = {}
        self.asked: list[int] = []
        self.lost: set[int] = set()
        self.lagging: set[int] = set()  # unknown to the first question
        self.confirmations: list[int] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def has(self, schema_id: int) -> bool:
        self.confirmations.append(schema_id)
        return schema_id not in self.lost

    def writer(self, schema_id: int) -> dict[str, Any] | None:
        assert self.may_answer.wait(30)
        self.asked.append(schema_id)
        if schema_id in self.lagging:
            self.lagging.remove(schema_id)
            return None
        answer: Any = self.answers.get(schema_id)
        if isinstance(answer, Exception):
            raise answer
        found: dict[str, Any] | None = answer
        return found


class Clock:
    def __init__(self) -> None:
        self.late_s = 0.0

    def __call__(self) -> float:
        return self.late_s


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def lookup(registry: Registry) -> Iterator[SchemaFetcher]:
    made = SchemaFetcher(registry, ask_again_s=0.01, retry_s=0.01)
    made.add(OWN, SCHEMA)
    yield made
    registry.may_answer.set()
    made.close()


class TestLookup:
    def test_an_id_is_fetched_once_and_never_waited_for(self, registry: Registry, lookup: SchemaFetcher) -> None:
        registry.answers[17] = SCHEMA
        registry.may_answer.clear()
        for _ in range(3):
            with pytest.raises(WriterUnknownError):
                lookup.writer(17)
        assert not lookup.is_answered(17)
        registry.may_answer.set()
        wait_until(lambda: lookup.is_answered(17), lambda: "the answer")
        assert lookup.writer(17) == SCHEMA
        assert registry.asked == [17]

    def test_a_registry_that_does_not_answer_is_asked_again_until_it_does(
        self, registry: Registry, lookup: SchemaFetcher
    ) -> None:
        registry.answers[17] = RegistryUnavailable("schema id 17 cannot be fetched: no connection")
        lookup.request(17)
        wait_until(lambda: len(registry.asked) > 10, lambda: "ten tries")
        assert not lookup.is_answered(17)
        assert lookup.error_for(17) == "schema id 17 cannot be fetched: no connection"
        registry.answers[17] = SCHEMA
        wait_until(lambda: lookup.is_answered(17), lambda: "the answer")
        assert lookup.writer(17) == SCHEMA
        assert lookup.error_for(17) == ""

    def test_an_id_that_is_not_there_is_asked_for_four_times_and_then_refused(
        self, registry: Registry, lookup: SchemaFetcher
    ) -> None:
        lookup.request(17)
        wait_until(lambda: lookup.is_answered(17), lambda: "the answer")
        assert registry.asked == [17] * 4
        with pytest.raises(UndecodableError, match="the schema registry has no schema with id 17"):
            lookup.writer(17)

    def test_an_id_is_missing_only_where_the_registry_confirms_another_one(
        self, registry: Registry, lookup: SchemaFetcher
    ) -> None:
        """A registry that was restored from an old backup, or a gateway that returns 404 for all ids."""
        registry.lost.add(OWN)
        lookup.request(17)
        wait_until(lambda: len(registry.confirmations) > 2, lambda: "three confirmations")
        assert not lookup.is_answered(17)
        assert (
            lookup.error_for(17) == "the schema registry has no schema with id 17, nor with id 1, which it had before"
        )
        registry.lost.clear()
        wait_until(lambda: lookup.is_answered(17), lambda: "the answer")
        with pytest.raises(SchemaMissingError, match="the schema registry has no schema with id 17"):
            lookup.writer(17)

    def test_another_id_that_was_fetched_meanwhile_is_evidence_too(self, registry: Registry) -> None:
        lookup = SchemaFetcher(registry, ask_again_s=0.01, retry_s=0.01)
        lookup.request(17)
        wait_until(lambda: "no other is known" in lookup.error_for(17), lambda: "the doubt")
        registry.answers[18] = SCHEMA
        lookup.request(18)
        wait_until(lambda: lookup.is_answered(17), lambda: "the answer")
        assert registry.confirmations == []
        lookup.close()

    def test_an_id_that_the_group_has_resolved_before_is_never_missing(
        self, registry: Registry, lookup: SchemaFetcher
    ) -> None:
        lookup.mark_resolved([17])
        lookup.request(17)
        wait_until(lambda: "which it had before" in lookup.error_for(17), lambda: "the doubt")
        assert not lookup.is_answered(17)
        registry.answers[17] = SCHEMA
        wait_until(lambda: lookup.is_answered(17), lambda: "the answer")
        assert lookup.writer(17) == SCHEMA
        assert lookup.resolved() == (OWN, 17)

    def test_a_confirmation_that_fails_is_no_evidence(self, registry: Registry, lookup: SchemaFetcher) -> None:
        def has(_schema_id: int) -> bool:
            raise RegistryUnavailable("schema id 1 cannot be fetched: no connection")

        registry.has = has  # type: ignore[method-assign]
        lookup.request(17)
        wait_until(lambda: "no connection" in lookup.error_for(17), lambda: "the doubt")
        assert not lookup.is_answered(17)

    def test_an_id_of_a_replica_that_lags_is_found(self, registry: Registry, lookup: SchemaFetcher) -> None:
        registry.answers[17] = SCHEMA
        registry.lagging.add(17)
        lookup.request(17)
        wait_until(lambda: lookup.is_answered(17), lambda: "the answer")
        assert lookup.writer(17) == SCHEMA
        assert registry.asked == [17, 17]

    def test_that_an_id_is_not_there_is_believed_for_half_a_minute(self, registry: Registry) -> None:
        clock = Clock()
        lookup = SchemaFetcher(registry, clock=clock, ask_again_s=0.0)
        lookup.add(OWN, SCHEMA)
        lookup.request(17)
        wait_until(lambda: lookup.is_answered(17), lambda: "the answer")
        registry.answers[17] = SCHEMA
        clock.late_s = 29.0
        assert lookup.is_answered(17)
        clock.late_s = 31.0
        with pytest.raises(UndecodableError):  # a record that was admitted before keeps its error
            lookup.writer(17)
        assert not lookup.is_answered(17)  # and it is requested again
        wait_until(lambda: lookup.is_answered(17), lambda: "the new answer")
        assert lookup.writer(17) == SCHEMA
        lookup.close()

    def test_what_is_known_from_the_start_is_not_fetched(self, registry: Registry, lookup: SchemaFetcher) -> None:
        lookup.add(5, SCHEMA)
        assert lookup.is_answered(5)
        assert lookup.writer(5) == SCHEMA
        assert registry.asked == []

    def test_a_schema_of_another_kind_is_refused_at_once(self, registry: Registry, lookup: SchemaFetcher) -> None:
        registry.answers[17] = UndecodableError("a schema of type JSON, not Avro")
        lookup.request(17)
        wait_until(lambda: lookup.is_answered(17), lambda: "the answer")
        with pytest.raises(UndecodableError, match="of type JSON"):
            lookup.writer(17)
        assert registry.asked == [17]

    def test_what_was_just_gone_by_is_kept_until_it_is_read(self, registry: Registry) -> None:
        clock = Clock()
        lookup = SchemaFetcher(registry, clock=clock, ask_again_s=0.0, retry_s=0.0)
        lookup.add(10_000, SCHEMA)
        first: list[int] = []
        for batch in range(3):
            ids = range(batch * 600, batch * 600 + 600)
            for schema_id in ids:
                lookup.request(schema_id)
            wait_until(lambda: not lookup._wanted, lambda: "all answers")
            assert all(lookup.is_answered(schema_id) for schema_id in (ids if not batch else first))
            first = first or list(ids)
        for schema_id in first:
            with suppress(UndecodableError):
                lookup.writer(schema_id)
        lookup.close()

    def test_a_series_of_invalid_ids_blocks_no_other(self, registry: Registry) -> None:
        lookup = SchemaFetcher(registry, ask_again_s=30.0, retry_s=0.01)
        registry.answers[9_999] = SCHEMA
        registry.may_answer.clear()
        for schema_id in range(2_000):
            lookup.request(schema_id, ahead=True)
        assert not lookup.is_answered(9_999)
        registry.may_answer.set()
        wait_until(lambda: lookup.is_answered(9_999), lambda: "the one that is waited for")
        assert 9_999 in registry.asked[:2]  # one was in flight already
        lookup.close()

    def test_whatever_goes_wrong_is_tried_again(self, registry: Registry, lookup: SchemaFetcher) -> None:
        registry.answers[3] = TypeError("5")
        assert not lookup.is_answered(3)
        wait_until(lambda: lookup.error_for(3), lambda: "a reason")
        assert lookup.error_for(3) == "unexpected TypeError"
        registry.answers[3] = SCHEMA
        wait_until(lambda: lookup.is_answered(3), lambda: "the schema")

    def test_memory_is_bounded_however_many_ids_there_are(self, registry: Registry) -> None:
        clock = Clock()
        lookup = SchemaFetcher(registry, clock=clock, ask_again_s=0.0, retry_s=0.0)
        lookup.add(10_000, SCHEMA)
        registry.may_answer.clear()
        for schema_id in range(5_000):
            lookup.request(schema_id)
        assert len(lookup._wanted) == 1_000
        registry.may_answer.set()
        wait_until(lambda: not lookup._wanted, lambda: "all answers")
        clock.late_s += 61
        for schema_id in range(5_000, 5_500):
            lookup.request(schema_id)
        wait_until(lambda: not lookup._wanted, lambda: "all answers")
        assert len(lookup._answers) == len(lookup._used_at) == 1_000
        lookup.close()


class Reader:
    """Reader that records paused partitions and their resume offsets."""

    def __init__(self) -> None:
        self.held: set[Partition] = set()
        self.gone_on: list[tuple[Partition, int]] = []
        self.may_go = True

    def pause_partition(self, partition: Partition) -> None:
        self.held.add(partition)

    def resume_from(self, partition: Partition, offset: int) -> bool:
        if self.may_go:
            self.held.discard(partition)
            self.gone_on.append((partition, offset))
        return self.may_go


class Answers:
    def __init__(self) -> None:
        self.known: set[int] = set()
        self.wanted: list[int] = []
        self.reasons: dict[int, str] = {}

    def request(self, schema_id: int, **_: bool) -> None:
        self.wanted.append(schema_id)

    def is_answered(self, schema_id: int) -> bool:
        return schema_id in self.known

    def error_for(self, schema_id: int) -> str:
        return self.reasons.get(schema_id, "")


class Harness:
    def __init__(self) -> None:
        self.reader = Reader()
        self.answers = Answers()
        self.ledger: OffsetLedger[Any] = OffsetLedger()
        self.reported: list[str | None] = []
        self.waits = PausedSchemaPartitions(self.reader, self.ledger, self.answers, self.reported.append)
        for number in (0, 1):
            self.ledger.assign(Partition("t", number), start_offset=0, next_offset=10)

    def read(self, partition: int, offset: int, schema_id: int | None) -> bool:
        value = b"\xc3\x01" if schema_id is None else confluent_header(schema_id)
        record = SourceRecord("t", partition, offset, b"k", value, [])
        return self.waits.admits(record) and self.ledger.read(record)


class TestWaits:
    def test_only_the_partition_waits_and_goes_on_where_it_stopped(self) -> None:
        harness = Harness()
        harness.answers.known = {1}
        assert harness.read(0, 10, 1)
        assert not harness.read(0, 11, 17)
        assert not harness.read(0, 12, 1)  # behind it
        assert not harness.read(0, 13, 18)
        assert harness.answers.wanted == [1, 18]  # fetched meanwhile
        assert harness.read(1, 10, 1)
        assert harness.read(1, 11, None)
        assert harness.reader.held == {Partition("t", 0)}
        assert harness.ledger.size(Partition("t", 0))[0] == 1
        harness.waits.resume_resolved()
        assert harness.reader.held
        harness.answers.known |= {17, 18}
        harness.waits.resume_resolved()
        assert harness.reader.gone_on == [(Partition("t", 0), 11)]
        assert all(harness.read(0, offset, schema_id) for offset, schema_id in ((11, 17), (12, 1), (13, 18)))

    def test_the_reason_is_reported_when_it_changes_and_when_it_ends(self) -> None:
        harness = Harness()
        assert not harness.read(0, 10, 17)
        harness.waits.resume_resolved()
        assert harness.reported == []  # it was requested immediately before
        harness.answers.reasons[17] = "no connection"
        harness.waits.resume_resolved()
        harness.waits.resume_resolved()
        assert harness.reported == ["no connection"]
        harness.answers.known.add(17)
        harness.answers.reasons.clear()
        harness.waits.resume_resolved()
        harness.waits.resume_resolved()
        assert harness.reported == ["no connection", None]

    def test_a_partition_that_cannot_go_on_yet_stays(self) -> None:
        harness = Harness()
        assert not harness.read(0, 10, 17)
        harness.answers.known.add(17)
        harness.reader.may_go = False
        harness.waits.resume_resolved()
        assert len(harness.waits) == 1
        harness.reader.may_go = True
        harness.waits.resume_resolved()
        assert len(harness.waits) == 0

    def test_what_was_taken_away_waits_no_more_and_its_reason_ends(self) -> None:
        harness = Harness()
        assert not harness.read(0, 10, 17)
        harness.answers.reasons[17] = "no connection"
        harness.waits.resume_resolved()
        harness.ledger.revoke(Partition("t", 0))
        harness.waits.revoke([Partition("t", 0)])
        assert not harness.read(0, 11, 17)  # a late one of the old assignment
        assert len(harness.waits) == 0
        harness.waits.resume_resolved()
        assert harness.reported == ["no connection", None]
        assert harness.reader.gone_on == []

    def test_a_repetition_holds_nothing_back(self) -> None:
        harness = Harness()
        harness.answers.known = {1}
        assert harness.read(0, 10, 1)
        assert not harness.read(0, 10, 17)
        assert harness.reader.held == set()
