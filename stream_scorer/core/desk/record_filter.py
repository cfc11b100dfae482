"""Selection of records by the options that all commands of the operator's desk share.

A record is examined in three steps, the cheapest first: its place and timestamp, its bytes, and its decoded ids. The
bytes of a value contain each of its ids as UTF-8, in every framing. So most records need not be decoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from stream_scorer.core.audit.events import audited_id
from stream_scorer.core.retry_topics import SOURCE_HEADER, Source, parse_source
from stream_scorer.core.text import is_text, quoted
from stream_scorer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.core.records import SourceRecord

BATCH_HEADER: Final = "stream-scorer-batch"
_ID_HEADERS: Final = frozenset({BATCH_HEADER, SOURCE_HEADER})
_MAX_SEARCHED_PLACES: Final = 20

_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_OFFSET: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_NO_BOUND: Final = "is no duration such as 2h, no ISO time with a zone such as 2030-01-31T06:00:00Z, and no offset"


@dataclass(frozen=True, slots=True)
class Bound:
    """Bound of a selection: a time or an offset; one of the two is None.

    Attributes:
        time_ms: Kafka's timestamp of a record, in Unix milliseconds.
        offset: offset in each partition.
    """

    time_ms: int | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class RecordIds:
    """Ids of a decoded record. A record of several contacts has several of each.

    Attributes:
        contact_ids: contacts; those of an audit entry are truncated (`core.audit.events.audited_id`).
        event_ids: events.
        batch_id: request; None: the record has none.
        sources: places of the records that it was made from, as ``topic/partition/offset``.
    """

    contact_ids: tuple[str, ...] = ()
    event_ids: tuple[str, ...] = ()
    batch_id: str | None = None
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Selection of records; without any value it selects all. A record must match each kind of condition.

    Attributes:
        since: first time or offset that is selected.
        until: first time or offset that is not selected any more.
        limit: maximum number of records; None: no limit.
        partition: the only partition.
        places: places of the records themselves, or of the records that they were made from.
        event_ids: events, one of which the record must have.
        batch_ids: requests, one of which the record must have.
        contact_ids: contacts, one of which the record must have.
    """

    since: Bound | None = None
    until: Bound | None = None
    limit: int | None = None
    partition: int | None = None
    places: frozenset[Source] = frozenset()
    event_ids: frozenset[str] = frozenset()
    batch_ids: frozenset[str] = frozenset()
    contact_ids: frozenset[str] = frozenset()
    _searched: tuple[tuple[bytes, ...], ...] = field(init=False, repr=False, compare=False, default=())
    _in_values: tuple[tuple[bytes, ...], ...] = field(init=False, repr=False, compare=False, default=())
    # The ids, and their forms in audit entries.
    _contacts: frozenset[str] = field(init=False, repr=False, compare=False, default=frozenset())
    _events: frozenset[str] = field(init=False, repr=False, compare=False, default=frozenset())

    def __post_init__(self) -> None:
        """Prepare the ids once: each record is searched for them."""
        # A search for many places would take longer than the decoding of all records.
        few = self.places if len(self.places) <= _MAX_SEARCHED_PLACES else ()
        places = [f"{place.topic}/{place.partition}/{place.offset}" for place in few]
        kinds = (self.contact_ids, self.event_ids, self.batch_ids, places)
        searched = tuple(tuple(audited_id(one).encode() for one in ids) for ids in kinds if ids)
        object.__setattr__(self, "_searched", searched)
        in_values = tuple(tuple(audited_id(one).encode() for one in ids) for ids in kinds[:2] if ids)
        object.__setattr__(self, "_in_values", in_values)
        object.__setattr__(self, "_contacts", self.contact_ids | {audited_id(one) for one in self.contact_ids})
        object.__setattr__(self, "_events", self.event_ids | {audited_id(one) for one in self.event_ids})

    @property
    def selects_ids(self) -> bool:
        """Whether records are selected by ids, so that the value of each must be examined."""
        return bool(self.event_ids or self.batch_ids or self.contact_ids)

    def offsets_of(self, topic: str) -> frozenset[tuple[int, int]]:
        """Return partition and offset of the selected places on a topic; empty: no place of it is selected."""
        return frozenset((place.partition, place.offset) for place in self.places if place.topic == topic)

    def is_within_bounds(self, record: SourceRecord) -> bool:
        """Return whether partition, offset and timestamp are selected. A record without a timestamp has time -1."""
        if self.partition is not None and record.partition != self.partition:
            return False
        return not _is_before(record, self.since) and (self.until is None or _is_before(record, self.until))

    def may_contain(self, key: bytes | None, value: bytes | None) -> bool:
        """Return whether a record may have the selected contact and event ids, which stand in no header."""
        key, value = key or b"", value or b""
        return all(any(one in value or one in key for one in ids) for ids in self._in_values)

    def may_match(self, record: SourceRecord) -> bool:
        """Return whether the record may match: False only if its bytes do not contain the selected ids."""
        if not self.is_within_bounds(record):
            return False
        return not self._searched or self._is_own_place(record) or self._has_bytes(record)

    def matches(self, record: SourceRecord, ids: RecordIds) -> bool:
        """Return whether a record is selected.

        Args:
            record: the record as it was read.
            ids: of its decoded value; without any ids if it cannot be decoded: key and headers still count.
        """
        if not self.is_within_bounds(record):
            return False
        if self.places and not self._has_place(record, ids):
            return False
        if self.contact_ids and not self._has_contact(record, ids):
            return False
        if self.event_ids and self._events.isdisjoint(ids.event_ids):
            return False
        return not self.batch_ids or not self.batch_ids.isdisjoint({ids.batch_id, *_header(record, BATCH_HEADER)})

    def selects_entries(self, record: SourceRecord) -> bool:
        """Return whether only some entries of an audit event are selected."""
        by_place = bool(self.places) and not self._is_own_place(record)
        return bool(self.contact_ids or self.event_ids) or by_place

    def matches_entry(self, record: SourceRecord, contact_id: str, event_id: str, source: str) -> bool:
        """Return whether an entry of a selected audit event is selected itself."""
        return (
            (not self.contact_ids or contact_id in self._contacts)
            and (not self.event_ids or event_id in self._events)
            and (not self.places or self._is_own_place(record) or parse_source(source) in self.places)
        )

    def _has_bytes(self, record: SourceRecord) -> bool:
        value = record.value or b""
        rest: list[bytes] | None = None
        for kind in self._searched:
            if any(one in value for one in kind):
                continue
            if rest is None:
                rest = [record.key or b"", *(header or b"" for name, header in record.headers if name in _ID_HEADERS)]
            if not any(one in part for one in kind for part in rest):
                return False
        return True

    def _is_own_place(self, record: SourceRecord) -> bool:
        return bool(self.places) and Source(record.topic, record.partition, record.offset) in self.places

    def _has_place(self, record: SourceRecord, ids: RecordIds) -> bool:
        if self._is_own_place(record):
            return True
        sources = {*_header(record, SOURCE_HEADER), *ids.sources}
        return any(parse_source(source) in self.places for source in sources)

    def _has_contact(self, record: SourceRecord, ids: RecordIds) -> bool:
        if not self._contacts.isdisjoint(ids.contact_ids):
            return True
        # The key counts only if the value has no ids: that of a callback is another id.
        return not ids.contact_ids and any(record.key == one.encode() for one in self.contact_ids)


