"""Compact state of every input record, as there may be millions.

A record takes 61 bytes, with any gaps between offsets. They are its offset, one byte of flags, a batch hash of its
first output or audit entry, and the location of its first output. The others are the digests of the input, and one of
the output or audit entry that was read first (`core.reconciliation.outcome_values`). Hashes are Python's own, of 64
bits: they are only compared within one process.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.reconciliation.outcome_values import InputDigest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class Kind(IntEnum):
    """Outcome of an input record; 0 in a state: none read yet."""

    SCORED = 1
    REVIEW = 2
    REJECTED = 3


class CommittedRange(NamedTuple):
    """A group's start offset and committed offset on one input partition."""

    start: int
    committed: int


class RecordLocation(NamedTuple):
    """Location of an output record or an audit event."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


# One byte per record: the kind of its first output, and shifted by two, of its first audit entry; whether it waited in
# a retry topic at the first reading, and whether it still waits; whether its output is that of a deferred contact.
OUTPUT: Final = 0b0000_0011
AUDIT: Final = 0b0000_1100
AUDIT_SHIFT: Final = 2
WAITED: Final = 0b0001_0000
WAITS: Final = 0b0010_0000
LATE: Final = 0b0100_0000
# A location in eight bytes: number of the output partition, and the offset.
_PARTITION_SHIFT: Final = 44
_OFFSET: Final = (1 << _PARTITION_SHIFT) - 1


class PartitionState:
    """States of the records of one input partition.

    Slots 0 to ``known`` - 1 are the inputs below the commit, in order. Later slots are other sources of outputs or
    audit entries: records above the commit, and records that no reader finds.
    """

    __slots__ = (
        "batches",
        "committed",
        "contacts",
        "counts",
        "events",
        "extra",
        "known",
        "name",
        "offsets",
        "payloads",
        "places",
        "sealed",
        "start",
        "states",
        "values",
        "versions",
    )

    def __init__(self, name: str, span: CommittedRange) -> None:
        self.name = name
        self.start, self.committed = span
        self.known = 0
        self.sealed = False
        self.offsets = array("q")
        self.states = bytearray()
        self.batches = array("q")
        self.places = array("Q")
        self.values = array("q")
        self.contacts = array("q")
        self.events = array("q")
        self.versions = array("I")
        self.payloads = array("q")
        self.extra: dict[int, int] = {}
        self.counts: Counter[str] = Counter()

    def index_of(self, offset: int) -> int:
        """Return the slot of an offset at or above the start; add one if it is no input below the commit."""
        offsets, known = self.offsets, self.known
        if not self.sealed:
            self.finish()
        guess = offset - self.start
        if guess < known and offsets[guess] == offset:
            return guess  # no gap before it
        if offset < self.committed:
            guess = bisect_left(offsets, offset)
            if guess < known and offsets[guess] == offset:
                return guess
        slot = self.extra.get(offset)
        if slot is None:
            slot = self.extra[offset] = known + len(self.extra)
            self._grow(1)
        return slot

    def add(self, offset: int, digest: InputDigest) -> None:
        """Add an input below the commit; add all of them before the first `index_of`."""
        self.offsets.append(offset)
        self.contacts.append(digest.contact)
        self.events.append(digest.event)
        self.versions.append(digest.version)
        self.payloads.append(digest.payload)
        self.known += 1

    def digest(self, slot: int) -> InputDigest | None:
        """Return the digests of an input below the commit; None: no reader finds it."""
        if slot >= self.known:
            return None
        return InputDigest(self.contacts[slot], self.events[slot], self.versions[slot], self.payloads[slot])

    def finish(self) -> None:
        """Allocate the states of all inputs together, which is cheaper than one by one."""
        if not self.sealed:
            self.sealed = True
            self._grow(self.known)

    def _grow(self, slots: int) -> None:
        self.states.extend(bytes(slots))
        self.batches.frombytes(bytes(slots * self.batches.itemsize))
        self.places.frombytes(bytes(slots * self.places.itemsize))
        self.values.frombytes(bytes(slots * self.values.itemsize))

    def inputs_in(self, states: Collection[int]) -> Iterator[int]:
        """Return the slots of the inputs below the commit that are in one of these states."""
        return (slot for slot, state in enumerate(self.states[: self.known]) if state in states)

    def source(self, offset: int) -> str:
        """Return the source of a record, as in headers and audit events."""
        return f"{self.name}/{offset}"


class PackedOffsets:
    """Locations of output records in eight bytes, and the last record of each input partition in each output one."""

    __slots__ = ("_last", "_names", "_numbers")

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int], int] = {}
        self._names: list[tuple[str, int]] = []
        self._last: dict[tuple[int, str], int] = {}

    def pack(self, place: RecordLocation) -> int:
        """Return the location of an output record in eight bytes."""
        topic, partition, offset = place
        number = self._numbers.setdefault((topic, partition), len(self._names))
        if number == len(self._names):
            self._names.append((topic, partition))
        return number << _PARTITION_SHIFT | offset

    def unpack(self, packed: int) -> RecordLocation:
        """Return the location that was packed."""
        return RecordLocation(*self._names[packed >> _PARTITION_SHIFT], packed & _OFFSET)

    def overtaken_by(self, packed: int, inputs: PartitionState, offset: int) -> int | None:
        """Return the offset of a later input whose output precedes this one in its partition; None: it is in order."""
        key = (packed >> _PARTITION_SHIFT, inputs.name)
        last = self._last.get(key, -1)
        if offset < last:
            return last
        self._last[key] = offset
        return None
