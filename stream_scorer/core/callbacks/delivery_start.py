"""Start of a new delivery group: which callbacks in the log wait, and which would be delivered again.

A callback waits in the last record that was written for it, unless it has a receipt. Each retry partition is committed
in order, so what waits stands behind all that was finished: the first waiting record is where the former group stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class RetryRecord(NamedTuple):
    """Record of a callback in a retry topic; ``key``: the callback's id; ``written_ms``: Kafka's timestamp."""

    topic: str
    partition: int
    offset: int
    key: bytes
    written_ms: int


class WaitingCallbacks(NamedTuple):
    """Callbacks that wait in retry topics.

    Attributes:
        starts: for each retry partition with a waiting callback, the offset of the first.
        keys: the ids of all of them.
        repeated: the ids of those behind these starts that do not wait any more.
    """

    starts: dict[tuple[str, int], int]
    keys: frozenset[bytes]
    repeated: frozenset[bytes]


def waiting_callbacks(records: Sequence[RetryRecord], finished: Collection[bytes]) -> WaitingCallbacks:
    """Return the callbacks of these records that wait; ``finished``: the ids of those with a receipt."""
    last: dict[bytes, RetryRecord] = {}
    for record in sorted(records, key=lambda one: (one.written_ms, one.topic, one.offset)):
        if record.key not in finished:
            last[record.key] = record
    starts: dict[tuple[str, int], int] = {}
    for record in last.values():
        place = (record.topic, record.partition)
        starts[place] = min(record.offset, starts.get(place, record.offset))
    repeated = {
        record.key
        for record in records
        if record != last.get(record.key)
        and record.offset >= starts.get((record.topic, record.partition), record.offset + 1)
    }
    return WaitingCallbacks(starts, frozenset(last), frozenset(repeated))
