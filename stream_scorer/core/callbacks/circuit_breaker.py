"""Circuit breakers of the callback service, one for each campaign and one for the target: pure, with time passed in.

::

    closed        8 failures in a row of at least 3 callbacks ─▶ open
    open          probe sent ─▶ half-open, acceptance ─▶ closed
    half-open     probe failed ─▶ open
    any of these  410 ─▶ switched off
    switched off  any other response ─▶ closed or open, by the failures in a row

The target's breaker opens when those of all campaigns sent to in the last 10 minutes are open, and at least two are or
there is only one campaign. It closes with the first acceptance. Campaigns that are switched off do not count for it:
410 is about one campaign.

While a breaker is open no callback is sent except probes: one every ``probe_interval_s``, of the campaign whose last
request is the longest ago. A campaign that the target's breaker blocks although nothing was sent to it since then is
probed first, without that wait. An acceptance makes the next probe due immediately. A campaign that is switched off is
probed alone, every 60 intervals.

A breaker ends when the worker has lost all partitions in which callbacks of its campaign were: another worker has them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeAlias

from stream_scorer.core.callbacks.types import DeliveryKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream_scorer.core.callbacks.types import DeliveryAnswer
    from stream_scorer.core.records import Partition

FAILURES: Final = 8
CALLBACKS: Final = 3
# Campaigns sent to within this time decide about the target.
RECENT_S: Final = 600.0
SWITCHED_OFF_INTERVALS: Final = 60
# Probes of campaigns without a request since the target's breaker opened: at most so many at once.
_MAX_FIRST_PROBES: Final = 4

CampaignId: TypeAlias = str | None


class BreakerStatus(StrEnum):
    """Status of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    SWITCHED_OFF = "switched_off"


@dataclass(frozen=True, slots=True)
class Blocked:
    """An open breaker, for log events, metrics and ``/readyz``.

    Attributes:
        campaign_id: the campaign; without meaning for the target's breaker.
        status: open, half-open or switched off.
        message: the last failure, one line.
        http_status: its HTTP status; None: there was no response.
        remedy: what an operator can do.
        since: monotonic seconds; when the breaker opened.
    """

    campaign_id: CampaignId
    status: BreakerStatus
    message: str
    http_status: int | None
    remedy: str
    since: float


@dataclass(slots=True)
class _Campaign:
    """State of one campaign's breaker; times are monotonic seconds."""

    seen_at: float
    partitions: set[Partition] = field(default_factory=set)  # those in which its callbacks were
    sent_at: float = -math.inf
    former_sent_at: float = -math.inf  # of the request before
    failures: int = 0
    failed_ids: set[str] = field(default_factory=set)
    is_open: bool = False
    is_switched_off: bool = False
    since: float = 0.0
    probe_at: float = 0.0  # of a campaign that is switched off
    probes: int = 0  # in flight
    answer: DeliveryAnswer | None = None
    is_accepting: bool = False


