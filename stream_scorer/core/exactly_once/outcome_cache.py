"""Cache of outcomes of revoked partitions that needed a request.

They are used if the same record is read again before it is committed.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from stream_scorer.core.records import is_same_record, key_of, size_of

if TYPE_CHECKING:
    from stream_scorer.core.records import RecordKey, SourceRecord


class HasRecord(Protocol):
    """An outcome with its source record."""

    @property
    def record(self) -> SourceRecord: ...

    @property
    def needed_request(self) -> bool:
        """Whether a request was sent for it: only then is it cached."""


OutcomeT = TypeVar("OutcomeT", bound=HasRecord)


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
        """Cache an outcome if it needed a request; any other is computed again without one."""
        if not outcome.needed_request:
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
