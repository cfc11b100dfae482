"""Queue of requests to send: retries, halves and requests for unanswered contacts, then the batches of the batcher.

Bisecting requests take at most every other turn while any other request can be sent. Contacts of revoked partitions
are removed when their request is taken: the new owner scores them.

Witnesses are stored separately (see ``scoring.witnesses``): they are taken one by one when needed, or released.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from stream_scorer.core.request import Request, first_request, subset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stream_scorer.core.batcher import Batcher
    from stream_scorer.core.ledger import Ledger


class RequestQueue:
    """See the module docstring. Times are monotonic seconds.

    Args:
        batcher: contacts that have no request yet.
        ledger: contains the contacts that still need an outcome.
        may_close_early: returns whether the quota permits a partial batch now, given the number of open batches.
        closed_early: called for every partial batch that is taken.
        new_id: creates batch ids.
    """

    def __init__(
        self,
        batcher: Batcher,
        ledger: Ledger,
        *,
        may_close_early: Callable[[float, int], bool],
        closed_early: Callable[[float], None],
        new_id: Callable[[], str],
    ) -> None:
        self._batcher = batcher
        self._ledger = ledger
        self._may_close_early = may_close_early
        self._closed_early = closed_early
        self._new_id = new_id
        self._first: deque[Request] = deque()
        self._waiting: deque[Request] = deque()
        self._bisecting: deque[Request] = deque()
        self._witnesses: deque[Request] = deque()
        self._probed: deque[Request] = deque()
        self._bisecting_turn = False

    def __len__(self) -> int:
        return sum(map(len, self._kinds))

    def __iter__(self) -> Iterator[Request]:
        return chain(*self._kinds)

    @property
    def _kinds(self) -> tuple[deque[Request], ...]:
        return *self._in_turn, self._witnesses, self._probed

    @property
    def _in_turn(self) -> tuple[deque[Request], ...]:
        """The queues that `take` serves."""
        return self._first, self._waiting, self._bisecting

    @property
    def first(self) -> Request | None:
        """The request that no other may overtake, if there is one."""
        return self._first[0] if self._first else None

    @property
    def witnesses(self) -> int:
        """Number of contacts held out as witnesses."""
        return sum(len(request.contacts) for request in self._witnesses)

    @property
    def failing(self) -> int:
        """Number of queued requests that the API failed."""
        return sum(request.failing for kind in self._in_turn for request in kind)

    @property
    def has_others(self) -> bool:
        """Whether any waiting request never failed: its response will be evidence."""
        return self._batcher.waiting > 0 or any(not one.failing for kind in self._in_turn for one in kind)

    def contacts(self, now: float) -> int:
        """Return the number of contacts that a probe could send now, in the batcher too."""
        return sum(len(request.all_contacts) for request in self if request.not_before <= now) + self._batcher.waiting

    # --- put

    def put(self, request: Request) -> None:
        """Append a request to its queue."""
        (self._bisecting if request.bisecting else self._waiting).append(request)

    def put_first(self, requests: list[Request]) -> None:
        """Insert requests before all others, in this order."""
        self._first.extendleft(reversed(requests))

    def put_probed(self, request: Request) -> None:
        """Append a request after a failed probe: the next probes try all other requests before it."""
        self._probed.append(request)

    def hold_out(self, witnesses: Iterable[Request]) -> None:
        """Hold out these contacts until they are needed as witnesses."""
        self._witnesses.extend(witnesses)

    def release_witnesses(self) -> None:
        """Queue the witnesses as ordinary requests."""
        for witnesses in self._witnesses:
            self.put(replace(witnesses, bisecting=False, failing=False))
        self._witnesses.clear()

    def rebatch(self, now: float) -> None:
        """Return contacts to the batcher after a broken contract, which refused valid contacts too."""
        for waiting in (self._bisecting, self._probed):
            informative = [request for request in waiting if request.retried_unanswered or request.lone_failures]
            uninformative = [
                request for request in waiting if not (request.retried_unanswered or request.lone_failures)
            ]
            waiting.clear()
            waiting.extend(informative)
            for request in filter(None, map(self._still_wanted, uninformative)):
                for contact in request.all_contacts:
                    self._batcher.add(contact, now)

    def restart(self) -> None:
        """Reset the attempts of every request after the circuit breaker closed."""
        for request in self._probed:
            self.put(request)
        self._probed.clear()
        for waiting in (self._first, self._waiting, self._bisecting):
            fresh = [request.fresh_round() for request in waiting]
            waiting.clear()
            waiting.extend(fresh)

    # --- take

    def is_due(self, now: float) -> bool:
        """Return whether a request is due, apart from quota and spend limit."""
        due_at = self._batcher.due_at()
        return (
            self._batcher.has_full
            or (due_at is not None and due_at <= now)
            or any(request.not_before <= now for kind in self._in_turn for request in kind)
        )

    def is_started(self, until: float) -> bool:
        """Return whether a request with contacts already taken from the batcher is due before ``until``."""
        return any(request.not_before < until for request in self)

    def take(self, now: float, *, bisecting_slot: bool = True, started_only: bool = False) -> Request | None:
        """Return the next request.

        Args:
            now: monotonic seconds.
            bisecting_slot: whether a bisecting request may take a slot from the others.
            started_only: no new batch.
        """
        if (request := self._due(self._first, now)) is not None:
            return request
        next_batch = _no_batch if started_only else self._next_batch
        self._bisecting_turn = bisecting_slot and not self._bisecting_turn
        if self._bisecting_turn:
            return self._smallest_bisecting(now) or self._due(self._waiting, now) or next_batch(now)
        return self._due(self._waiting, now) or next_batch(now) or self._smallest_bisecting(now)

    def take_for_probe(self, now: float) -> Request | None:
        """Return the request whose first contact is the next probe.

        A contact that the API can never score must not block all others: failed probes come last.
        """
        for waiting in (self._first, self._waiting, self._bisecting):
            if (request := self._due(waiting, now)) is not None:
                return request
        batch = self._batcher.take_any()
        if batch is not None:
            return first_request(batch, self._new_id)
        return self.take_witness(now) or self._due(self._probed, now)

    def take_witness(self, now: float) -> Request | None:
        """Return the next witness, alone."""
        witnesses = self._due(self._witnesses, now)
        if witnesses is None or witnesses.is_single:
            return witnesses
        self._witnesses.appendleft(replace(witnesses, contacts=witnesses.contacts[1:]))
        return subset(witnesses, witnesses.contacts[:1], self._new_id)

    def _next_batch(self, now: float) -> Request | None:
        batch = self._batcher.take_full()
        if batch is None and self._may_close_early(now, self._batcher.open_batches):
            batch = self._batcher.take_due(now)
            if batch is not None:
                self._closed_early(now)
        return None if batch is None else first_request(batch, self._new_id)

    def _smallest_bisecting(self, now: float) -> Request | None:
        """Return the smallest due bisecting request, so that a broken contract is detected with the fewest requests."""
        due = [request for request in self._bisecting if request.not_before <= now]
        if not due:
            return None
        smallest = min(due, key=lambda request: len(request.contacts))
        self._bisecting.remove(smallest)
        return self._still_wanted(smallest) or self._smallest_bisecting(now)

    def _due(self, waiting: deque[Request], now: float) -> Request | None:
        for _ in range(len(waiting)):
            request = waiting.popleft()
            if request.not_before > now:
                waiting.append(request)
            elif (wanted := self._still_wanted(request)) is not None:
                return wanted
        return None

    def _still_wanted(self, request: Request) -> Request | None:
        """Return the request without the contacts of revoked partitions."""
        unwanted = [one.record for one in request.all_contacts if not self._ledger.is_pending(one.record)]
        if not unwanted:
            return request
        for record in unwanted:
            self._ledger.abandon(record)
        return request.filter(lambda contact: self._ledger.is_pending(contact.record))


def _no_batch(_now: float) -> None:
    """Take no batch."""
