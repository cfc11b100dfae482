"""Batcher of contacts: limits contacts and bytes, one model version per batch, distinct contact ids in each.

A batch is returned when it is full, or when it is due: it has lingered long enough *and* the caller could send it
now. So under load batches are full; on a quiet stream a contact waits ``linger_s`` and no request is wasted.

A repeated contact id goes to the next batch. Several batches of one model version are then open, in order, and each
contains an id at most once. `Batcher.open_batches` counts them. They never become one request, so the caller need
not wait for more contacts to fill them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.events import Contact


class BatchKey(NamedTuple):
    """What the contacts of one request have in common."""

    model_version: str | None
    version_from_event: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """A closed batch: contacts with distinct ids for one request. ``opened_at`` is monotonic seconds."""

    key: BatchKey
    contacts: tuple[Contact, ...]
    opened_at: float


@dataclass(slots=True, eq=False)  # compared by identity: there may be thousands
class _Open:
    serial: int
    key: BatchKey
    room: int
    opened_at: float
    contacts: list[Contact] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _OpenBatches:
    """The open batches of one key, oldest first, and how many of them contain each contact id."""

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
        expects_more: whether more contacts can arrive; set by the caller, which limits the reading.
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
        self._by_key: dict[BatchKey, _OpenBatches] = {}
        self._by_age: OrderedDict[int, _Open] = OrderedDict()
        self._full: deque[Batch] = deque()
        self._serials = 0
        self.waiting = 0
        self.expects_more = True

    def fits(self, contact: Contact) -> bool:
        """Return whether a request with this contact alone stays within the limit."""
        return len(contact.body) + self._overhead_bytes(contact.model_version) <= self._max_body_bytes

    def add(self, contact: Contact, now: float) -> None:
        """Add a contact that fits to the first open batch that has room and no event of the same contact."""
        key = BatchKey(contact.model_version, contact.version_from_event)
        opened = self._by_key.get(key) or _OpenBatches()
        size = len(contact.body) + 1
        batch = self._first_fitting(opened, contact.contact_id, size) or self._new(key, opened, now)
        batch.contacts.append(contact)
        batch.ids.add(contact.contact_id)
        opened.copies[contact.contact_id] = opened.copies.get(contact.contact_id, 0) + 1
        batch.room -= size
        self.waiting += 1
        if len(batch.contacts) >= self._max_contacts or batch.room < _SMALLEST_CONTACT_BYTES:
            self._full.append(self._close(batch))

    def take_full(self) -> Batch | None:
        """Return the oldest full batch."""
        return self._taken(self._full.popleft()) if self._full else None

    def take_due(self, now: float) -> Batch | None:
        """Return the oldest open batch if it has lingered long enough."""
        due_at = self.due_at()
        return None if due_at is None or now < due_at else self._take_oldest()

    def take_any(self) -> Batch | None:
        """Return the oldest batch, full or not, for a probe that needs a contact at once."""
        return self.take_full() or (self._take_oldest() if self._by_age else None)

    @property
    def has_full(self) -> bool:
        """Whether a batch is full."""
        return bool(self._full)

    @property
    def open_batches(self) -> int:
        """Number of open batches with the key of the oldest one, itself included: they cannot become one request.

        If no more contacts can arrive (``expects_more`` is False), all open batches count: none will be filled.
        """
        if not self.expects_more or not self._by_age:
            return len(self._by_age)
        return len(self._by_key[next(iter(self._by_age.values())).key].batches)

    def due_at(self) -> float | None:
        """Return when the oldest open batch will have lingered long enough."""
        return next(iter(self._by_age.values())).opened_at + self._linger_s if self._by_age else None

    def drop(self, unwanted: Callable[[Contact], bool]) -> None:
        """Drop the unwanted contacts: their partitions were revoked, so they must not be billed here."""
        kept = [(batch.opened_at, contact) for batch in self._full for contact in batch.contacts]
        kept += [(batch.opened_at, contact) for batch in self._by_age.values() for contact in batch.contacts]
        self._full.clear()
        self._by_age.clear()
        self._by_key.clear()
        self.waiting = 0
        for opened_at, contact in sorted(kept, key=lambda pair: pair[0]):
            if not unwanted(contact):
                self.add(contact, opened_at)

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

    def _new(self, key: BatchKey, opened: _OpenBatches, now: float) -> _Open:
        self._serials += 1
        # One byte more than the limit leaves, as the last contact has no comma.
        room = self._max_body_bytes - self._overhead_bytes(key.model_version) + 1
        batch = _Open(self._serials, key, room, now)
        opened.batches.append(batch)
        self._by_key[key] = opened
        self._by_age[batch.serial] = batch
        return batch

    def _close(self, batch: _Open) -> Batch:
        opened = self._by_key[batch.key]
        opened.batches.remove(batch)
        del self._by_age[batch.serial]
        if opened.batches:
            for contact_id in batch.ids:
                opened.copies[contact_id] -= 1
                if not opened.copies[contact_id]:
                    del opened.copies[contact_id]
        else:
            opened.copies.clear()
            del self._by_key[batch.key]
        return Batch(batch.key, tuple(batch.contacts), batch.opened_at)

    def _take_oldest(self) -> Batch:
        return self._taken(self._close(next(iter(self._by_age.values()))))

    def _taken(self, batch: Batch) -> Batch:
        self.waiting -= len(batch.contacts)
        return batch
