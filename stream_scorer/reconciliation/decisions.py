"""Reading of the decisions topic for the reconciliation of scores.

Its ends are read twice: before the published topics, since a decision below the first end must have its record; and
after them, since a record that is read must have its decision below the second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.decisions import Action, decision_of
from stream_scorer.core.desk.rejected_record import REPLAY_OF_HEADER
from stream_scorer.core.reconciliation.decisions import DecisionReconciliation, PublishedRecord
from stream_scorer.core.reconciliation.scores import RecordLocation
from stream_scorer.kafka.admin.topics import check_topics, existing_topics
from stream_scorer.schema_files import SchemaFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.desk.decisions import Decision
    from stream_scorer.kafka.consumer.log_reader import LogReader, OffsetRange, Record
    from stream_scorer.kafka.registry.serde import Serde
    from stream_scorer.reconciliation.topic_reader import Reading
    from stream_scorer.settings import Settings


class DecisionReading:
    """See the module docstring. The first ends are read at construction.

    Args:
        settings: names of the topics.
        log: reads the decisions topic.
        framing: decodes decisions.
    """

    def __init__(self, settings: Settings, log: LogReader, framing: Serde) -> None:
        self._settings = settings
        self._log = log
        self._codec = framing.reader(SchemaFile.DECISION)
        self._topic = settings.topics.decisions
        self._partitions = check_topics(settings, existing_topics(settings, [self._topic])).get(self._topic, 0)
        self._first = self._read_extents()
        self._second: Mapping[int, OffsetRange] = {}
        self._since_ms: Mapping[str, int] = {}

    @property
    def extents(self) -> dict[str, Mapping[int, OffsetRange]]:
        """The offsets to read, by topic; empty if there is no decisions topic."""
        return {self._topic: self._second} if self._partitions else {}

    def wait(self) -> None:
        """Wait until the transactions below the first ends are decided."""
        self._log.wait_for_last_stable_offset(self._topic, self._first)

    def read_ends(self) -> None:
        """Read the second ends, and wait until the transactions below them are decided."""
        self._second = self._read_extents()
        self._log.wait_for_last_stable_offset(self._topic, self._second)

    def reconciliation(
        self, readable: Mapping[str, Mapping[int, OffsetRange]], since_ms: Mapping[int, int]
    ) -> DecisionReconciliation:
        """Return the reconciliation.

        Args:
            readable: the offsets that are read of each published topic.
            since_ms: for partitions of a features topic that was created again, the time behind the former one's.
        """
        self._since_ms = {f"{self._settings.topics.features}/{n}/": at_ms for n, at_ms in since_ms.items()}
        topics = self._settings.topics
        actions: dict[str, str] = {Action.REPLAYED: topics.features, Action.ACCEPTED: topics.scores}

        def is_readable(topic: str, partition: int, offset: int) -> bool:
            extent = readable.get(topic, {}).get(partition)
            return extent is not None and extent.begin <= offset < extent.end

        has_all = bool(self._first) and all(extent.begin == 0 for extent in self._first.values())
        return DecisionReconciliation(actions, is_readable, has_all=has_all)

    def read(self, reading: Reading, decided: DecisionReconciliation) -> None:
        """Add all decisions; records that are none are left out, as they decide nothing."""
        if not self._partitions:
            return
        for record in reading.records(self._topic):
            try:
                decision = decision_of(self._codec.decode(record.value))
            except UndecodableError:
                continue
            if self._is_of_former_topic(decision):
                continue
            where = RecordLocation(self._topic, record.partition, record.offset)
            is_due = record.offset < self._first[record.partition].end
            decided.decision(decision, where, is_due=is_due)

    def _is_of_former_topic(self, decision: Decision) -> bool:
        """Return whether a decision published to the former features topic of the same name."""
        place, _, _ = (decision.result_place or "").rpartition("/")
        return decision.decided_at_ms < self._since_ms.get(f"{place}/", 0)

    def _read_extents(self) -> Mapping[int, OffsetRange]:
        return self._log.extents(self._topic, self._partitions) if self._partitions else {}


def replayed_record(topic: str, rejected: str, record: Record) -> PublishedRecord | None:
    """Return what a replayed record of the features topic states; None: it is none of the ``rejected`` topic."""
    for name, value in record.headers:
        if name == REPLAY_OF_HEADER:
            decided = (value or b"").decode(errors="replace")
            place = RecordLocation(topic, record.partition, record.offset)
            return PublishedRecord(place, decided) if decided.startswith(f"{rejected}/") else None
    return None