class CircuitBreakers:
    """See the module docstring. Times are monotonic seconds.

    Args:
        probe_interval_s: seconds between probes.
        longest_delay_s: the longest delay of a retry topic, in seconds.
    """

    def __init__(self, probe_interval_s: float, longest_delay_s: float) -> None:
        self._interval_s = probe_interval_s
        # A campaign without any callback for so long has none in a retry topic either.
        self._forget_after_s = longest_delay_s + RECENT_S
        self._campaigns: dict[CampaignId, _Campaign] = {}
        self._target_since: float | None = None
        self._target_answer: DeliveryAnswer | None = None
        self._probe_at = 0.0

    # --- questions

    @property
    def is_target_open(self) -> bool:
        """Whether the target's breaker is open."""
        return self._target_since is not None

    def status(self, campaign_id: CampaignId) -> BreakerStatus:
        """Return the status of a campaign's own breaker."""
        campaign = self._campaigns.get(campaign_id)
        return BreakerStatus.CLOSED if campaign is None else _status(campaign)

    def blocks(self, campaign_id: CampaignId) -> bool:
        """Return whether callbacks of a campaign are not sent, except probes."""
        return self.is_target_open or self.status(campaign_id) is not BreakerStatus.CLOSED

    def awaits_first_probe(self, campaign_id: CampaignId, now: float) -> bool:
        """Return whether a campaign is blocked by the target alone, and its own first probe is due or in flight."""
        campaign = self._of(campaign_id, now)
        if _status(campaign) is not BreakerStatus.CLOSED:
            return False
        return self.is_target_open and (campaign.probes > 0 or self._is_fresh(campaign_id))

    def is_switched_off(self, campaign_id: CampaignId) -> bool:
        """Return whether the last response for a campaign was 410."""
        return self.status(campaign_id) is BreakerStatus.SWITCHED_OFF

    def is_accepting(self, campaign_id: CampaignId) -> bool:
        """Return whether a callback of a campaign was accepted, and since then none was refused with a 409."""
        campaign = self._campaigns.get(campaign_id)
        return campaign is not None and campaign.is_accepting

    def needs_candidates(self, campaign_id: CampaignId) -> bool:
        """Return whether callbacks of a campaign are kept to be sent as probes."""
        return self.blocks(campaign_id) and not self.is_switched_off(campaign_id)

    def target(self) -> Blocked | None:
        """Return the target's breaker while it is open."""
        if self._target_since is None or self._target_answer is None:
            return None
        return _blocked(None, BreakerStatus.OPEN, self._target_answer, self._target_since)

    def campaigns(self) -> list[Blocked]:
        """Return the campaigns whose own breakers are not closed."""
        return [
            _blocked(campaign_id, _status(campaign), campaign.answer, campaign.since)
            for campaign_id, campaign in self._campaigns.items()
            if campaign.answer is not None and _status(campaign) is not BreakerStatus.CLOSED
        ]

    # --- probes

    def next_probes(self, waiting: Iterable[CampaignId], now: float) -> list[CampaignId]:
        """Return the campaigns that a probe may be sent for now, the most urgent first; empty: none is due.

        Args:
            waiting: the campaigns that have a callback to probe with.
            now: monotonic seconds.
        """
        idle = [one for one in waiting if not self._of(one, now).probes and not self.is_switched_off(one)]
        fresh = [one for one in idle if self._is_fresh(one)]
        others = sorted((one for one in idle if not self._is_fresh(one)), key=lambda one: self._campaigns[one].sent_at)
        has_room = sum(campaign.probes for campaign in self._campaigns.values()) < _MAX_FIRST_PROBES
        # The others follow: the receiver may demand a pause for all the fresh ones.
        return [*(fresh if has_room else ()), *(others if now >= self._probe_at else ())]

    def is_probe_due(self, campaign_id: CampaignId, now: float) -> bool:
        """Return whether a campaign that is switched off may be probed."""
        campaign = self._of(campaign_id, now)
        return campaign.is_switched_off and not campaign.probes and now >= campaign.probe_at

    # --- events

    def seen(self, campaign_id: CampaignId, partition: Partition, now: float) -> None:
        """Record that a campaign has a callback in a partition."""
        campaign = self._of(campaign_id, now)
        campaign.seen_at = now
        campaign.partitions.add(partition)

    def sent(self, campaign_id: CampaignId, now: float, *, is_probe: bool = False) -> None:
        """Record a request of a campaign."""
        campaign = self._of(campaign_id, now)
        if is_probe:
            if campaign.is_switched_off:
                campaign.probe_at = now + SWITCHED_OFF_INTERVALS * self._interval_s
            elif not self._is_fresh(campaign_id):
                self._probe_at = now + self._interval_s
            campaign.probes += 1
        campaign.former_sent_at, campaign.sent_at = campaign.sent_at, now

    def probe_ended(self, campaign_id: CampaignId, now: float, *, was_sent: bool = True) -> None:
        """Record the end of a probe; another one is due at once if no request was made (``was_sent``)."""
        campaign = self._of(campaign_id, now)
        campaign.probes = max(campaign.probes - 1, 0)
        if was_sent:
            return
        campaign.sent_at = campaign.former_sent_at
        if campaign.is_switched_off:
            campaign.probe_at = now
        elif not self._is_fresh(campaign_id):
            self._probe_at = now

    def responded(self, campaign_id: CampaignId, callback_id: str, answer: DeliveryAnswer, now: float) -> bool:
        """Record the end of an attempt. Return whether a breaker has opened or closed."""
        if not answer.is_about_target:
            return False
        before = (self.is_target_open, self.status(campaign_id))
        campaign = self._of(campaign_id, now)
        match answer.kind:
            case DeliveryKind.DELIVERED:
                self._accepted(campaign, now)
                # After a 409 it is not known whether the receiver accepts callbacks that it has not.
                campaign.is_accepting = campaign.is_accepting or not answer.is_conflict
            case DeliveryKind.SWITCHED_OFF:
                self._switched_off(campaign, answer, now)
            case _:
                campaign.is_accepting = campaign.is_accepting and not answer.is_conflict
                if answer.status is not None:
                    campaign.is_switched_off = False
                if answer.status != HTTPStatus.TOO_MANY_REQUESTS:
                    self._failed(campaign, callback_id, answer, now)
        return before != (self.is_target_open, self.status(campaign_id))

    def forget(self, now: float, is_assigned: Callable[[Partition], bool]) -> None:
        """Discard campaigns without callbacks of this worker, and the target's breaker with the last of them."""
        gone = [
            campaign_id
            for campaign_id, campaign in self._campaigns.items()
            if now - campaign.seen_at > self._forget_after_s
            or not any(is_assigned(partition) for partition in campaign.partitions)
            or (campaign.answer is None and now - max(campaign.sent_at, campaign.seen_at) > RECENT_S)
        ]
        for campaign_id in gone:
            del self._campaigns[campaign_id]
        if not self._campaigns:
            self._target_since = self._target_answer = None

    # --- private

    def _of(self, campaign_id: CampaignId, now: float) -> _Campaign:
        campaign = self._campaigns.get(campaign_id)
        if campaign is None:
            campaign = self._campaigns[campaign_id] = _Campaign(now)
        return campaign

    def _is_fresh(self, campaign_id: CampaignId) -> bool:
        """Return whether nothing was sent for a campaign since the target's breaker opened or shortly before."""
        campaign = self._campaigns[campaign_id]
        return (
            self._target_since is not None and not campaign.is_open and campaign.sent_at < self._target_since - RECENT_S
        )

    def _accepted(self, campaign: _Campaign, now: float) -> None:
        if campaign.is_open or self.is_target_open:
            self._probe_at = now
        campaign.failures = 0
        campaign.failed_ids.clear()
        campaign.answer = None
        campaign.is_open = campaign.is_switched_off = False
        self._target_since = self._target_answer = None

    def _switched_off(self, campaign: _Campaign, answer: DeliveryAnswer, now: float) -> None:
        if not campaign.is_switched_off:
            campaign.since = now
            campaign.probe_at = now + SWITCHED_OFF_INTERVALS * self._interval_s
        campaign.answer = answer
        campaign.is_switched_off = True

    def _failed(self, campaign: _Campaign, callback_id: str, answer: DeliveryAnswer, now: float) -> None:
        campaign.answer = answer
        campaign.failures += 1
        if len(campaign.failed_ids) < CALLBACKS:
            campaign.failed_ids.add(callback_id)
        if campaign.failures >= FAILURES and len(campaign.failed_ids) >= CALLBACKS and not campaign.is_open:
            campaign.is_open = True
            campaign.since = now
            self._probe_at = max(self._probe_at, now + self._interval_s)
        if self.is_target_open:
            self._target_answer = answer
        elif campaign.is_open and self._are_all_open(now):
            self._target_since, self._target_answer = now, answer

    def _are_all_open(self, now: float) -> bool:
        known = [campaign for campaign in self._campaigns.values() if not campaign.is_switched_off]
        are_open = all(campaign.is_open for campaign in known if now - campaign.sent_at <= RECENT_S)
        return are_open and (len(known) == 1 or sum(campaign.is_open for campaign in known) > 1)


def _status(campaign: _Campaign) -> BreakerStatus:
    if campaign.is_switched_off:
        return BreakerStatus.SWITCHED_OFF
    if not campaign.is_open:
        return BreakerStatus.CLOSED
    return BreakerStatus.HALF_OPEN if campaign.probes else BreakerStatus.OPEN


def _blocked(campaign_id: CampaignId, status: BreakerStatus, answer: DeliveryAnswer, since: float) -> Blocked:
    return Blocked(campaign_id, status, answer.message, answer.status, answer.remedy, since)
