"""Gaps of output topics: records that retention has deleted, and records that compaction has removed.

A missing record is a finding only if its topic cannot have removed it. Two facts decide that:

* Within an output partition the records of one input partition are in input order, except for deferred contacts, which
  are later. So if the outcome of an input is still there, that of every later input of its partition is, too.
* Compaction removes a record only after a later one with its key.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from stream_scorer.core.records import Partition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from stream_scorer.core.reconciliation.record_states import RecordLocation

_ALL: Final = sys.maxsize


class LogGaps:
    """The gaps of the output topics; they are known before any record is read.

    Args:
        truncated: the output partitions whose first records are deleted.
        compacted: the output topics that are compacted.
    """

    __slots__ = ("_compacted", "_first", "_keys", "_limits", "_truncated")

    def __init__(self, truncated: Collection[Partition] = (), compacted: Collection[str] = ()) -> None:
        self._truncated = frozenset(truncated)
        self._compacted = frozenset(compacted)
        self._first: dict[tuple[Partition, str], int] = {}
        self._keys: dict[str, set[int]] = {topic: set() for topic in compacted}
        self._limits: dict[tuple[frozenset[str], str], int] = {}

    def __bool__(self) -> bool:
        return bool(self._truncated or self._compacted)

    def is_truncated(self, place: RecordLocation) -> bool:
        """Return whether records before this location are deleted."""
        return Partition(place.topic, place.partition) in self._truncated

    def is_compacted(self, topic: str) -> bool:
        """Return whether a record of the topic may be removed although an earlier one is there."""
        return topic in self._compacted

    def observe(self, place: RecordLocation, name: str, offset: int) -> None:
        """Record an output that is in input order.

        Args:
            place: its location.
            name: its input partition.
            offset: the offset of its input there.
        """
        partition = Partition(place.topic, place.partition)
        if partition in self._truncated:
            key = partition, name
            self._first[key] = min(offset, self._first.get(key, _ALL))

    def observe_key(self, topic: str, digest: int) -> None:
        """Record the key of a record of a compacted topic."""
        self._keys[topic].add(digest)

    def limit(self, topics: Iterable[str], name: str) -> int:
        """Return the offset of an input partition below which its records on these topics may be deleted.

        Call it after all records were observed.
        """
        among = frozenset(topics)
        found = self._limits.get((among, name))
        if found is None:
            partitions = (partition for partition in self._truncated if partition.topic in among)
            found = max((self._first.get((partition, name), _ALL) for partition in partitions), default=0)
            self._limits[among, name] = found
        return found

    def may_be_compacted(self, topics: Iterable[str], digest: int) -> bool:
        """Return whether a record may have been removed for a later one; ``digest``: of its key; 0 or less: unknown."""
        return any(digest <= 0 or digest in self._keys[topic] for topic in topics if topic in self._compacted)
