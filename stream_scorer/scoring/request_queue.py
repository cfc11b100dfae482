"""Queue of requests: retries and parts of divided requests first, then the batches of the two batchers.

Deferred contacts have a batcher of their own. They and the requests of a bisection get every other turn at most while
anything else can be sent. Contacts of revoked partitions are dropped on the way: their new owner sends them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.core.records import Partition, key_of
from stream_scorer.core.scoring.batcher import Batch
from stream_scorer.core.scoring.request import Request, by_partition, first_request, subset

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from stream_scorer.core.records import RecordKey
    from stream_scorer.core.scoring.batcher import Batcher, BatchKey
    from stream_scorer.core.scoring.types import Contact
    from stream_scorer.scoring.ports import OutcomeLedger


class Gate(NamedTuple):
    """Conditions for the next request.

    Attributes:
        is_due: whether a request may be sent.
        allows: whether a new request for a model version may be sent.
        sizes: maximum contacts of the next request, for the versions with fewer than ``scoring.max_contacts``.
        started_only: no new batch.
        bisect_slot: whether a bisection or deferred contacts may take a slot before other requests.
        bisect_quota: whether they may use any of the quota.
    """

    is_due: Callable[[Request], bool]
    allows: Callable[[BatchKey], bool]
    sizes: Mapping[str | None, int]
    started_only: bool = False
    bisect_slot: bool = True
    bisect_quota: bool = True


class RequestQueue:
    """See the module docstring. Times are monotonic seconds.

    Args:
        batcher: the contacts that were never sent.
        deferred: the contacts that were read from a retry topic.
        ledger: has the contacts without an outcome.
        may_send_partial_batch: whether a partial batch is worth a request, given the number of open batches.
        sent_partial_batch: called for every such batch.
        new_id: makes batch ids.
    """

    def __init__(
        self,
        batcher: Batcher,
        deferred: Batcher,
        ledger: OutcomeLedger,
        *,
        may_send_partial_batch: Callable[[float, int], bool],
        sent_partial_batch: Callable[[float], None],
        new_id: Callable[[], str],
    ) -> None:
        self._batcher = batcher
        self._deferred = deferred
        self._ledger = ledger
        self._may_send_partial_batch = may_send_partial_batch
        self._sent_partial_batch = sent_partial_batch
        self._new_id = new_id
        self._first: deque[Request] = deque()
        self._retries: deque[Request] = deque()
        self._bisecting: deque[Request] = deque()
        self._bisect_turn = False

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def __iter__(self) -> Iterator[Request]:
        return chain(*self._lines)

    @property
    def _lines(self) -> tuple[deque[Request], ...]:
        return self._first, self._retries, self._bisecting

    @property
    def first(self) -> Request | None:
        """The request that must be sent before all others, if there is one."""
        return self._first[0] if self._first else None

    @property
    def batched(self) -> int:
        """Number of contacts in the batchers."""
        return self._batcher.waiting + self._deferred.waiting

    @property
    def divided_partitions(self) -> set[Partition]:
        """The partitions with contacts in a bisection."""
        return {Partition(one.record.topic, one.record.partition) for r in self._bisecting for one in r.all_contacts}

    def versions(self) -> set[str | None]:
        """Return the model versions of all waiting contacts."""
        return self.batched_versions() | {request.key.model_version for request in self}

    def batched_versions(self) -> set[str | None]:
        """Return the model versions of the contacts in the batchers."""
        return {key.model_version for batcher in (self._batcher, self._deferred) for key in batcher.keys}

    # --- in

    def add(self, contact: Contact, now: float) -> None:
        """Add a contact to the batches."""
        (self._deferred if contact.record.origin else self._batcher).add(contact, now)

    def put_back(self, requests: Iterable[Request]) -> None:
        """Put the contacts of requests back into the batches, before those that were added later."""
        batches: dict[bool, list[Batch]] = {False: [], True: []}
        for request in requests:
            wanted = self.still_wanted(request)
            if wanted is not None:
                batches[wanted.is_deferred].append(Batch(wanted.key, wanted.all_contacts, wanted.batched_at))
        for is_deferred, returned in batches.items():
            if returned:
                (self._deferred if is_deferred else self._batcher).put_back(returned)

    def put(self, request: Request) -> None:
        """Append a request to its line; contacts that the API named are combined into one request."""
        if request.was_named and not request.failures:
            request = self._with_other_named(request)
        (self._bisecting if request.bisecting else self._retries).append(request)

    def _with_other_named(self, request: Request) -> Request:
        ids = {contact.contact_id for contact in request.contacts}
        for other in self._bisecting:
            is_new = other.was_named and not other.failures and other.key == request.key
            if is_new and ids.isdisjoint(contact.contact_id for contact in other.contacts):
                self._bisecting.remove(other)
                return replace(other, contacts=by_partition(other.contacts + request.contacts))
        return request

    def put_first(self, requests: Iterable[Request]) -> None:
        """Put requests before all others, in this order."""
        self._first.extendleft(reversed(list(requests)))

    def keep_apart(self, partitions: set[Partition]) -> None:
        """Batch the contacts of these partitions in separate requests from now on."""
        self._batcher.apart = partitions

    # --- out

    def is_due(self, now: float, gate: Gate) -> bool:
        """Return whether a request could be sent now, if quota and spend limit allowed it."""
        return (
            self._batcher.is_due(now, gate.allows)
            or self._deferred.is_due(now, gate.allows)
            or any(gate.is_due(request) for request in self)
        )

    def take(self, now: float, gate: Gate) -> Request | None:
        """Return the next request."""
        if (request := self._take(self._first, gate)) is not None:
            return request
        self._bisect_turn = gate.bisect_slot and not self._bisect_turn
        if self._bisect_turn:
            return self._take_minor(now, gate) or self._take_major(now, gate)
        return self._take_major(now, gate) or self._take_minor(now, gate)

    def take_contact(
        self,
        model_version: str | None,
        skip: Collection[RecordKey],
        *,
        never_failed: bool = False,
        avoid: AbstractSet[Partition] = frozenset(),
    ) -> Request | None:
        """Remove a waiting contact of a version and return it in a separate request; deferred contacts last.

        Args:
            model_version: the version.
            skip: the records that are not taken.
            never_failed: only a contact that has not failed in an earlier round.
            avoid: the partitions whose contacts are taken only if no other contact waits in the same batcher.
        """

        def is_wanted(contact: Contact) -> bool:
            is_skipped = key_of(contact.record) in skip or (never_failed and contact.rounds)
            return not is_skipped and self._ledger.is_pending(contact.record)

        for batcher in (self._batcher, self._deferred):
            batch = batcher.take_contact(model_version, is_wanted, avoid=avoid)
            if batch is not None:
                return first_request(batch, self._new_id)
        for line in (self._first, self._retries):
            for index, request in enumerate(line):
                if request.key.model_version == model_version and not request.failures and not request.is_single:
                    contact = request.contacts[0]
                    if is_wanted(contact):
                        line[index] = replace(request, contacts=request.contacts[1:])
                        return subset(request, (contact,), self._new_id)
        return None

    def has_contact(self, skip: Collection[RecordKey]) -> bool:
        """Return whether a batched contact is left that is not in ``skip``."""
        return any(key_of(one.record) not in skip for batcher in (self._batcher, self._deferred) for one in batcher)

    def drain(self, model_version: str | None) -> list[Request]:
        """Remove and return all requests of a version; its batches stay."""
        drained = [request for request in self if request.key.model_version == model_version]
        for line in self._lines:
            kept = [request for request in line if request.key.model_version != model_version]
            line.clear()
            line.extend(kept)
        return drained

    def drain_batches(self, model_version: str | None) -> list[Contact]:
        """Remove and return all contacts of a version from the batches."""
        return [
            contact
            for batcher in (self._batcher, self._deferred)
            for contact in batcher.remove(lambda one: one.model_version == model_version)
        ]

    def drop_unowned(self) -> None:
        """Remove the contacts of revoked partitions from the batches."""
        for batcher in (self._batcher, self._deferred):
            batcher.remove(lambda one: not self._ledger.is_pending(one.record))

    # --- private

    def _take_major(self, now: float, gate: Gate) -> Request | None:
        request = self._take(self._retries, gate)
        return request if request is not None or gate.started_only else self._next_batch(self._batcher, now, gate)

    def _take_minor(self, now: float, gate: Gate) -> Request | None:
        if not gate.bisect_quota:
            return None
        request = self._take_smallest(gate)
        if request is not None or gate.started_only:
            return request
        return self._next_batch(self._batcher, now, gate, apart=True) or self._next_batch(self._deferred, now, gate)

    def _next_batch(self, batcher: Batcher, now: float, gate: Gate, *, apart: bool = False) -> Request | None:
        batch = batcher.take_full(now, gate.allows, apart=apart, sizes=gate.sizes)
        if batch is None and self._may_send_partial_batch(now, batcher.open_batches):
            batch = batcher.take_due(now, gate.allows, apart=apart, sizes=gate.sizes)
            if batch is not None:
                self._sent_partial_batch(now)
        return None if batch is None else first_request(batch, self._new_id)

    def _take_smallest(self, gate: Gate) -> Request | None:
        """Return the smallest bisection request: its partition then proceeds after the fewest requests."""
        while due := [request for request in self._bisecting if gate.is_due(request)]:
            smallest = min(due, key=lambda request: len(request.contacts))
            self._bisecting.remove(smallest)
            if (wanted := self.still_wanted(smallest)) is not None:
                return wanted
        return None

    def _take(self, line: deque[Request], gate: Gate) -> Request | None:
        waiting = list(line)
        line.clear()
        for index, request in enumerate(waiting):
            if not gate.is_due(request):
                line.append(request)
            elif (wanted := self.still_wanted(request)) is not None:
                line.extend(waiting[index + 1 :])
                return wanted
        return None

    def still_wanted(self, request: Request) -> Request | None:
        """Return the request without contacts of revoked partitions; None: none is left."""
        unwanted = [one.record for one in request.all_contacts if not self._ledger.is_pending(one.record)]
        if not unwanted:
            return request
        for record in unwanted:
            self._ledger.drop(record)
        return request.filter(lambda contact: self._ledger.is_pending(contact.record))
