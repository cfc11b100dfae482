"""Batcher of contacts: limits contacts and bytes, one model version per batch, distinct contact ids in each.

A batch is returned when it is full, or when it is due: it has lingered long enough *and* the caller could send it
now. So under load batches are full; on a quiet stream a contact waits ``linger_s`` and no request is wasted.

Every partition fills separate batches: a slow request then stops one partition. A batch that is due takes contacts of
the other partitions too. While batches become full, a partition with few contacts gets its turn after `_TURN_AFTER`
lingers.

A repeated contact id goes to the next batch. Several batches of one model version are then open, in order, and each
contains an id at most once. `Batcher.open_batches` counts the minimum of requests for the open batches: those of
several model versions are never merged, so the caller need not wait for more contacts to fill them.

Contacts of a partition that is kept apart (`Batcher.apart`) are never combined with those of other partitions.

A batch that was taken and is put back keeps its time, and goes before the contacts that were added after it: commits
of a partition wait for its oldest contact.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.core.records import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from stream_scorer.core.scoring.types import Contact


class BatchKey(NamedTuple):
    """Common key of the contacts of one request."""

    model_version: str | None
    version_from_event: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """A closed batch: contacts with distinct ids for one request. ``opened_at`` is monotonic seconds.

    ``apart``: whether all contacts are of one partition that is kept apart.
    """

    key: BatchKey
    contacts: tuple[Contact, ...]
    opened_at: float
    apart: bool = False


class _QueueKey(NamedTuple):
    """Common key of the contacts of one open batch."""

    key: BatchKey
    partition: Partition


@dataclass(slots=True, eq=False)  # compared by identity: there may be thousands
class _Open:
    serial: int
    place: _QueueKey
    room: int
    opened_at: float
    contacts: list[Contact] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _OpenBatches:
    """The open batches of one queue key, oldest first, and how many of them contain each contact id."""

    batches: list[_Open] = field(default_factory=list)
    copies: dict[str, int] = field(default_factory=dict)


# No contact's JSON is shorter than this: a batch with less room left is full.
_SMALLEST_CONTACT_BYTES = 32
# Contacts of several partitions go together, although batches of single partitions are full or become full, once the
# oldest has waited for so many lingers.
_TURN_AFTER = 5


class Batcher:
    """See the module docstring. Not thread-safe; times are the caller's monotonic seconds.

    Args:
        max_contacts: contacts in a batch at most.
        max_body_bytes: size of a request body at most, in bytes.
        overhead_bytes: bytes of a body around its contacts, for a model version; each contact but the first costs one
            more for its comma.
        linger_s: how long a batch stays open for more contacts, in seconds.

    Attributes:
        waiting: contacts in batches.
        apart: the partitions that are kept apart.
    """

    def __init__(
        self,
        *,
        max_contacts: int,
        max_body_bytes: int,
        overhead_bytes: Callable[[str | None], int],
        linger_s: float,
    ) -> None:
        self._max_contacts = max_contacts
        self._max_body_bytes = max_body_bytes
        self._overhead_bytes = overhead_bytes
        self._linger_s = linger_s
        # The bytes of a body that its contacts may have, for the model version of the last contact.
        self._room_version: str | None = None
        self._room = max_body_bytes - overhead_bytes(None)
        self._by_key: dict[BatchKey, dict[Partition, _OpenBatches]] = {}
        self._by_age: OrderedDict[int, _Open] = OrderedDict()
        self._full: deque[_Open] = deque()
        self._keys_open = 0
        self._serials = 0
        self._use_key(_QueueKey(BatchKey(None, version_from_event=False), Partition("", -1)))
        self.waiting = 0
        self.apart: AbstractSet[Partition] = frozenset()

    def fits(self, contact: Contact) -> bool:
        """Return whether a request with this contact alone stays within the limit."""
        version = contact.model_version
        if version != self._room_version:
            self._room_version, self._room = version, self._max_body_bytes - self._overhead_bytes(version)
        return len(contact.body) <= self._room

    def add(self, contact: Contact, now: float) -> None:
        """Add a contact that fits to the first open batch that has room and no event of the same contact."""
        opened, contact_id = self._open_batches_of(contact), contact.contact_id
        size = len(contact.body) + 1
        batches = opened.batches
        if batches and size <= batches[0].room and contact_id not in opened.copies:
            batch = batches[0]  # the usual case of `_first_fitting`, without its call
        else:
            batch = self._first_fitting(opened, contact_id, size) or self._new(opened, now)
        batch.contacts.append(contact)
        batch.ids.add(contact_id)
        opened.copies[contact_id] = opened.copies.get(contact_id, 0) + 1
        batch.room -= size
        self.waiting += 1
        if len(batch.contacts) >= self._max_contacts or batch.room < _SMALLEST_CONTACT_BYTES:
            self._full.append(self._close(batch))

    def take_full(
        self,
        now: float = -math.inf,
        allows: Callable[[BatchKey], bool] | None = None,
        *,
        apart: bool | None = None,
        sizes: Mapping[str | None, int] | None = None,
    ) -> Batch | None:
        """Return the oldest full batch, or contacts of several partitions whose turn it is.

        Args:
            now: the time.
            allows: the keys that may be taken; None: all.
            apart: whether it must be one of a partition kept apart; None: any.
            sizes: the model versions whose batches are full with fewer than ``max_contacts``.
        """
        sizes = sizes or {}
        full = next((one for one in self._full if self._is_wanted(one.place, allows, apart)), None)
        turn = self._oldest(now - _TURN_AFTER * self._linger_s, allows, apart)
        if full is not None and (turn is None or full.opened_at <= turn.opened_at):
            self._full.remove(full)
            return self._taken(full, full.contacts)
        if turn is not None and (full is not None or self._is_full_together(turn, sizes)):
            return self._take_together(turn, sizes)
        for opened in self._by_age.values() if sizes else ():
            full_at = sizes.get(opened.place.key.model_version, self._max_contacts)
            if len(opened.contacts) >= full_at and self._is_wanted(opened.place, allows, apart):
                return self._taken(self._close(opened), opened.contacts)
        return None

    def take_due(
        self,
        now: float,
        allows: Callable[[BatchKey], bool] | None = None,
        *,
        apart: bool | None = None,
        sizes: Mapping[str | None, int] | None = None,
    ) -> Batch | None:
        """Return the oldest open batch that has lingered long enough, with contacts of the other partitions.

        Arguments as for `take_full`.
        """
        opened = self._oldest(now - self._linger_s, allows, apart)
        return None if opened is None else self._take_together(opened, sizes or {})

    def take_any(self) -> Batch | None:
        """Return the oldest batch, full or not."""
        return self.take_full() or self.take_due(math.inf)

    def take_contact(
        self,
        model_version: str | None,
        wanted: Callable[[Contact], bool],
        *,
        avoid: AbstractSet[Partition] = frozenset(),
    ) -> Batch | None:
        """Remove the first wanted contact of a model version, from partitions not in ``avoid`` first.

        Returns:
            A batch with this contact alone; None: there is none.
        """
        batches = [one for one in self._batches if one.place.key.model_version == model_version]
        batches.sort(key=lambda one: one.place.partition in avoid)
        found = next(((batch, one) for batch in batches for one in batch.contacts if wanted(one)), None)
        if found is None:
            return None
        batch, contact = found
        self.remove(lambda one: one is contact)
        return Batch(batch.place.key, (contact,), batch.opened_at)

    def __iter__(self) -> Iterator[Contact]:
        for batch in self._batches:
            yield from batch.contacts

    @property
    def keys(self) -> set[BatchKey]:
        """The keys of all batches."""
        return {batch.place.key for batch in self._full} | self._by_key.keys()

    @property
    def has_full(self) -> bool:
        """Whether a batch is full."""
        return bool(self._full)

    def is_due(self, now: float, allows: Callable[[BatchKey], bool]) -> bool:
        """Return whether a batch that may be taken is full or has lingered long enough."""
        is_full = any(allows(batch.place.key) for batch in self._full)
        return is_full or self._oldest(now - self._linger_s, allows, None) is not None

    @property
    def open_batches(self) -> int:
        """Number of requests that the open batches become: one for each key, and one for each repetition of ids."""
        return len(self._by_key) + len(self._by_age) - self._keys_open

    def due_at(self) -> float | None:
        """Return when the oldest open batch will have lingered long enough."""
        return next(iter(self._by_age.values())).opened_at + self._linger_s if self._by_age else None

    def remove(self, unwanted: Callable[[Contact], bool]) -> list[Contact]:
        """Remove the unwanted contacts from the batches and return them."""
        removed: list[Contact] = []
        for opened_at, contacts in self._take_all():
            for contact in contacts:
                if unwanted(contact):
                    removed.append(contact)
                else:
                    self.add(contact, opened_at)
        return removed

    def put_back(self, batches: Iterable[Batch]) -> None:
        """Add the contacts of batches that were taken, each before those that were added after it."""
        returned = [(batch.opened_at, batch.contacts) for batch in batches]
        for opened_at, contacts in sorted([*returned, *self._take_all()], key=_age):
            for contact in contacts:
                self.add(contact, opened_at)

    # --- private

    def _take_all(self) -> list[tuple[float, Sequence[Contact]]]:
        """Remove all batches; the time and contacts of each, oldest first."""
        batches: list[tuple[float, Sequence[Contact]]] = [(one.opened_at, one.contacts) for one in self._batches]
        self._full.clear()
        self._by_age.clear()
        self._by_key.clear()
        self._keys_open = self.waiting = 0
        self._use_key(self._last_key)
        return sorted(batches, key=_age)

    @property
    def _batches(self) -> Iterator[_Open]:
        return chain(self._full, self._by_age.values())

    def _open_batches_of(self, contact: Contact) -> _OpenBatches:
        # Usually the next contact has the same key: it is built and looked up per change, not per contact.
        version, from_event, topic, number = self._last_place
        record = contact.record
        if (
            record.partition != number
            or contact.model_version != version
            or contact.version_from_event != from_event
            or record.topic != topic
        ):
            key = BatchKey(contact.model_version, contact.version_from_event)
            self._use_key(_QueueKey(key, Partition(record.topic, record.partition)))
        return self._last_opened

    def _use_key(self, place: _QueueKey) -> None:
        # The second is a plain tuple, which is unpacked faster for every contact.
        self._last_key, self._last_place = place, (*place.key, *place.partition)
        self._last_opened = self._by_key.get(place.key, {}).get(place.partition) or _OpenBatches()

    def _first_fitting(self, opened: _OpenBatches, contact_id: str, size: int) -> _Open | None:
        """Return the first open batch with room for ``size`` bytes and without the id.

        As many batches as contain the id are skipped: the first ones contain it, or had no room for it. A batch that is
        more than half full and has no room for the next contact is closed. It must not wait for a smaller contact, nor
        be checked again for every contact.
        """
        index = opened.copies.get(contact_id, 0)
        while index < len(opened.batches):
            batch = opened.batches[index]
            if size > batch.room and 2 * batch.room < self._max_body_bytes:
                self._full.append(self._close(batch))
            elif size <= batch.room and contact_id not in batch.ids:
                return batch
            else:
                index += 1
        return None

    def _new(self, opened: _OpenBatches, now: float) -> _Open:
        place = self._last_key
        self._serials += 1
        # One byte more than the limit leaves, as the last contact has no comma.
        room = self._max_body_bytes - self._overhead_bytes(place.key.model_version) + 1
        batch = _Open(self._serials, place, room, now)
        if not opened.batches:
            self._by_key.setdefault(place.key, {})[place.partition] = opened
            self._keys_open += 1
        opened.batches.append(batch)
        self._by_age[batch.serial] = batch
        return batch

    def _close(self, batch: _Open) -> _Open:
        key, partition = batch.place
        opened = self._by_key[key][partition]
        opened.batches.remove(batch)
        del self._by_age[batch.serial]
        if opened.batches:
            _forget_copies(opened, batch.ids)
        else:
            opened.copies.clear()
            self._keys_open -= 1
            del self._by_key[key][partition]
            if not self._by_key[key]:
                del self._by_key[key]
        return batch

    def _oldest(self, since: float, allows: Callable[[BatchKey], bool] | None, apart: bool | None) -> _Open | None:
        """Return the oldest open batch that is wanted and was opened by then."""
        for opened in self._by_age.values():
            if opened.opened_at > since:
                return None
            if self._is_wanted(opened.place, allows, apart):
                return opened
        return None

    def _is_wanted(self, place: _QueueKey, allows: Callable[[BatchKey], bool] | None, apart: bool | None) -> bool:
        return (apart is None or apart is (place.partition in self.apart)) and (allows is None or allows(place.key))

    def _together_with(self, first: _Open) -> list[_Open]:
        """Return the open batches of other partitions from which a batch may be filled up, oldest first."""
        if first.place.partition in self.apart:
            return []
        by_partition = self._by_key[first.place.key]
        others = [opened.batches[0] for partition, opened in by_partition.items() if partition not in self.apart]
        return sorted((one for one in others if one.place != first.place), key=lambda one: one.serial)

    def _is_full_together(self, first: _Open, sizes: Mapping[str | None, int]) -> bool:
        batches = [first, *self._together_with(first)]
        room = self._max_body_bytes - sum(self._max_body_bytes - one.room for one in batches)
        contacts = sum(len(one.contacts) for one in batches)
        full_at = sizes.get(first.place.key.model_version, self._max_contacts)
        return contacts >= full_at or room < _SMALLEST_CONTACT_BYTES

    def _take_together(self, first: _Open, sizes: Mapping[str | None, int]) -> Batch:
        """Remove and return an open batch, filled up from those of other partitions."""
        most = sizes.get(first.place.key.model_version, self._max_contacts)
        others = self._together_with(first)
        contacts, ids, room = list(first.contacts), set(first.ids), first.room
        self._close(first)
        for other in others:
            left = []
            for contact in other.contacts:
                size = len(contact.body) + 1
                if len(contacts) < most and size <= room and contact.contact_id not in ids:
                    contacts.append(contact)
                    ids.add(contact.contact_id)
                    room -= size
                else:
                    left.append(contact)
            self._leave(other, left)
        return self._taken(first, contacts)

    def _leave(self, batch: _Open, left: list[Contact]) -> None:
        """Keep only these contacts in an open batch."""
        if not left:
            self._close(batch)
        elif len(left) < len(batch.contacts):
            ids = {contact.contact_id for contact in left}
            _forget_copies(self._by_key[batch.place.key][batch.place.partition], batch.ids - ids)
            taken_bytes = sum(len(one.body) + 1 for one in batch.contacts) - sum(len(one.body) + 1 for one in left)
            batch.room += taken_bytes
            batch.contacts, batch.ids = left, ids

    def _taken(self, batch: _Open, contacts: list[Contact]) -> Batch:
        self.waiting -= len(contacts)
        return Batch(batch.place.key, tuple(contacts), batch.opened_at, batch.place.partition in self.apart)


def _age(batch: tuple[float, Sequence[Contact]]) -> tuple[float, int]:
    return batch[0], batch[1][0].record.offset  # contacts that were read together have the same time


def _forget_copies(opened: _OpenBatches, ids: Iterable[str]) -> None:
    for contact_id in ids:
        opened.copies[contact_id] -= 1
        if not opened.copies[contact_id]:
            del opened.copies[contact_id]
