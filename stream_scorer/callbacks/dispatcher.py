"""Which callback is sent next, so that no campaign can take the others' place.

Campaigns take turns. A campaign may have at most as many requests under way as there are free slots: alone it takes
half of them, the next one half of what is left. A campaign whose last attempt failed has an eighth of the slots until
an attempt succeeds. All campaigns that fail or are slow have half of the slots together, however many they are. A
campaign whose receiver asks to be left alone (429, ``Retry-After``) is: none of its callbacks is sent until then, and
one first after it. Those that wait meanwhile have not failed, and no round is counted for them.

Retries are callbacks with a time from which they are due: they wait here, no thread waits with them.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.callbacks.campaign_queue import SHORT_WAIT_S, Lane
from stream_scorer.core.callbacks.delivery_policy import defer_failing, defer_rate_limited, defer_shutdown
from stream_scorer.core.exactly_once.outcome_cache import RecordKey, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.callbacks.delivery_policy import DeferredDelivery, Delivery, DeliveryRules
    from stream_scorer.core.records import Partition, SourceRecord

_FAILING_SHARE: Final = 8
_TROUBLED_SHARE: Final = 2
# So many campaigns that fail are remembered although none of their callbacks is here.
_LANES_KEPT: Final = 1_000


class Turn(NamedTuple):
    """What one look at the waiting callbacks came to; ``paced`` are the campaigns that went over their pace in it."""

    send: list[Delivery]
    postponed: list[DeferredDelivery]
    paced: list[str | None]


class Dispatcher:
    """See the module's text. Owned by the deliverer's thread; times are monotonic seconds.

    Args:
        size: how many requests there may be at once.
        rules: where a callback goes that is put off.
        max_per_minute: the pace of each campaign; None: none.
    """

    def __init__(self, size: int, rules: DeliveryRules, max_per_minute: int | None) -> None:
        self._size = size
        self._rules = rules
        self._max_per_minute = max_per_minute
        self._lanes: dict[str | None, Lane] = {}
        self._turns: OrderedDict[str | None, None] = OrderedDict()
        self._later: list[tuple[float, int, Delivery]] = []
        self._flying: dict[RecordKey, Delivery] = {}
        self._numbers = itertools.count()
        self._troubled_flying = 0
        self.ready = 0

    # --- in

    def add(self, job: Delivery, now: float) -> None:
        """A callback that waits to be sent, now or when it is due."""
        lane = self._lane(job)
        if job.due > now:
            lane.later += 1
            heapq.heappush(self._later, (job.due, next(self._numbers), job))
        else:
            self._enqueue(lane, job)

    def answered(self, job: Delivery, now: float, *, failed: bool, leave_alone_s: float = 0.0) -> bool:
        """An attempt has ended. Returns whether its campaign fails where it did not before, or the other way round.

        Args:
            job: the attempt's.
            now: monotonic seconds.
            failed: whether it has to be repeated.
            leave_alone_s: how long the receiver wants nothing of this campaign.
        """
        lane = self._lane(job)
        key = key_of(job.record)
        sent_at = lane.flying.pop(key, now)
        self._flying.pop(key, None)
        if leave_alone_s > 0:
            lane.close(now, leave_alone_s)
        elif not failed:
            lane.succeeded(sent_at)
        changed, lane.failing = lane.failing is not failed, failed
        return changed

    # --- out

    def turn(self, now: float, now_ms: int, limit: int) -> Turn:
        """At most ``limit`` callbacks to be sent now, and those that are put off: their campaign is over its pace."""
        self._wake(now)
        self._troubled_flying = sum(self._lane(job).is_troubled(now) for job in self._flying.values())
        out = Turn([], [], [])
        passed = 0
        while passed < len(self._turns) and len(self._flying) < self._size and len(out.send) < limit:
            lane = self._lanes[next(iter(self._turns))]
            self._turns.move_to_end(lane.campaign_id)
            job = self._next(lane, out, now, now_ms)
            if job is None:
                passed += lane.campaign_id in self._turns
                continue
            passed = 0
            self._troubled_flying += lane.is_troubled(now)
            self.fly(job, now)
            out.send.append(job)
        return out

    def fly(self, job: Delivery, now: float) -> None:
        """A callback is under way from now on."""
        key = key_of(job.record)
        self._flying[key] = job
        self._lane(job).flying[key] = now

    def any_waiting(self) -> Delivery | None:
        """Takes out one that waits, whichever."""
        for campaign_id in self._turns:
            lane = self._lanes[campaign_id]
            if lane.ready:
                return self._counted(lane.ready.popleft())
        if self._later:
            job = heapq.heappop(self._later)[2]
            self._lane(job).later -= 1
            return job
        return None

    def divert(self, now: float, now_ms: int, few: int) -> list[DeferredDelivery]:
        """Takes out all that wait in the campaigns that are in trouble and have more than ``few`` of them.

        Nothing is kept: within a partition receipts are written in order, so the oldest that waits holds up all behind
        it. What is under way shows whether the campaign recovers.
        """
        lanes = [lane for lane in self._lanes.values() if lane.waiting > few and lane.is_troubled(now)]
        diverted = []
        for lane in lanes:
            if lane.closed_until is not None:
                diverted += self._pace_closed(lane, now, now_ms)
                continue
            diverted += [defer_failing(self._counted(job), self._rules, now_ms) for job in lane.ready]
            lane.ready.clear()
        taken = {lane.campaign_id for lane in lanes if lane.closed_until is None}
        for entry in self._later if taken else ():
            if entry[2].callback.campaign_id in taken:
                cut = defer_shutdown(entry[2], self._rules, now_ms)
                diverted += [cut] if cut is not None else []
        gone = {key_of(postponed.record) for postponed in diverted}
        if gone:
            self._keep_later(lambda record: key_of(record) not in gone)
        return diverted

    def drop(self, is_wanted: Callable[[SourceRecord], bool]) -> None:
        """Forgets what waits and is not wanted any more; what is under way stays."""
        for lane in self._lanes.values():
            kept = deque(job for job in lane.ready if is_wanted(job.record))
            self.ready -= len(lane.ready) - len(kept)
            lane.ready = kept
        self._keep_later(is_wanted)

    def tidy(self, now: float) -> None:
        """Forgets campaigns of which there is nothing to remember."""
        for lane in list(self._lanes.values()):
            if lane.is_idle(now) and not (lane.failing and len(self._lanes) <= _LANES_KEPT):
                del self._lanes[lane.campaign_id]
                self._turns.pop(lane.campaign_id, None)

    # --- what others need to know

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._flying)

    @property
    def later(self) -> int:
        """Callbacks that wait for their time; ``ready`` are those that wait for a slot."""
        return len(self._later)

    def flying_records(self, partition: Partition) -> list[SourceRecord]:
        """The records of the callbacks of a partition that are under way."""
        return [job.record for key, job in self._flying.items() if key[:2] == partition]

    # --- private

    def _lane(self, job: Delivery) -> Lane:
        campaign_id = job.callback.campaign_id
        lane = self._lanes.get(campaign_id)
        if lane is None:
            lane = self._lanes[campaign_id] = Lane(campaign_id, self._max_per_minute)
        return lane

    def _enqueue(self, lane: Lane, job: Delivery) -> None:
        self.ready += 1
        # A round that has begun is brought to its end first.
        (lane.ready.appendleft if job.attempts_in_round else lane.ready.append)(job)
        self._turns.setdefault(lane.campaign_id)

    def _counted(self, job: Delivery) -> Delivery:
        """A callback that does not stand in a lane any more."""
        self.ready -= 1
        return job

    def _wake(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            job = heapq.heappop(self._later)[2]
            lane = self._lane(job)
            lane.later -= 1
            self._enqueue(lane, job)

    def _keep_later(self, is_wanted: Callable[[SourceRecord], bool]) -> None:
        kept = []
        for entry in self._later:
            if is_wanted(entry[2].record):
                kept.append(entry)
            else:
                self._lane(entry[2]).later -= 1
        heapq.heapify(kept)
        self._later = kept

    def _next(self, lane: Lane, out: Turn, now: float, now_ms: int) -> Delivery | None:
        """A callback of this campaign that may be sent now."""
        wait_s = lane.closed_s(now)
        if wait_s > self._rules.max_age_s:
            out.postponed.extend(
                defer_rate_limited(self._counted(job), self._rules, now_ms, wait_s) for job in lane.ready
            )
            lane.ready.clear()
        if lane.ready and (wait_s > 0 or not self._has_slot(lane, now)):
            return None
        while lane.ready:
            job = self._counted(lane.ready.popleft())
            was_paced = lane.is_paced
            wait_s = lane.pace_wait_s(job, now)
            if wait_s <= 0:
                return job
            if wait_s <= SHORT_WAIT_S:
                self.add(replace(job, has_slot=True, due=now + wait_s), now)
            else:
                out.postponed.append(defer_rate_limited(job, self._rules, now_ms, wait_s))
            if not was_paced:
                out.paced.append(lane.campaign_id)
        del self._turns[lane.campaign_id]
        return None

    def _pace_closed(self, lane: Lane, now: float, now_ms: int) -> list[DeferredDelivery]:
        """Takes out what waits for a receiver that asked to be left alone.

        A round that has begun stays: its own turn comes first, and putting it off would count it as failed.
        """
        wait_s = max(lane.closed_s(now), self._rules.delay_s(1))
        begun = deque(job for job in lane.ready if job.attempts_in_round)
        paced = [
            defer_rate_limited(self._counted(job), self._rules, now_ms, wait_s)
            for job in lane.ready
            if not job.attempts_in_round
        ]
        lane.ready = begun
        return paced

    def _has_slot(self, lane: Lane, now: float) -> bool:
        limit = min(self._size - len(self._flying), lane.width)
        if lane.closed_until is not None:
            limit = min(limit, 1)
        elif lane.failing:
            limit = min(limit, max(1, self._size // _FAILING_SHARE))
        if len(lane.flying) >= limit:
            return False
        return self._troubled_flying < max(1, self._size // _TROUBLED_SHARE) or not lane.is_troubled(now)
