"""Reader of the decisions topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.decisions import DecidedRecords, decision_of
from stream_scorer.errors import NotJudged

if TYPE_CHECKING:
    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.kafka.consumer.log_reader import LogReader

_REMEDY: Final = "check topics.decisions, and that schema_registry.url is that of the other programs"


class DecisionLog:
    """Reader of all decisions about a topic.

    Args:
        log: reads the decisions topic.
        topic: the decisions topic.
        partitions: its number of partitions.
        codec: decodes decisions.
    """

    def __init__(self, log: LogReader, topic: str, partitions: int, codec: Codec) -> None:
        self._log = log
        self._topic = topic
        self._partitions = partitions
        self._codec = codec

    def read(self, decided_topic: str, topic_id: str | None) -> DecidedRecords:
        """Return all decisions about a topic that were written before the call.

        Up to the end of the log, open transactions included: these are waited for. The last stable offset alone would
        hide decisions of a fenced job behind an open transaction of another partition's job.

        Raises:
            BrokerUnavailable: no answer, or a transaction is still open after the reader's time limit.
            NotJudged: a record about this topic is no decision.
        """
        decided = DecidedRecords(decided_topic, topic_id)
        extents = self._log.extents(self._topic, self._partitions)
        self._log.wait_for_last_stable_offset(self._topic, extents)
        for batch in self._log.read(self._topic, extents):
            for record in batch:
                if not decided.concerns(record.key):
                    continue
                try:
                    decided.add(decision_of(self._codec.decode(record.value)))
                except UndecodableError as error:
                    place = f"{self._topic}/{record.partition}/{record.offset}"
                    raise NotJudged(f"{place} is no decision ({error}): {_REMEDY}") from None
        return decided
