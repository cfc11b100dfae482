"""Outcomes that outlive the ownership of their partition: paid for, not published, perhaps still of use."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from stream_scorer.core.events import Outcome, Scored, SourceRecord


class RecordKey(NamedTuple):
    """What names a record as long as its topic lives."""

    topic: str
    partition: int
    offset: int


class Remembered:
    """Outcomes by record, the oldest dropped first when there are too many or their records are too large together.

    Args:
        limit: how many outcomes are kept at most.
        bytes_limit: how many bytes the values of their records may have together.
    """

    def __init__(self, limit: int, bytes_limit: int) -> None:
        self._limit = limit
        self._bytes_limit = bytes_limit
        self._bytes = 0
        self._outcomes: OrderedDict[RecordKey, Outcome] = OrderedDict()

    def __len__(self) -> int:
        return len(self._outcomes)

    def keep(self, outcome: Outcome) -> None:
        """Keeps an outcome, unless it cost nothing: that is found again for free."""
        if outcome.request is None:
            return
        key = key_of(record_of(outcome))
        self._take(key)
        self._outcomes[key] = outcome
        self._bytes += _size(outcome)
        while len(self._outcomes) > self._limit or self._bytes > self._bytes_limit:
            self._take(next(iter(self._outcomes)))

    def recall(self, record: SourceRecord) -> Outcome | None:
        """Takes out what is remembered of this record."""
        outcome = self._take(key_of(record))
        return outcome if outcome is not None and same_record(record_of(outcome), record) else None

    def _take(self, key: RecordKey) -> Outcome | None:
        outcome = self._outcomes.pop(key, None)
        if outcome is not None:
            self._bytes -= _size(outcome)
        return outcome


def record_of(outcome: Outcome) -> SourceRecord:
    """Return the record an outcome belongs to."""
    return outcome.contact.record if isinstance(outcome, Scored) else outcome.record


def key_of(record: SourceRecord) -> RecordKey:
    """Return what names a record."""
    return RecordKey(record.topic, record.partition, record.offset)


def same_record(one: SourceRecord, other: SourceRecord) -> bool:
    """Tell whether two records of one name are the same: a topic deleted and made anew has others at its offsets."""
    return one is other or (one.value == other.value and one.key == other.key)


def _size(outcome: Outcome) -> int:
    return len(record_of(outcome).value or b"")
