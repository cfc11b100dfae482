"""Cache of billed outcomes of revoked partitions: used if the same record is read again before it is committed."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from stream_scorer.core.records import SourceRecord


class HasRecord(Protocol):
    """An outcome with its source record."""

    @property
    def record(self) -> SourceRecord:
        """The source record."""

    @property
    def is_billable(self) -> bool:
        """Whether the API bills it: only then is it cached."""


# sys.getsizeof of a tuple, a string and a bytes object, plus the list's reference: 56 + 49 + 33 + 8.
_HEADER_OVERHEAD_BYTES: Final = 146

OutcomeT = TypeVar("OutcomeT", bound=HasRecord)


class RecordKey(NamedTuple):
    """Position of a record: unique until its topic is deleted."""

    topic: str
    partition: int
    offset: int


class OutcomeCache(Generic[OutcomeT]):
    """Bounded cache of outcomes by record. The oldest are evicted first.

    Args:
        limit: maximum number of outcomes.
        bytes_limit: maximum bytes of keys, values and headers of their records together.
    """

    def __init__(self, limit: int, bytes_limit: int) -> None:
        self._limit = limit
        self._bytes_limit = bytes_limit
        self._bytes = 0
        self._outcomes: OrderedDict[RecordKey, OutcomeT] = OrderedDict()

    def __len__(self) -> int:
        return len(self._outcomes)

    def put(self, outcome: OutcomeT) -> None:
        """Cache an outcome if it was billed; any other is computed again without cost."""
        if not outcome.is_billable:
            return
        key = key_of(outcome.record)
        self._remove(key)
        self._outcomes[key] = outcome
        self._bytes += size_of(outcome.record)
        while len(self._outcomes) > self._limit or self._bytes > self._bytes_limit:
            self._remove(next(iter(self._outcomes)))

    def pop(self, record: SourceRecord) -> OutcomeT | None:
        """Remove and return the outcome of a record, if it is cached."""
        outcome = self._remove(key_of(record))
        return outcome if outcome is not None and is_same_record(outcome.record, record) else None

    def _remove(self, key: RecordKey) -> OutcomeT | None:
        outcome = self._outcomes.pop(key, None)
        if outcome is not None:
            self._bytes -= size_of(outcome.record)
        return outcome


def key_of(record: SourceRecord) -> RecordKey:
    """Return the key of a record."""
    return RecordKey(record.topic, record.partition, record.offset)


def is_same_record(one: SourceRecord, other: SourceRecord) -> bool:
    """Return whether two records with one key are the same: a topic created again has other records at its offsets."""
    return one is other or (one.value == other.value and one.key == other.key)


def size_of(record: SourceRecord) -> int:
    """Return the bytes that a record occupies in memory: key, value and headers.

    A header includes Python's overhead, because a record of 2 MB may have a million empty headers.
    """
    value, key, headers = record.value, record.key, record.headers
    size = (len(value) if value else 0) + (len(key) if key else 0)
    if headers:
        for name, header in headers:
            size += _HEADER_OVERHEAD_BYTES + len(name if name.isascii() else name.encode()) + len(header or b"")
    return size
