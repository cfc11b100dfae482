"""Fills batches: up to so many contacts and bytes, one model version each, never two events of one contact.

A batch is handed out when it is full, or when it is due: it has lingered long enough *and* the caller could send it
now. So under load batches are full, and on a quiet stream a contact waits ``linger_s`` and no request is wasted.

Repeats of a contact id go to the next batch, the one after that, and so on: several batches of a version stand open
then, in order, and each holds an id at most once. `Batcher.crowd` says how many: they never become one request, so the
caller need not keep them waiting for company.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.events import Contact


class Lane(NamedTuple):
    """What the contacts of one request have in common."""

    model_version: str | None
    version_from_event: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """A closed batch: contacts with distinct ids that go into one request. ``opened_at`` is in the caller's seconds."""

    lane: Lane
    contacts: tuple[Contact, ...]
    opened_at: float


@dataclass(slots=True, eq=False)  # compared by identity: there may be thousands
class _Open:
    serial: int
    lane: Lane
    room: int
    opened_at: float
    contacts: list[Contact] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _OpenLane:
    """The open batches of a lane, oldest first, and in how many of them each contact id stands."""

    batches: list[_Open] = field(default_factory=list)
    copies: dict[str, int] = field(default_factory=dict)


# No contact's JSON is shorter than this: a batch with less room left is full.
_SMALLEST_CONTACT_BYTES = 32


class Batcher:
    """Collects contacts into batches. Not thread-safe; times are the caller's monotonic seconds.

    Args:
        max_contacts: contacts in a batch at most.
        max_body_bytes: size of a request body at most, in bytes.
        overhead_bytes: bytes of a body around its contacts, for a model version; each contact but the first costs one
            more for its comma.
        linger_s: how long a contact waits for company, in seconds.

    Attributes:
        waiting: contacts that stand in batches.
        expects_more: whether contacts can still come. The caller says so, who knows how much may be read.
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
        self._lanes: dict[Lane, _OpenLane] = {}
        self._by_age: OrderedDict[int, _Open] = OrderedDict()
        self._full: deque[Batch] = deque()
        self._serials = 0
        self.waiting = 0
        self.expects_more = True

    def fits(self, contact: Contact) -> bool:
        """Whether a request that holds this contact alone stays within the limit."""
        return len(contact.body) + self._overhead_bytes(contact.model_version) <= self._max_body_bytes

    def add(self, contact: Contact, now: float) -> None:
        """Puts a contact that fits into the first open batch that has room and no event of the same contact."""
        key = Lane(contact.model_version, contact.version_from_event)
        lane = self._lanes.get(key) or _OpenLane()
        size = len(contact.body) + 1
        batch = self._first_fitting(lane, contact.contact_id, size) or self._new(key, lane, now)
        batch.contacts.append(contact)
        batch.ids.add(contact.contact_id)
        lane.copies[contact.contact_id] = lane.copies.get(contact.contact_id, 0) + 1
        batch.room -= size
        self.waiting += 1
        if len(batch.contacts) >= self._max_contacts or batch.room < _SMALLEST_CONTACT_BYTES:
            self._full.append(self._close(batch))

    def take_full(self) -> Batch | None:
        """The oldest full batch."""
        return self._taken(self._full.popleft()) if self._full else None

    def take_due(self, now: float) -> Batch | None:
        """The open batch that has lingered longest, if it has lingered long enough."""
        due_at = self.due_at()
        return None if due_at is None or now < due_at else self._take_oldest()

    def take_any(self) -> Batch | None:
        """The oldest batch, full or not: where one is needed at once, as a probe."""
        return self.take_full() or (self._take_oldest() if self._by_age else None)

    @property
    def has_full(self) -> bool:
        """Whether a full batch waits."""
        return bool(self._full)

    @property
    def crowd(self) -> int:
        """How many open batches cannot become one request with the oldest: those of its lane, itself included.

        Where no more contacts can come (``expects_more`` is False), all that are open: none gets any company.
        """
        if not self.expects_more or not self._by_age:
            return len(self._by_age)
        return len(self._lanes[next(iter(self._by_age.values())).lane].batches)

    def due_at(self) -> float | None:
        """When the oldest open batch will have lingered long enough."""
        return next(iter(self._by_age.values())).opened_at + self._linger_s if self._by_age else None

    def drop(self, unwanted: Callable[[Contact], bool]) -> None:
        """Takes out the contacts whose partitions were taken away: nobody may pay for them here."""
        kept = [(batch.opened_at, contact) for batch in self._full for contact in batch.contacts]
        kept += [(batch.opened_at, contact) for batch in self._by_age.values() for contact in batch.contacts]
        self._full.clear()
        self._by_age.clear()
        self._lanes.clear()
        self.waiting = 0
        for opened_at, contact in sorted(kept, key=lambda pair: pair[0]):
            if not unwanted(contact):
                self.add(contact, opened_at)

    def _first_fitting(self, lane: _OpenLane, contact_id: str, size: int) -> _Open | None:
        """The first open batch with room for ``size`` bytes and without the id.

        As many batches as hold the id are skipped: the first ones hold it, or had no room for it. A batch that is more
        than half full and has no room for the next contact is full: it must not wait for a small one that might never
        come, nor be looked at again for every contact.
        """
        index = lane.copies.get(contact_id, 0)
        while index < len(lane.batches):
            batch = lane.batches[index]
            if size > batch.room and 2 * batch.room < self._max_body_bytes:
                self._full.append(self._close(batch))
            elif size <= batch.room and contact_id not in batch.ids:
                return batch
            else:
                index += 1
        return None

    def _new(self, key: Lane, lane: _OpenLane, now: float) -> _Open:
        self._serials += 1
        # One byte more than the limit leaves, as the last contact has no comma.
        room = self._max_body_bytes - self._overhead_bytes(key.model_version) + 1
        batch = _Open(self._serials, key, room, now)
        lane.batches.append(batch)
        self._lanes[key] = lane
        self._by_age[batch.serial] = batch
        return batch

    def _close(self, batch: _Open) -> Batch:
        lane = self._lanes[batch.lane]
        lane.batches.remove(batch)
        del self._by_age[batch.serial]
        if lane.batches:
            for contact_id in batch.ids:
                lane.copies[contact_id] -= 1
                if not lane.copies[contact_id]:
                    del lane.copies[contact_id]
        else:
            lane.copies.clear()
            del self._lanes[batch.lane]
        return Batch(batch.lane, tuple(batch.contacts), batch.opened_at)

    def _take_oldest(self) -> Batch:
        return self._taken(self._close(next(iter(self._by_age.values()))))

    def _taken(self, batch: Batch) -> Batch:
        self.waiting -= len(batch.contacts)
        return batch
