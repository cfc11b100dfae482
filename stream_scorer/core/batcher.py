"""Batcher of contacts: limits contacts and bytes, one model version per batch, distinct contact ids in each.

A batch is returned when it is full, or when it is due: it has lingered long enough *and* the caller could send it
now. So under load batches are full; on a quiet stream a contact waits ``linger_s`` and no request is wasted.

A repeated contact id goes to the next batch. Several batches of one model version are then open, in order, and each
contains an id at most once. The batches of several model versions are open side by side. `Batcher.open_batches` counts
them all: they never become one request, so the caller need not wait for more contacts to fill them.

Contacts of a partition that is kept apart (`Batcher.apart`) stand in batches of their own.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.core.events import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_scorer.core.events import Contact


class BatchKey(NamedTuple):
    """What the contacts of one request have in common."""

    model_version: str | None
    version_from_event: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """A closed batch: contacts with distinct ids for one request. ``opened_at`` is monotonic seconds.

    ``apart``: the partition that is kept apart and has all the contacts; None: any partitions.
    """

    key: BatchKey
    contacts: tuple[Contact, ...]
    opened_at: float
    apart: Partition | None = None


class _Lane(NamedTuple):
    """What the contacts of one open batch have in common."""

    key: BatchKey
    apart: Partition | None


@dataclass(slots=True, eq=False)  # compared by identity: there may be thousands
class _Open:
    serial: int
    lane: _Lane
    room: int
    opened_at: float
    contacts: list[Contact] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _OpenBatches:
    """The open batches of one lane, oldest first, and how many of them contain each contact id."""

    batches: list[_Open] = field(default_factory=list)
    copies: dict[str, int] = field(default_factory=dict)


# No contact's JSON is shorter than this: a batch with less room left is full.
_SMALLEST_CONTACT_BYTES = 32


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
        apart: the partitions whose contacts are batched apart from now on.
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
        self._by_lane: dict[_Lane, _OpenBatches] = {}
        self._by_age: OrderedDict[int, _Open] = OrderedDict()
        self._full: deque[Batch] = deque()
        self._last_lane = _Lane(BatchKey(None, version_from_event=False), None)
        self._serials = 0
        self.waiting = 0
        self.apart: set[Partition] = set()

    def fits(self, contact: Contact) -> bool:
        """Return whether a request with this contact alone stays within the limit."""
        return len(contact.body) + self._overhead_bytes(contact.model_version) <= self._max_body_bytes

    def add(self, contact: Contact, now: float) -> None:
        """Add a contact that fits to the first open batch that has room and no event of the same contact."""
        lane = self._lane_of(contact)
        opened = self._by_lane.get(lane) or _OpenBatches()
        size = len(contact.body) + 1
        batch = self._first_fitting(opened, contact.contact_id, size) or self._new(lane, opened, now)
        batch.contacts.append(contact)
        batch.ids.add(contact.contact_id)
        opened.copies[contact.contact_id] = opened.copies.get(contact.contact_id, 0) + 1
        batch.room -= size
        self.waiting += 1
        if len(batch.contacts) >= self._max_contacts or batch.room < _SMALLEST_CONTACT_BYTES:
            self._full.append(self._close(batch))

    def take_full(
        self,
        allows: Callable[[BatchKey], bool] | None = None,
        *,
        apart: bool | None = None,
        sizes: Mapping[str | None, int] | None = None,
    ) -> Batch | None:
        """Return the oldest full batch.

        Args:
            allows: the keys that may be taken; None: all.
            apart: whether it must be one of a partition kept apart; None: any.
            sizes: the model versions whose batches are full with fewer than ``max_contacts``.
        """
        for index, batch in enumerate(self._full):
            if _is_wanted(batch.key, batch.apart, allows, apart):
                del self._full[index]
                return self._taken(batch)
        for opened in self._by_age.values() if sizes else ():
            full_at = (sizes or {}).get(opened.lane.key.model_version, self._max_contacts)
            if len(opened.contacts) >= full_at and _is_wanted(opened.lane.key, opened.lane.apart, allows, apart):
                return self._taken(self._close(opened))
        return None

    def take_due(
        self, now: float, allows: Callable[[BatchKey], bool] | None = None, *, apart: bool | None = None
    ) -> Batch | None:
        """Return the oldest open batch that has lingered long enough; arguments as for `take_full`."""
        for opened in self._by_age.values():
            if now < opened.opened_at + self._linger_s:
                return None
            if _is_wanted(opened.lane.key, opened.lane.apart, allows, apart):
                return self._taken(self._close(opened))
        return None

    def take_any(self) -> Batch | None:
        """Return the oldest batch, full or not."""
        return self.take_full() or self.take_due(float("inf"))

    def take_contact(self, model_version: str | None, wanted: Callable[[Contact], bool]) -> Contact | None:
        """Take the first wanted contact of a model version out of its batch."""
        batches = [batch.contacts for batch in self._full if batch.key.model_version == model_version]
        batches += [
            tuple(opened.contacts) for opened in self._by_age.values() if opened.lane.key.model_version == model_version
        ]
        contact = next((one for contacts in batches for one in contacts if wanted(one)), None)
        if contact is not None:
            self.remove(lambda one: one is contact)
        return contact

    def __iter__(self) -> Iterator[Contact]:
        for batch in self._full:
            yield from batch.contacts
        for opened in self._by_age.values():
            yield from opened.contacts

    @property
    def keys(self) -> set[BatchKey]:
        """The keys of all batches."""
        return {batch.key for batch in self._full} | {lane.key for lane in self._by_lane}

    @property
    def has_full(self) -> bool:
        """Whether a batch is full."""
        return bool(self._full)

    def is_due(self, now: float, allows: Callable[[BatchKey], bool]) -> bool:
        """Return whether a batch that may be taken is full or has lingered long enough."""
        if any(allows(batch.key) for batch in self._full):
            return True
        for opened in self._by_age.values():
            if now < opened.opened_at + self._linger_s:
                return False
            if allows(opened.lane.key):
                return True
        return False

    @property
    def open_batches(self) -> int:
        """Number of open batches: none of them can become one request with another."""
        return len(self._by_age)

    def due_at(self) -> float | None:
        """Return when the oldest open batch will have lingered long enough."""
        return next(iter(self._by_age.values())).opened_at + self._linger_s if self._by_age else None

    def remove(self, unwanted: Callable[[Contact], bool]) -> list[Contact]:
        """Take the unwanted contacts out of the batches and return them."""
        batches = [(batch.opened_at, batch.contacts) for batch in self._full]
        batches += [(opened.opened_at, tuple(opened.contacts)) for opened in self._by_age.values()]
        self._full.clear()
        self._by_age.clear()
        self._by_lane.clear()
        self.waiting = 0
        removed: list[Contact] = []
        for opened_at, contacts in sorted(batches, key=lambda pair: pair[0]):
            for contact in contacts:
                if unwanted(contact):
                    removed.append(contact)
                else:
                    self.add(contact, opened_at)
        return removed

    def _lane_of(self, contact: Contact) -> _Lane:
        lane = self._last_lane  # mostly the next contact has the same: a lane is made for each change, not for each
        version, from_event = lane.key
        if self.apart or contact.model_version != version or contact.version_from_event != from_event:
            key = BatchKey(contact.model_version, contact.version_from_event)
            partition = Partition(contact.record.topic, contact.record.partition)
            lane = self._last_lane = _Lane(key, partition if partition in self.apart else None)
        elif lane.apart is not None:
            lane = self._last_lane = _Lane(lane.key, None)
        return lane

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

    def _new(self, lane: _Lane, opened: _OpenBatches, now: float) -> _Open:
        self._serials += 1
        # One byte more than the limit leaves, as the last contact has no comma.
        room = self._max_body_bytes - self._overhead_bytes(lane.key.model_version) + 1
        batch = _Open(self._serials, lane, room, now)
        opened.batches.append(batch)
        self._by_lane[lane] = opened
        self._by_age[batch.serial] = batch
        return batch

    def _close(self, batch: _Open) -> Batch:
        opened = self._by_lane[batch.lane]
        opened.batches.remove(batch)
        del self._by_age[batch.serial]
        if opened.batches:
            for contact_id in batch.ids:
                opened.copies[contact_id] -= 1
                if not opened.copies[contact_id]:
                    del opened.copies[contact_id]
        else:
            opened.copies.clear()
            del self._by_lane[batch.lane]
        return Batch(batch.lane.key, tuple(batch.contacts), batch.opened_at, batch.lane.apart)

    def _taken(self, batch: Batch) -> Batch:
        self.waiting -= len(batch.contacts)
        return batch


def _is_wanted(
    key: BatchKey, partition: Partition | None, allows: Callable[[BatchKey], bool] | None, apart: bool | None
) -> bool:
    return (apart is None or apart is (partition is not None)) and (allows is None or allows(key))
