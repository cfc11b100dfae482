"""Scoring phase of the demo: two workers, the incidents, and the repair of one rejected contact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from stream_scorer.kafka.admin.topics import check_topics
from stream_scorer.local.demo import pace
from stream_scorer.local.demo.contacts import REFUSED_BY_API
from stream_scorer.local.demo.incidents import KILL_AT, MIN_CONTACTS, OUTAGE_AT, ApiOutage, Incidents, WorkerKill
from stream_scorer.local.demo.monitor import Monitor
from stream_scorer.local.demo.progress import ProgressView
from stream_scorer.local.demo.repair import replay
from stream_scorer.local.demo.scenario_view import scene
from stream_scorer.local.demo.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console

    from stream_scorer.local.demo.environment import DemoEnvironment
    from stream_scorer.local.demo.followed import FollowedContacts
    from stream_scorer.local.demo.options import DemoOptions
    from stream_scorer.local.demo.outcomes import OutcomeReader
    from stream_scorer.local.demo.preparation import Prepared
    from stream_scorer.local.demo.story import Story
    from stream_scorer.local.demo.worker_process import WorkerProcess

VICTIM: Final = "scorer-1"
_HEIR: Final = "scorer-2"


@dataclass(frozen=True, slots=True)
class Scored:
    """Result of the phase.

    Attributes:
        seconds: from the first contact read to the last outcome.
        controls: contacts that were sent again as controls.
        killed: name of the killed worker; None: none was.
    """

    seconds: float
    controls: int
    killed: str | None


@dataclass(frozen=True, slots=True)
class ScoringPhase:
    """See the module docstring. ``require_alive`` raises an error if a process has ended by itself."""

    options: DemoOptions
    ready: Prepared
    stage: DemoEnvironment
    story: Story
    console: Console
    require_alive: Callable[[], None]

    def run(self, outcomes: OutcomeReader, followed: FollowedContacts) -> Scored:
        """Score all contacts, and the repaired one again; then stop the workers.

        Raises:
            LocalError: a worker ended by itself, or finished no contact for a long time.
            BrokerError: Kafka rejects a request.
        """
        victim, victim_url = self.stage.start_scorer(VICTIM)
        heir, heir_url = self.stage.start_scorer(_HEIR)
        with Monitor({VICTIM: victim_url, _HEIR: heir_url}) as monitor:
            watch = Watch(
                monitor=monitor,
                outcomes=outcomes,
                campaign=self.ready.campaign,
                followed=followed,
                incidents=self._incidents(victim, monitor, outcomes.counts.reasons),
                story=self.story,
                require_alive=self.require_alive,
                max_contacts=self.ready.settings.scoring.max_contacts,
            )
            seconds = watch.until(self.options.contacts, self._view())
            self._repair(watch, followed)
        for worker in (victim, heir):
            worker.stop()
        return Scored(seconds, watch.controls, VICTIM if victim.was_killed else None)

    def _incidents(self, victim: WorkerProcess, monitor: Monitor, rejected: Mapping[str, int]) -> Incidents:
        contacts = self.options.contacts
        if contacts < MIN_CONTACTS:
            return Incidents(None, None)
        features = self.ready.settings.topics.features
        kill = WorkerKill(
            victim,
            _HEIR,
            partitions=check_topics(self.ready.settings, [features])[features],
            at=int(contacts * KILL_AT),
            monitor=monitor,
            story=self.story,
        )
        if self.options.scenario is not None:
            return Incidents(kill, None)
        refused = {reason: self.ready.generated[reason] for reason in REFUSED_BY_API}
        outage = ApiOutage(
            self.ready.simulator,
            at=int(contacts * OUTAGE_AT),
            may_begin=lambda: all(rejected.get(reason, 0) >= count for reason, count in refused.items()),
            story=self.story,
        )
        return Incidents(kill, outage)

    def _repair(self, watch: Watch, followed: FollowedContacts) -> None:
        contact_id = followed.rejected_id
        if contact_id is None:
            return
        followed.expect_repaired()
        replay(contact_id, self.stage, self.story)
        self.ready.generated[None] += 1
        watch.until(self.options.contacts + 1, self._view())

    def _view(self) -> ProgressView:
        scenario = self.options.scenario
        return ProgressView(
            self.console,
            contacts=self.options.contacts,
            quota=pace.REQUESTS_PER_MINUTE,
            began=self.story.began,
            scene=None if scenario is None else partial(scene, self.ready.simulator),
        )
