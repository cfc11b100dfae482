"""Probe candidates: a few callbacks of blocked campaigns that stay in memory to be sent as probes.

All other callbacks of these campaigns go to the retry topics. The outcomes of a partition are committed in order, so a
candidate holds back those behind it: there are few, fairly divided between the campaigns, and each is sent within
minutes. A callback with fewer attempts replaces one with more, so the probes rotate over the callbacks; any callback
replaces one that was held, whose body does probably not fit now either.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_scorer.core.callbacks.retry_policy import Delivery
    from stream_scorer.core.records import SourceRecord

# With an interval of 10 s: until the first of them is read again from a retry topic of 60 s.
MAX_CANDIDATES: Final = 8


class ProbeCandidates:
    """See the module docstring. Owned by the deliverer's thread."""

    def __init__(self) -> None:
        self._deliveries: list[Delivery] = []

    def __len__(self) -> int:
        return len(self._deliveries)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self._deliveries)

    @property
    def campaigns(self) -> dict[str | None, None]:
        """The campaigns that have a candidate, in the order of their first one."""
        return dict.fromkeys(delivery.callback.campaign_id for delivery in self._deliveries)

    def offer(self, delivery: Delivery) -> Delivery | None:
        """Keep a callback as a candidate. Return the one that is no candidate: itself, one it replaces, or None."""
        self._deliveries.append(delivery)
        if len(self._deliveries) <= MAX_CANDIDATES:
            return None
        kept = Counter(one.callback.campaign_id for one in self._deliveries)
        worst = max(self._deliveries, key=lambda one: (kept[one.callback.campaign_id], _order(one)))
        if kept[worst.callback.campaign_id] == kept[delivery.callback.campaign_id] and (
            _order(worst) <= _order(delivery)
        ):
            worst = delivery
        self._deliveries.remove(worst)
        return worst

    def take(self, campaign_id: str | None) -> Delivery:
        """Remove and return the candidate of a campaign with the fewest attempts."""
        own = [one for one in self._deliveries if one.callback.campaign_id == campaign_id]
        chosen = min(own, key=_order)
        self._deliveries.remove(chosen)
        return chosen

    def release(self, is_kept: Callable[[str | None], bool]) -> list[Delivery]:
        """Remove and return the candidates of all campaigns but these."""
        released = [one for one in self._deliveries if not is_kept(one.callback.campaign_id)]
        self._deliveries = [one for one in self._deliveries if is_kept(one.callback.campaign_id)]
        return released

    def drop(self, is_wanted: Callable[[SourceRecord], bool]) -> None:
        """Discard the candidates that are not wanted any more."""
        self._deliveries = [one for one in self._deliveries if is_wanted(one.record)]


def _order(delivery: Delivery) -> tuple[bool, int]:
    """Return the order in which callbacks of a campaign are sent as probes."""
    return delivery.was_held, delivery.callback.attempts
