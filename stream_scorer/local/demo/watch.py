"""Watch over the demo until every contact has its outcome: progress, followed contacts, circuit breakers, incidents."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from stream_scorer.errors import LocalError
from stream_scorer.local.demo.circuit_view import CircuitView
from stream_scorer.local.demo.monitor import Snapshot, together

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.local.demo.campaign_side import CampaignSide
    from stream_scorer.local.demo.followed import FollowedContacts
    from stream_scorer.local.demo.incidents import Incidents
    from stream_scorer.local.demo.monitor import Monitor, WorkerState
    from stream_scorer.local.demo.outcomes import OutcomeReader
    from stream_scorer.local.demo.progress import ProgressView
    from stream_scorer.local.demo.story import Story

_LOOK_EVERY_S: Final = 0.1
# Longer than the worker's retries and the outages of the packaged scenarios: a longer stall is an error.
_STALLED_S: Final = 90.0


class Watch:
    """See the module docstring.

    Args:
        monitor: the scoring workers.
        outcomes: the topics of outcomes.
        campaign: destination of the callbacks.
        followed: the followed contacts.
        incidents: what happens on the way.
        story: prints events.
        require_alive: raises an error if the demo was interrupted, or a process has ended by itself.
        max_contacts: ``scoring.max_contacts``.
    """

    def __init__(
        self,
        *,
        monitor: Monitor,
        outcomes: OutcomeReader,
        campaign: CampaignSide,
        followed: FollowedContacts,
        incidents: Incidents,
        story: Story,
        require_alive: Callable[[], None],
        max_contacts: int,
    ) -> None:
        self._monitor = monitor
        self._outcomes = outcomes
        self._campaign = campaign
        self._followed = followed
        self._incidents = incidents
        self._story = story
        self._require_alive = require_alive
        self._circuits = CircuitView(max_contacts)
        self._states: Mapping[str, WorkerState] = {}

    @property
    def controls(self) -> int:
        """Number of contacts that were sent again as controls."""
        return together(self._states).controls

    def until(self, contacts: int, view: ProgressView) -> float:
        """Return when so many contacts have their outcome: the seconds since the first one was read.

        Raises:
            LocalError: no contact has got its outcome for a long time.
        """
        began = advanced = time.monotonic()
        is_reading = False
        settled = -1
        with view:
            while settled < contacts:
                self._require_alive()
                before = settled
                snapshot = self._look()
                settled = snapshot.settled
                view.show(snapshot)
                now = time.monotonic()
                if not is_reading and snapshot.workers.read:
                    began, is_reading = now, True
                if settled != before:
                    advanced = now
                elif now - advanced > _STALLED_S:
                    why = snapshot.workers.trouble or "no reason known"
                    raise LocalError(f"the workers have finished no contact for {_STALLED_S:g} s: {why}")
                time.sleep(_LOOK_EVERY_S)
            return max(time.monotonic() - began, _LOOK_EVERY_S)

    def _look(self) -> Snapshot:
        """Return the present state, and report what is new."""
        self._states = self._monitor.look()
        for name, state in self._states.items():
            for change in self._circuits.changes(name, state):
                self._story.add(change)
        for outcome in self._outcomes.new():
            for event in self._followed.observe(outcome):
                self._story.add(event)
        settled = self._outcomes.counts.kinds.total()
        self._incidents.step(settled, self._states)
        called, queued = self._campaign.counts()
        return Snapshot(
            together(self._states), MappingProxyType(dict(self._outcomes.counts.kinds)), called=called, queued=queued
        )
