"""What waits to be sent: retries, halves and repeated questions, and behind them the batches of the batcher.

Requests that isolate a bad contact take every other turn at most while anything else can be sent. The contacts of
partitions that went to another worker are taken out on the way: that worker asks about them itself.

Witnesses stand apart (see ``scoring.witnesses``): they are taken one by one when they are needed, or released.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from stream_scorer.core.request import Request, first_request, part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stream_scorer.core.batcher import Batcher
    from stream_scorer.core.ledger import Ledger


class Backlog:
    """See the module's text. Times are monotonic seconds.

    Args:
        batcher: where contacts that were not asked about yet stand.
        ledger: knows which contacts still need an outcome.
        may_close_early: whether a batch that is not full is worth a request now, where so many stand open.
        closed_early: told of every such batch.
        new_id: makes batch ids.
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
        self._isolating: deque[Request] = deque()
        self._witnesses: deque[Request] = deque()
        self._probed: deque[Request] = deque()
        self._isolating_turn = False

    def __len__(self) -> int:
        return sum(map(len, self._kinds))

    def __iter__(self) -> Iterator[Request]:
        return chain(*self._kinds)

    @property
    def _kinds(self) -> tuple[deque[Request], ...]:
        return *self._in_turn, self._witnesses, self._probed

    @property
    def _in_turn(self) -> tuple[deque[Request], ...]:
        """What `take` hands out by itself."""
        return self._first, self._waiting, self._isolating

    @property
    def first(self) -> Request | None:
        """The request that nothing may overtake, if there is one."""
        return self._first[0] if self._first else None

    @property
    def witnesses(self) -> int:
        """How many contacts are kept back as witnesses."""
        return sum(len(request.contacts) for request in self._witnesses)

    @property
    def failing(self) -> int:
        """How many requests wait that the API failed."""
        return sum(request.failing for kind in self._in_turn for request in kind)

    @property
    def has_others(self) -> bool:
        """Whether anything waits that was never failed: its answers will be evidence."""
        return self._batcher.waiting > 0 or any(not one.failing for kind in self._in_turn for one in kind)

    def contacts(self, now: float) -> int:
        """Contacts that a probe could ask about now, in the batcher too."""
        return sum(len(request.everyone) for request in self if request.not_before <= now) + self._batcher.waiting

    # --- in

    def put(self, request: Request) -> None:
        """Puts a request behind those of its kind."""
        (self._isolating if request.isolating else self._waiting).append(request)

    def put_first(self, requests: list[Request]) -> None:
        """Puts requests before everything else, in this order: nothing overtakes them."""
        self._first.extendleft(reversed(requests))

    def put_probed(self, request: Request) -> None:
        """Puts back a request of which the API did not answer a probe: the next probes try all others before it."""
        self._probed.append(request)

    def keep(self, witnesses: Iterable[Request]) -> None:
        """Keeps these back until they are needed as witnesses."""
        self._witnesses.extend(witnesses)

    def release_witnesses(self) -> None:
        """No witness is needed any more: they are asked about like everybody else."""
        for witnesses in self._witnesses:
            self.put(replace(witnesses, isolating=False, failing=False))
        self._witnesses.clear()

    def batch_anew(self, now: float) -> None:
        """The API refused everybody alike, so nothing was found out: the contacts are put into batches again."""
        for waiting in (self._isolating, self._probed):
            found_out = [request for request in waiting if request.asked_before or request.lone_failures]
            nothing = [request for request in waiting if not (request.asked_before or request.lone_failures)]
            waiting.clear()
            waiting.extend(found_out)
            for request in filter(None, map(self._still_wanted, nothing)):
                for contact in request.everyone:
                    self._batcher.add(contact, now)

    def start_anew(self) -> None:
        """A hold has ended: every request has all its attempts again."""
        for request in self._probed:
            self.put(request)
        self._probed.clear()
        for waiting in (self._first, self._waiting, self._isolating):
            fresh = [request.fresh_round() for request in waiting]
            waiting.clear()
            waiting.extend(fresh)

    # --- out

    def is_due(self, now: float) -> bool:
        """Whether a request could be sent now, if only quota and budget allowed it."""
        due_at = self._batcher.due_at()
        return (
            self._batcher.has_full
            or (due_at is not None and due_at <= now)
            or any(request.not_before <= now for kind in self._in_turn for request in kind)
        )

    def is_begun(self, until: float) -> bool:
        """Whether a request waits, due before then, about contacts that were taken from the batches already."""
        return any(request.not_before < until for request in self)

    def take(self, now: float, *, isolating_slot: bool = True, begun_only: bool = False) -> Request | None:
        """The request that goes next.

        Args:
            now: the time.
            isolating_slot: whether one that isolates may take a slot from the others.
            begun_only: no new batch.
        """
        if (request := self._due(self._first, now)) is not None:
            return request
        next_batch = _nothing if begun_only else self._next_batch
        self._isolating_turn = isolating_slot and not self._isolating_turn
        if self._isolating_turn:
            return self._smallest_isolating(now) or self._due(self._waiting, now) or next_batch(now)
        return self._due(self._waiting, now) or next_batch(now) or self._smallest_isolating(now)

    def take_for_probe(self, now: float) -> Request | None:
        """The request whose first contact is asked about next during a hold.

        A contact that the API can never answer must not hold up all others: those that failed as probes come last.
        """
        for waiting in (self._first, self._waiting, self._isolating):
            if (request := self._due(waiting, now)) is not None:
                return request
        batch = self._batcher.take_any()
        if batch is not None:
            return first_request(batch, self._new_id)
        return self.take_witness(now) or self._due(self._probed, now)

    def take_witness(self, now: float) -> Request | None:
        """The next witness, alone."""
        witnesses = self._due(self._witnesses, now)
        if witnesses is None or witnesses.alone:
            return witnesses
        self._witnesses.appendleft(replace(witnesses, contacts=witnesses.contacts[1:]))
        return part_of(witnesses, witnesses.contacts[:1], self._new_id)

    def _next_batch(self, now: float) -> Request | None:
        batch = self._batcher.take_full()
        if batch is None and self._may_close_early(now, self._batcher.crowd):
            batch = self._batcher.take_due(now)
            if batch is not None:
                self._closed_early(now)
        return None if batch is None else first_request(batch, self._new_id)

    def _smallest_isolating(self, now: float) -> Request | None:
        """The request that is nearest to a bad contact: so a broken contract shows after the fewest requests."""
        due = [request for request in self._isolating if request.not_before <= now]
        if not due:
            return None
        smallest = min(due, key=lambda request: len(request.contacts))
        self._isolating.remove(smallest)
        return self._still_wanted(smallest) or self._smallest_isolating(now)

    def _due(self, waiting: deque[Request], now: float) -> Request | None:
        for _ in range(len(waiting)):
            request = waiting.popleft()
            if request.not_before > now:
                waiting.append(request)
            elif (wanted := self._still_wanted(request)) is not None:
                return wanted
        return None

    def _still_wanted(self, request: Request) -> Request | None:
        """The request without the contacts whose partitions went to another worker."""
        unwanted = [one.record for one in request.everyone if not self._ledger.is_pending(one.record)]
        if not unwanted:
            return request
        for record in unwanted:
            self._ledger.abandon(record)
        return request.only(lambda contact: self._ledger.is_pending(contact.record))


def _nothing(_now: float) -> None:
    """Takes no batch."""
