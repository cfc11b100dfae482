"""Reading of the decisions topic for both reconciliations.

Its ends are read after those of the published topics: the decision of a record that is visible there is below them. Of
a decision that is read, a record below the ends of its topic is visible, because both are in one transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.decisions import decision_of
from stream_scorer.core.desk.rejected_record import REPLAY_OF_HEADER
from stream_scorer.core.reconciliation.decisions import DecisionReconciliation, DecisionTopics, PublishedRecord
from stream_scorer.core.reconciliation.outcome_values import Content, payload_digest
from stream_scorer.core.reconciliation.scores import RecordLocation
from stream_scorer.kafka.admin.topics import check_topics, existing_topics
from stream_scorer.schema_files import SchemaFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_scorer.core.records import Partition
    from stream_scorer.kafka.consumer.log_reader import LogReader, OffsetRange, Record
    from stream_scorer.kafka.registry.serde import Serde
    from stream_scorer.reconciliation.topic_reader import Reading
    from stream_scorer.settings import Settings


class DecisionReading:
    """See the module docstring. The ends are read at construction, when the transactions below them have ended.

    Args:
        settings: names of the topics.
        log: reads the decisions topic.
        framing: decodes decisions.
    """

    def __init__(self, settings: Settings, log: LogReader, framing: Serde) -> None:
        self._log = log
        self._codec = framing.reader(SchemaFile.DECISION)
        self._topic = settings.topics.decisions
        found = check_topics(settings, existing_topics(settings, [self._topic]))
        self._extents = {name: log.extents(name, partitions) for name, partitions in found.items()}
        for name, extents in self._extents.items():
            log.wait_for_last_stable_offset(name, extents)

    @property
    def extents(self) -> dict[str, dict[int, OffsetRange]]:
        """The offsets to read, by topic; empty if there is no decisions topic."""
        return self._extents

    def reconciliation(
        self,
        published: Mapping[str, str],
        decided: Iterable[str],
        readable: Mapping[str, Mapping[int, OffsetRange]],
        since_ms: Mapping[Partition, int] | None = None,
    ) -> DecisionReconciliation:
        """Return the reconciliation.

        Args:
            published: the topic to which each action publishes.
            decided: the topics whose records are decided.
            readable: the offsets that are read of each published topic.
            since_ms: for partitions of a topic that was created again, the time behind the former one's records.
        """
        expired = {number for number, extent in self._extents.get(self._topic, {}).items() if extent.begin > 0}
        topics = DecisionTopics(
            self._topic,
            published,
            {topic: self._log.topic_id(topic) for topic in decided},
            readable,
            frozenset(expired),
            since_ms or {},
        )
        return DecisionReconciliation(topics)

    def read(self, reading: Reading, decided: DecisionReconciliation) -> None:
        """Add all decisions; records that are none decide nothing."""
        for name in self._extents:
            for record in reading.records(name):
                where = RecordLocation(name, record.partition, record.offset)
                decided.observe_decision(where, record.timestamp_ms)
                try:
                    decision = decision_of(self._codec.decode(record.value))
                except UndecodableError:
                    continue
                decided.decision(decision, where, record.timestamp_ms)


def replayed_record(topic: str, rejected: str, record: Record) -> PublishedRecord | None:
    """Return what a replayed record of the features topic states; None: it is none of the ``rejected`` topic."""
    for name, value in record.headers:
        if name == REPLAY_OF_HEADER:
            decided = (value or b"").decode(errors="replace")
            if not decided.startswith(f"{rejected}/"):
                return None
            payload = payload_digest(Content(record.key, record.value))
            place = RecordLocation(topic, record.partition, record.offset)
            return PublishedRecord(place, decided, written_ms=record.timestamp_ms, payload=payload)
    return None
