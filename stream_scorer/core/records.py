"""Records of Kafka as values, and their places."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

Headers: TypeAlias = "list[tuple[str, bytes | None]]"
# sys.getsizeof of a tuple, a string and a bytes object, plus the list's reference: 56 + 49 + 33 + 8.
_HEADER_OVERHEAD_BYTES: Final = 146


class Partition(NamedTuple):
    """A partition of a topic. As a tuple it sorts and hashes like the plain pair, and equals it."""

    topic: str
    number: int


class SourceRecord(NamedTuple):
    """One record of the features topic or of a retry topic, byte for byte as it was consumed.

    ``headers_readable``: False if the client could not decode the headers, which are then empty here.
    ``timestamp_ms``: Kafka's timestamp of the record, Unix milliseconds; -1: it has none.
    ``origin``: position on the features topic of a record that was read from a retry topic; otherwise empty.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    headers_readable: bool = True
    timestamp_ms: int = -1
    origin: str = ""

    @property
    def next_offset(self) -> int:
        """The offset that is committed once this record has its outcome."""
        return self.offset + 1

    @property
    def source(self) -> str:
        """``topic/partition/offset``, the record's id in headers and audit events; its origin if it was deferred."""
        return self.origin or f"{self.topic}/{self.partition}/{self.offset}"


class RecordKey(NamedTuple):
    """Position of a record: unique until its topic is deleted."""

    topic: str
    partition: int
    offset: int


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
