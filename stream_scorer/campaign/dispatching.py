"""Which callback is sent next, so that no campaign can take the others' place.

Campaigns take turns. A campaign may have at most as many requests under way as there are free slots: alone it takes
half of them, the next one half of what is left, and there is always a slot for one that comes new. A campaign whose
last attempt failed has an eighth of the slots until an attempt succeeds.

Retries are callbacks with a time from which they are due: they wait here, no thread waits with them.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.delivering import cut_short, divert, pace
from stream_scorer.core.pacing import Pacer
from stream_scorer.core.remembering import RecordKey, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.delivering import DeliveryRules, Job, Postponed
    from stream_scorer.core.events import Partition, SourceRecord

# A request under way for longer than this makes its campaign a slow one.
_SLOW_S: Final = 2.0
_TROUBLED_SHARE: Final = 8
# A wait for the pace up to this is made in memory.
_SHORT_WAIT_S: Final = 2.0
# So many campaigns that fail are remembered although none of their callbacks is here.
_LANES_KEPT: Final = 1_000


class Turn(NamedTuple):
    """What one look at the waiting callbacks came to; ``paced`` are the campaigns that went over their pace in it."""

    send: list[Job]
    postponed: list[Postponed]
    paced: list[str | None]


@dataclass(slots=True)
class _Lane:
    """One campaign."""

    ready: deque[Job] = field(default_factory=deque)
    flying: dict[RecordKey, float] = field(default_factory=dict)
    later: int = 0
    failing: bool = False
    pacer: Pacer | None = None
    is_paced: bool = False

    def is_troubled(self, now: float) -> bool:
        """Whether its attempts fail, or take long."""
        return self.failing or (bool(self.flying) and now - next(iter(self.flying.values())) > _SLOW_S)


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
        self._lanes: dict[str | None, _Lane] = {}
        self._turns: OrderedDict[str | None, None] = OrderedDict()
        self._later: list[tuple[float, int, Job]] = []
        self._flying: dict[RecordKey, Job] = {}
        self._numbers = itertools.count()
        self._ready = 0

    # --- in

    def add(self, job: Job, now: float) -> None:
        """A callback that waits to be sent, now or when it is due."""
        lane = self._lane(job)
        if job.due > now:
            lane.later += 1
            heapq.heappush(self._later, (job.due, next(self._numbers), job))
        else:
            self._enqueue(lane, job)

    def answered(self, job: Job, *, failed: bool) -> bool:
        """An attempt has ended. Returns whether its campaign fails where it did not before, or the other way round."""
        lane = self._lane(job)
        key = key_of(job.record)
        lane.flying.pop(key, None)
        self._flying.pop(key, None)
        changed, lane.failing = lane.failing is not failed, failed
        return changed

    # --- out

    def turn(self, now: float, now_ms: int, limit: int) -> Turn:
        """At most ``limit`` callbacks to be sent now, and those that are put off: their campaign is over its pace."""
        self._wake(now)
        out = Turn([], [], [])
        passed = 0
        while passed < len(self._turns) and len(self._flying) < self._size and len(out.send) < limit:
            campaign_id = next(iter(self._turns))
            self._turns.move_to_end(campaign_id)
            job = self._next(campaign_id, out, now, now_ms)
            if job is None:
                passed += campaign_id in self._turns
                continue
            passed = 0
            self.fly(job, now)
            out.send.append(job)
        return out

    def fly(self, job: Job, now: float) -> None:
        """A callback is under way from now on."""
        key = key_of(job.record)
        self._flying[key] = job
        self._lane(job).flying[key] = now

    def any_waiting(self) -> Job | None:
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

    def divert(self, now: float, now_ms: int, few: int) -> list[Postponed]:
        """Takes out all that wait in the campaigns that are in trouble and have more than ``few`` of them.

        Nothing is kept: within a partition receipts are written in order, so the oldest that waits holds up all behind
        it. What is under way shows whether the campaign recovers.
        """
        diverted: list[Postponed] = []
        taken: set[str | None] = set()
        for campaign_id, lane in self._lanes.items():
            if len(lane.ready) + lane.later > few and lane.is_troubled(now):
                taken.add(campaign_id)
                diverted += [divert(self._counted(job), self._rules, now_ms) for job in lane.ready]
                lane.ready.clear()
        if any(self._lanes[campaign_id].later for campaign_id in taken):
            kept = []
            for entry in self._later:
                postponed = cut_short(entry[2], self._rules, now_ms) if entry[2].callback.campaign_id in taken else None
                if postponed is None:
                    kept.append(entry)
                else:
                    self._lane(entry[2]).later -= 1
                    diverted.append(postponed)
            heapq.heapify(kept)
            self._later = kept
        return diverted

    def drop(self, is_wanted: Callable[[SourceRecord], bool]) -> None:
        """Forgets what waits and is not wanted any more; what is under way stays."""
        for lane in self._lanes.values():
            kept = deque(job for job in lane.ready if is_wanted(job.record))
            self._ready -= len(lane.ready) - len(kept)
            lane.ready = kept
        later = [entry for entry in self._later if is_wanted(entry[2].record)]
        for lane in self._lanes.values():
            lane.later = 0
        for _, _, job in later:
            self._lane(job).later += 1
        heapq.heapify(later)
        self._later = later

    def tidy(self, now: float) -> None:
        """Forgets campaigns of which there is nothing to remember."""
        idle = [
            campaign_id
            for campaign_id, lane in self._lanes.items()
            if not (lane.ready or lane.flying or lane.later)
            and not (lane.failing and len(self._lanes) <= _LANES_KEPT)
            and (lane.pacer is None or lane.pacer.is_idle(now))
        ]
        for campaign_id in idle:
            del self._lanes[campaign_id]
            self._turns.pop(campaign_id, None)

    # --- what others need to know

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._flying)

    @property
    def ready(self) -> int:
        """Callbacks that wait for a slot."""
        return self._ready

    @property
    def later(self) -> int:
        """Callbacks that wait for their time."""
        return len(self._later)

    def flying_records(self, partition: Partition) -> list[SourceRecord]:
        """The records of the callbacks of a partition that are under way."""
        return [job.record for key, job in self._flying.items() if key[:2] == partition]

    # --- private

    def _lane(self, job: Job) -> _Lane:
        campaign_id = job.callback.campaign_id
        lane = self._lanes.get(campaign_id)
        if lane is None:
            lane = self._lanes[campaign_id] = _Lane(pacer=Pacer(self._max_per_minute) if self._max_per_minute else None)
        return lane

    def _enqueue(self, lane: _Lane, job: Job) -> None:
        self._ready += 1
        # A round that has begun is brought to its end first.
        (lane.ready.appendleft if job.tries else lane.ready.append)(job)
        self._turns.setdefault(job.callback.campaign_id)

    def _counted(self, job: Job) -> Job:
        """A callback that does not stand in a lane any more."""
        self._ready -= 1
        return job

    def _wake(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            job = heapq.heappop(self._later)[2]
            lane = self._lane(job)
            lane.later -= 1
            self._enqueue(lane, job)

    def _next(self, campaign_id: str | None, out: Turn, now: float, now_ms: int) -> Job | None:
        lane = self._lanes[campaign_id]
        free = self._size - len(self._flying)
        limit = min(free, max(1, self._size // _TROUBLED_SHARE)) if lane.failing else free
        if lane.ready and len(lane.flying) >= limit:
            return None
        while lane.ready:
            job = self._counted(lane.ready.popleft())
            if self._keeps_pace(lane, job, out, now, now_ms):
                return job
        del self._turns[campaign_id]
        return None

    def _keeps_pace(self, lane: _Lane, job: Job, out: Turn, now: float, now_ms: int) -> bool:
        pacer = lane.pacer
        if pacer is None or job.tries:
            return True
        promised = job.has_slot or job.tier > 0
        wait_s = pacer.promised_wait_s(now) if promised else pacer.wait_s(now)
        if wait_s <= 0:
            lane.is_paced = lane.is_paced and promised
            if not promised:
                pacer.promise(now)
            pacer.sent(now)
            return True
        if not lane.is_paced:
            lane.is_paced = True
            out.paced.append(job.callback.campaign_id)
        if wait_s > _SHORT_WAIT_S or not promised:
            wait_s = pacer.wait_s(now)
            pacer.promise(now + wait_s)
        if wait_s <= _SHORT_WAIT_S:
            self.add(replace(job, has_slot=True, due=now + wait_s), now)
        else:
            out.postponed.append(pace(job, self._rules, now_ms, wait_s))
        return False
