"""Outcomes of the contacts, as a consumer with read_committed isolation reads them from their topics."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from stream_scorer.core.avro.codec import Codec
from stream_scorer.kafka.admin.topics import check_topics
from stream_scorer.kafka.consumer.log_reader import LogReader
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from stream_scorer.kafka.consumer.log_reader import Record
    from stream_scorer.settings import Settings

SCORED: Final = "scored"
REVIEW: Final = "review"
REJECTED: Final = "rejected"
_REASON: Final = "stream-scorer-error-reason"
_DETAIL: Final = "stream-scorer-error-detail"
_NO_REASON: Final = "(none)"
_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one contact.

    Attributes:
        kind: ``scored``, ``review`` or ``rejected``.
        contact_id: key of its record.
        values: the decoded score; of a rejected contact ``reason`` and ``detail``.
    """

    kind: str
    contact_id: str
    values: dict[str, Any]


@dataclass(slots=True)
class OutcomeCounts:
    """Number of contacts by kind of outcome, and of rejected ones by reason."""

    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


class OutcomeReader(AbstractContextManager["OutcomeReader"]):
    """Reader of the three topics of outcomes, from their begin on. It joins no group and writes nothing."""

    def __init__(self, settings: Settings) -> None:
        """Connect to the broker.

        Raises:
            BrokerError: the broker does not answer, or a topic is missing.
        """
        self.counts = OutcomeCounts()
        self._codec = Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE))
        topics = {SCORED: settings.topics.scores, REVIEW: settings.topics.review, REJECTED: settings.topics.rejected}
        partitions = check_topics(settings, list(topics.values()))
        log = LogReader(settings, settings.kafka.group_id, timeout_s=_TIMEOUT_S)
        self._streams = {
            kind: log.follow(topic, dict.fromkeys(range(partitions[topic]), 0)) for kind, topic in topics.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for stream in self._streams.values():
            stream.close()  # type: ignore[attr-defined]  # a generator

    def new(self) -> Iterator[Outcome]:
        """Yield the outcomes since the last call, and count them.

        Raises:
            BrokerError: a topic cannot be read.
        """
        for kind, stream in self._streams.items():
            while batch := next(stream):
                for record in batch:
                    yield self._outcome(kind, record)

    def _outcome(self, kind: str, record: Record) -> Outcome:
        contact_id = (record.key or b"").decode(errors="replace")
        self.counts.kinds[kind] += 1
        if kind != REJECTED:
            return Outcome(kind, contact_id, self._codec.decode(record.value))
        headers = dict(record.headers)
        reason = _text(headers.get(_REASON)) or _NO_REASON
        self.counts.reasons[reason] += 1
        return Outcome(kind, contact_id, {"reason": reason, "detail": _text(headers.get(_DETAIL))})


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode(errors="replace")