def parse_filter(
    *,
    now_ms: int,
    since: str | None = None,
    until: str | None = None,
    limit: int | None = None,
    partition: int | None = None,
    places: Iterable[str] = (),
    events: Iterable[str] = (),
    batches: Iterable[str] = (),
    contacts: Iterable[str] = (),
) -> RecordFilter:
    """Parse the options of a command.

    Args:
        now_ms: Unix milliseconds, from which durations are subtracted.
        since: a duration, an ISO time with a zone, or an offset.
        until: the same.
        limit: at least 1.
        partition: at least 0.
        places: each as ``topic/partition/offset``.
        events: event ids.
        batches: ids of requests.
        contacts: contact ids.

    Raises:
        UsageError: one of them is malformed, or nothing can be selected; names the option.
    """
    first, end = _bound("--since", since, now_ms), _bound("--until", until, now_ms)
    if first is not None and end is not None:
        _check_order(first, end)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: must be at least 1")
    if partition is not None and partition < 0:
        raise UsageError(f"--partition {partition}: must be at least 0")
    return RecordFilter(
        since=first,
        until=end,
        limit=limit,
        partition=partition,
        places=frozenset(_place(text) for text in places),
        event_ids=_ids("--event", events),
        batch_ids=_ids("--batch", batches),
        contact_ids=_ids("contact id", contacts),
    )


def _bound(option: str, text: str | None, now_ms: int) -> Bound | None:
    if text is None:
        return None
    if match := _DURATION.fullmatch(text):
        return Bound(time_ms=max(0, now_ms - int(match[1]) * _MS[match[2]]))
    if _OFFSET.fullmatch(text):
        return Bound(offset=int(text))
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return Bound(time_ms=max(0, round(moment.timestamp() * 1000)))
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {quoted(text)} {_NO_BOUND}") from None
    raise UsageError(f"{option} {quoted(text)} has no zone: add Z, or an offset such as +01:00")


def _check_order(first: Bound, end: Bound) -> None:
    for one, other in ((first.time_ms, end.time_ms), (first.offset, end.offset)):
        if one is not None and other is not None and one >= other:
            raise UsageError("--since is not before --until, so no record can be selected")


def _place(text: str) -> Source:
    place = parse_source(text) if is_text(text) else None
    if place is None:
        raise UsageError(f"--place {quoted(text)}: must be TOPIC/PARTITION/OFFSET, such as contact-features/0/17")
    return place


def _ids(option: str, texts: Iterable[str]) -> frozenset[str]:
    ids = frozenset(texts)
    for text in ids:
        if not text or not is_text(text):
            raise UsageError(f"{option} {quoted(text)}: must be UTF-8 text that is not empty")
    return ids


def _is_before(record: SourceRecord, bound: Bound | None) -> bool:
    if bound is None:
        return False
    if bound.offset is not None:
        return record.offset < bound.offset
    return bound.time_ms is not None and record.timestamp_ms < bound.time_ms


def _header(record: SourceRecord, wanted: str) -> list[str]:
    return [(value or b"").decode(errors="replace") for name, value in record.headers if name == wanted]
