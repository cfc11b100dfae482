"""Dispatcher of callbacks: selects the next one, fairly between campaigns.

Campaigns take turns. A campaign may have at most as many requests in flight as there are free slots: alone it takes
half of the slots, the next campaign half of the rest. A campaign whose last attempt failed has an eighth of the slots
until an attempt succeeds. All campaigns that fail or are slow have half of the slots together. ``429`` or
``Retry-After`` pauses deliveries of the campaign until that time; then one request is sent first. Callbacks that wait
for it have not failed, and no round is counted for them.

Callbacks of a campaign that a circuit breaker blocks are handed back, to be probed with or deferred.

Retries are callbacks with a due time. They wait here, and no thread waits with them.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.callbacks.campaign_queue import SHORT_WAIT_S, CampaignQueue
from stream_scorer.core.callbacks.retry_policy import defer_failing, defer_rate_limited
from stream_scorer.core.records import RecordKey, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_scorer.core.callbacks.circuit_breaker import CircuitBreakers
    from stream_scorer.core.callbacks.retry_policy import DeferredDelivery, Delivery, DeliveryRules
    from stream_scorer.core.records import Partition, SourceRecord

_FAILING_SHARE: Final = 8
_DEGRADED_SHARE: Final = 2
# How many failing campaigns without callbacks in memory keep their state.
_MAX_IDLE_QUEUES: Final = 1_000


class DispatchRound(NamedTuple):
    """The decisions of one round.

    Attributes:
        send: callbacks to send now.
        deferred: callbacks that go to a retry topic because of their campaign's rate limit.
        rate_limited: the campaigns that exceeded their rate limit in it.
        blocked: callbacks that a circuit breaker does not let pass.
    """

    send: list[Delivery]
    deferred: list[DeferredDelivery]
    rate_limited: list[str | None]
    blocked: list[Delivery]


class Dispatcher:
    """See the module docstring. Owned by the deliverer's thread; times are monotonic seconds.

    Args:
        size: maximum number of requests in flight.
        rules: the retry topic of a deferred callback.
        max_per_minute: the rate limit of each campaign; None: none.
        breakers: which campaigns may be sent to.
    """

    def __init__(self, size: int, rules: DeliveryRules, max_per_minute: int | None, breakers: CircuitBreakers) -> None:
        self._size = size
        self._breakers = breakers
        self._rules = rules
        self._max_per_minute = max_per_minute
        self._queues: dict[str | None, CampaignQueue] = {}
        self._turns: OrderedDict[str | None, None] = OrderedDict()
        self._delayed: list[tuple[float, int, Delivery]] = []
        self._requests: dict[RecordKey, Delivery] = {}
        self._numbers = itertools.count()
        self._degraded_in_flight = 0
        self.ready = 0

    # --- in

    def add(self, delivery: Delivery, now: float) -> None:
        """Add a callback to be sent, now or when it is due."""
        queue = self._queue_of(delivery)
        if delivery.due > now:
            queue.delayed += 1
            heapq.heappush(self._delayed, (delivery.due, next(self._numbers), delivery))
        else:
            self._enqueue(queue, delivery)

    def on_response(self, delivery: Delivery, now: float, *, failed: bool | None, leave_alone_s: float = 0.0) -> bool:
        """Record the end of an attempt. Return whether an outage of its campaign has begun.

        Args:
            delivery: the delivery of the attempt.
            now: monotonic seconds.
            failed: whether it was not accepted; None: that is not known, or no request was made.
            leave_alone_s: how long the receiver demands a pause for this campaign.
        """
        queue = self._queue_of(delivery)
        key = key_of(delivery.record)
        sent_at = queue.in_flight.pop(key, now)
        self._requests.pop(key, None)
        if leave_alone_s > 0:
            queue.block(now, leave_alone_s)
        elif failed is False:
            queue.succeeded(sent_at)
        return failed is not None and queue.attempted(now, failed=failed)

    def recovered(self, now: float) -> list[str | None]:
        """Return the campaigns whose outages have ended; each outage is returned once."""
        return [campaign_id for campaign_id, queue in self._queues.items() if queue.has_recovered(now)]

    # --- out

    def next_round(self, now: float, now_ms: int, limit: int) -> DispatchRound:
        """Return at most ``limit`` callbacks to send now, and those deferred because of their campaign's rate limit."""
        self._wake(now)
        self._degraded_in_flight = sum(
            self._queue_of(delivery).is_degraded(now) for delivery in self._requests.values()
        )
        out = DispatchRound([], [], [], [])
        passed = 0
        while passed < len(self._turns) and len(self._requests) < self._size and len(out.send) < limit:
            queue = self._queues[next(iter(self._turns))]
            self._turns.move_to_end(queue.campaign_id)
            delivery = self._next(queue, out, now, now_ms)
            if delivery is None:
                passed += queue.campaign_id in self._turns
                continue
            passed = 0
            self._degraded_in_flight += queue.is_degraded(now)
            self.mark_in_flight(delivery, now)
            out.send.append(delivery)
        return out

    def mark_in_flight(self, delivery: Delivery, now: float) -> None:
        """Record that a callback is in flight."""
        key = key_of(delivery.record)
        self._requests[key] = delivery
        self._queue_of(delivery).in_flight[key] = now

    def admits_probe(self, campaign_id: str | None, now: float) -> bool:
        """Return whether slots, pause and rate limit of a campaign admit a probe now; it is counted then."""
        return len(self._requests) < self._size and self._queue(campaign_id).admits_probe(now)

    def is_paused(self, campaign_id: str | None, now: float) -> bool:
        """Return whether the receiver demands a pause for a campaign that is too long to wait for in memory."""
        queue = self._queues.get(campaign_id)
        return queue is not None and queue.blocked_for_s(now) > self._rules.max_age_s

    def awaiting_first_probe(self, now: float) -> list[str | None]:
        """Return the campaigns whose callbacks wait here for the response to their first probe."""
        if not self._breakers.is_target_open:
            return []
        waiting = [campaign_id for campaign_id in self._turns if self._queues[campaign_id].ready]
        return [campaign_id for campaign_id in waiting if self._breakers.awaits_first_probe(campaign_id, now)]

    def take_first(self, campaign_id: str | None) -> Delivery:
        """Remove and return the first waiting callback of a campaign."""
        return self._counted(self._queues[campaign_id].ready.popleft())

    def defer_degraded(self, now: float, now_ms: int, few: int) -> list[DeferredDelivery]:
        """Defer all waiting callbacks of the degraded campaigns that have more than ``few`` of them.

        None is kept: receipts of a partition are written in order, so the oldest waiting callback blocks all behind it.
        The requests in flight show whether the campaign recovers.
        """
        queues = [queue for queue in self._queues.values() if queue.waiting > few and queue.is_degraded(now)]
        diverted = []
        for queue in queues:
            if queue.blocked_until is not None:
                diverted += self._defer_blocked(queue, now, now_ms)
                continue
            diverted += [defer_failing(self._counted(delivery), self._rules, now_ms) for delivery in queue.ready]
            queue.ready.clear()
        taken = {queue.campaign_id for queue in queues if queue.blocked_until is None}
        for _, _, delivery in self._delayed if taken else ():
            if delivery.callback.campaign_id in taken:
                diverted.append(defer_failing(delivery, self._rules, now_ms))
        gone = {key_of(postponed.record) for postponed in diverted}
        if gone:
            self._keep_delayed(lambda record: key_of(record) not in gone)
        return diverted

    def drop(self, is_wanted: Callable[[SourceRecord], bool]) -> None:
        """Discard the waiting callbacks that are not wanted any more; those in flight stay."""
        for queue in self._queues.values():
            kept = deque(delivery for delivery in queue.ready if is_wanted(delivery.record))
            self.ready -= len(queue.ready) - len(kept)
            queue.ready = kept
        self._keep_delayed(is_wanted)

    def evict_idle(self, now: float) -> None:
        """Discard the queues of idle campaigns."""
        for queue in list(self._queues.values()):
            if queue.is_idle(now) and not (queue.has_outage and len(self._queues) <= _MAX_IDLE_QUEUES):
                del self._queues[queue.campaign_id]
                self._turns.pop(queue.campaign_id, None)

    # --- state

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return len(self._requests)

    @property
    def delayed(self) -> int:
        """Number of callbacks that are not due yet; ``ready`` counts those that wait for a slot."""
        return len(self._delayed)

    def in_flight_records(self, partition: Partition) -> list[SourceRecord]:
        """Return the records of a partition's callbacks that are in flight."""
        return [delivery.record for key, delivery in self._requests.items() if key[:2] == partition]

    def deliveries(self) -> Iterator[Delivery]:
        """Return the callbacks that wait or are in flight."""
        yield from self._requests.values()
        yield from (entry[2] for entry in self._delayed)
        for queue in self._queues.values():
            yield from queue.ready

    # --- private

    def _queue_of(self, delivery: Delivery) -> CampaignQueue:
        return self._queue(delivery.callback.campaign_id)

    def _queue(self, campaign_id: str | None) -> CampaignQueue:
        queue = self._queues.get(campaign_id)
        if queue is None:
            queue = self._queues[campaign_id] = CampaignQueue(campaign_id, self._max_per_minute)
        return queue

    def _enqueue(self, queue: CampaignQueue, delivery: Delivery) -> None:
        self.ready += 1
        # A round that has begun is finished first.
        (queue.ready.appendleft if delivery.attempts_in_round else queue.ready.append)(delivery)
        self._turns.setdefault(queue.campaign_id)

    def _counted(self, delivery: Delivery) -> Delivery:
        """Count a callback that was removed from its campaign queue, and return it."""
        self.ready -= 1
        return delivery

    def _wake(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            delivery = heapq.heappop(self._delayed)[2]
            queue = self._queue_of(delivery)
            queue.delayed -= 1
            self._enqueue(queue, delivery)

    def _keep_delayed(self, is_wanted: Callable[[SourceRecord], bool]) -> None:
        kept = []
        for entry in self._delayed:
            if is_wanted(entry[2].record):
                kept.append(entry)
            else:
                self._queue_of(entry[2]).delayed -= 1
        heapq.heapify(kept)
        self._delayed = kept

    def _next(self, queue: CampaignQueue, out: DispatchRound, now: float, now_ms: int) -> Delivery | None:
        """Return a callback of this campaign that may be sent now."""
        wait_s = queue.blocked_for_s(now)
        if wait_s > self._rules.max_age_s:
            out.deferred.extend(
                defer_rate_limited(self._counted(delivery), self._rules, now_ms, wait_s) for delivery in queue.ready
            )
            queue.ready.clear()
        if self._breakers.blocks(queue.campaign_id):
            if queue.ready and self._breakers.awaits_first_probe(queue.campaign_id, now):
                return None
            out.blocked.extend(self._counted(delivery) for delivery in queue.ready)
            queue.ready.clear()
        if queue.ready and (wait_s > 0 or not self._has_slot(queue, now)):
            return None
        while queue.ready:
            delivery = self._counted(queue.ready.popleft())
            was_paced = queue.is_rate_limited
            wait_s = queue.rate_limit_wait_s(delivery, now)
            if wait_s <= 0:
                return delivery
            if wait_s <= SHORT_WAIT_S:
                self.add(replace(delivery, has_slot=True, due=now + wait_s), now)
            else:
                out.deferred.append(defer_rate_limited(delivery, self._rules, now_ms, wait_s))
            if not was_paced:
                out.rate_limited.append(queue.campaign_id)
        del self._turns[queue.campaign_id]
        return None

    def _defer_blocked(self, queue: CampaignQueue, now: float, now_ms: int) -> list[DeferredDelivery]:
        """Defer the callbacks of a campaign whose receiver demands a pause.

        A round that has begun stays: it is sent first afterwards.
        """
        wait_s = max(queue.blocked_for_s(now), self._rules.delay_s(1))
        begun = deque(delivery for delivery in queue.ready if delivery.attempts_in_round)
        paced = [
            defer_rate_limited(self._counted(delivery), self._rules, now_ms, wait_s)
            for delivery in queue.ready
            if not delivery.attempts_in_round
        ]
        queue.ready = begun
        return paced

    def _has_slot(self, queue: CampaignQueue, now: float) -> bool:
        limit = min(self._size - len(self._requests), queue.width)
        if queue.blocked_until is not None:
            limit = min(limit, 1)
        elif queue.failing:
            limit = min(limit, max(1, self._size // _FAILING_SHARE))
        if len(queue.in_flight) >= limit:
            return False
        return self._degraded_in_flight < max(1, self._size // _DEGRADED_SHARE) or not queue.is_degraded(now)
