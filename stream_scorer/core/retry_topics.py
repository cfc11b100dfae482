"""Retry topics: records that are read again later, in the order of their topic.

Retry topic n is named ``<base>-<n>``, its number is its *level*, and each level has a delay. A record has the time
before which it is not due. A topic is read in order, so a first record that is not due pauses its partition, at most
for the delay of its topic. A record that is due later is written again, to the longest topic whose delay is not longer
than the remaining wait: a wait of days costs few records and blocks no shorter one.

The retry topics of callbacks and of contacts share this schedule. The headers below are those of the contacts' retry
topics. They have the position of the contact on the features topic, so that its id stays however often it is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.records import Headers, SourceRecord

SOURCE_HEADER: Final = "stream-scorer-source"
DEFERRED_HEADER: Final = "stream-scorer-deferred"
NOT_BEFORE_HEADER: Final = "stream-scorer-not-before"
GROUP_HEADER: Final = "stream-scorer-group"
HELD_HEADER: Final = "stream-scorer-held"
# Of a callback: in how many rounds of attempts it has failed. The topic alone does not show it, because callbacks are
# also deferred for other reasons.
ROUNDS_HEADER: Final = "stream-scorer-failed-rounds"

# The maximum that a wait, such as a long Retry-After, adds to the longest delay. More is due to a wrong clock.
MAX_EXTRA_WAIT_S: Final = 86_400.0
_MAX_ROUNDS_DIGITS: Final = 3
_MAX_TIME_DIGITS: Final = 15
_SOURCE: Final = re.compile(rb"([a-zA-Z0-9._-]{1,249})/([0-9]{1,10})/([0-9]{1,18})")


def retry_topics(base: str, levels: int) -> tuple[str, ...]:
    """Return the names of so many retry topics, level 1 first."""
    return tuple(retry_topic(base, level) for level in range(1, levels + 1))


def retry_topic(base: str, level: int) -> str:
    """Return the name of the retry topic of a level."""
    return f"{base}-{level}"


def level_of(topic: str) -> int:
    """Return the level of a retry topic by its name."""
    return int(topic.rpartition("-")[2])


# --- the schedule


class NotDue(NamedTuple):
    """The first record of a partition is not due; the partition is paused until ``until_ms`` (Unix milliseconds)."""

    until_ms: int


class TooEarly(NamedTuple):
    """A record that is written again to the retry topic of ``level``, with the same due time."""

    level: int


@dataclass(frozen=True, slots=True)
class RetryDelays:
    """The delays of the retry topics.

    Attributes:
        delays_s: how long a record waits in each topic, in seconds, level 1 first.
    """

    delays_s: tuple[float, ...]

    @property
    def levels(self) -> int:
        """Number of configured retry topics."""
        return len(self.delays_s)

    def delay_s(self, level: int) -> float:
        """Return the delay of a level; a level that is no longer configured has the last delay."""
        return self.delays_s[min(level, self.levels) - 1]

    def level_for(self, wait_s: float) -> int:
        """Return the level with the longest delay of at most ``wait_s``; level 1 if there is none."""
        fitting = [level for level, delay_s in enumerate(self.delays_s, 1) if delay_s <= wait_s]
        return max(fitting, key=self.delay_s, default=1)

    def next_step(self, level: int, not_before_ms: int, *, written_ms: int, now_ms: int) -> NotDue | TooEarly | None:
        """Decide about the first record of a retry topic.

        Args:
            level: of the topic.
            not_before_ms: when the record is due, in Unix milliseconds.
            written_ms: Kafka's timestamp of the record; -1: it has none.
            now_ms: Unix milliseconds.

        Returns:
            None: the record is due.
        """
        longest_ms = _ms(MAX_EXTRA_WAIT_S + max(self.delays_s))
        if not_before_ms <= now_ms or not_before_ms > now_ms + longest_ms:
            return None
        # A record without a timestamp, or with one far in the future, is written again with the worker's time. Not one
        # whose timestamp is a little ahead: with LogAppendTime it is the broker's however often it is written.
        delay_ms = _ms(self.delay_s(level))
        release_ms = min(written_ms, now_ms) + delay_ms if 0 <= written_ms <= now_ms + delay_ms else now_ms
        if release_ms > now_ms:
            return NotDue(min(not_before_ms, release_ms))
        if level > self.levels:
            return None  # its topic is not configured any more, and it has waited for the longest configured delay
        return TooEarly(self.level_for((not_before_ms - now_ms) / 1000))


# --- the headers of a deferred contact


class RetryState(NamedTuple):
    """State in the headers of a record in a retry topic of contacts.

    Attributes:
        source: position of the contact on the features topic.
        rounds: rounds that count as failed.
        not_before_ms: when it is due, in Unix milliseconds; 0: immediately.
        group: the consumer group that deferred it; None: no worker wrote this record.
        held: why it is held after its last round; otherwise empty.
    """

    source: str
    rounds: int
    not_before_ms: int
    group: str | None
    held: str


@dataclass(frozen=True, slots=True)
class StartBounds:
    """Bounds of this group's records in retry partitions without a commit at the start of the worker.

    Such a partition is read from its beginning. Its contacts from before the group's start offset on the features topic
    do not belong to this start. Elsewhere the commit is the bound: no deferred contact of the group is skipped, even if
    an operator has moved its offsets on the features topic.

    Attributes:
        partitions: those partitions of retry topics.
        starts: the group's start offset for each partition of the features topic.
        since_ms: for each partition of a features topic that was deleted and created again, the time behind the outputs
            of the former one, in Unix milliseconds.
    """

    partitions: frozenset[tuple[str, int]] = frozenset()
    starts: Mapping[tuple[str, int], int] = field(default_factory=dict)
    since_ms: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def is_of_former_topic(self, record: SourceRecord, source: str) -> bool:
        """Return whether a source is a position on the former features topic of the same name."""
        if not self.since_ms:
            return False
        place = parse_source(source)
        return place is not None and record.timestamp_ms < self.since_ms.get((place.topic, place.partition), 0)

    def exclude(self, record: SourceRecord, source: str) -> bool:
        """Return whether a record is from before the start; ``source``: its position on the features topic."""
        if (record.topic, record.partition) not in self.partitions or self.is_of_former_topic(record, source):
            return False
        place = parse_source(source)
        return place is not None and place.offset < self.starts.get((place.topic, place.partition), 0)


class Source(NamedTuple):
    """The position in a ``stream-scorer-source`` header."""

    topic: str
    partition: int
    offset: int


def state_headers(state: RetryState) -> Headers:
    """Return the headers of a deferred contact."""
    headers: Headers = [
        (SOURCE_HEADER, state.source.encode()),
        (DEFERRED_HEADER, b"%d" % state.rounds),
        (NOT_BEFORE_HEADER, b"%d" % state.not_before_ms),
        (GROUP_HEADER, (state.group or "").encode()),
    ]
    return [*headers, (HELD_HEADER, state.held.encode())] if state.held else headers


def state_of(record: SourceRecord) -> RetryState:
    """Return the state of a record that was read from a retry topic.

    Other programs may write there. A record without a group is a separate event, identified by its own position, as on
    the features topic. Its level counts as its failed rounds; so does that of a record with an unreadable number of
    rounds. A record with an unreadable time is due.
    """
    found: dict[str, bytes] = {}
    for name, value in record.headers:
        if value is not None:
            found.setdefault(name, value)
    group = found[GROUP_HEADER].decode(errors="replace") if found.get(GROUP_HEADER) else None
    source = found.get(SOURCE_HEADER, b"")
    is_named = group is not None and _SOURCE.fullmatch(source) is not None
    rounds = parse_number(found.get(DEFERRED_HEADER), _MAX_ROUNDS_DIGITS)
    return RetryState(
        source=source.decode() if is_named else f"{record.topic}/{record.partition}/{record.offset}",
        rounds=level_of(record.topic) if rounds is None else rounds,
        not_before_ms=parse_number(found.get(NOT_BEFORE_HEADER), _MAX_TIME_DIGITS) or 0,
        group=group,
        held=found.get(HELD_HEADER, b"").decode(errors="replace") if group is not None else "",
    )


def parse_source(source: str) -> Source | None:
    """Parse ``topic/partition/offset``; None if it is malformed."""
    match = _SOURCE.fullmatch(source.encode())
    return None if match is None else Source(match[1].decode(), int(match[2]), int(match[3]))


def parse_number(value: bytes | None, max_digits: int) -> int | None:
    """Return the number in a header, of at most so many digits; None if it is none."""
    return int(value) if value is not None and value.isdigit() and len(value) <= max_digits else None


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
