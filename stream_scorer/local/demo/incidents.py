"""Incidents of the demo: a worker is killed and the other takes over; then the API fails for a while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.local.demo.monitor import Monitor, WorkerState
    from stream_scorer.local.demo.story import Story
    from stream_scorer.local.demo.worker_process import WorkerProcess
    from stream_scorer.local.simulator import Simulator

# With fewer contacts the last one is scored before an incident has an effect.
MIN_CONTACTS: Final = 5_000
KILL_AT: Final = 0.4
OUTAGE_AT: Final = 0.6
# Two probes fail in it.
_OPEN_S: Final = 5.0
_OUTAGE_MAX_S: Final = 20.0
_STATUS: Final = 503


class WorkerKill:
    """Kill of one worker at a share of the contacts, and the takeover of its partitions by the other.

    Args:
        victim: the worker that is killed.
        heir: name of the other worker.
        partitions: number of partitions of the features topic.
        at: number of settled contacts at which the worker is killed.
    """

    def __init__(
        self, victim: WorkerProcess, heir: str, *, partitions: int, at: int, monitor: Monitor, story: Story
    ) -> None:
        self._victim = victim
        self._heir = heir
        self._partitions = partitions
        self._at = at
        self._monitor = monitor
        self._story = story
        self._killed_at: float | None = None
        self.is_over = False

    @property
    def was_killed(self) -> bool:
        """Whether the worker was killed."""
        return self._killed_at is not None

    def step(self, settled: int, states: Mapping[str, WorkerState]) -> None:
        """Kill the worker if it is time, and report the takeover."""
        if self._killed_at is None:
            if settled >= self._at and states[self._victim.name].in_flight:
                self._kill(settled, states[self._victim.name])
        elif not self.is_over and states[self._heir].owned == self._partitions:
            self.is_over = True
            waited_s = time.monotonic() - self._killed_at
            self._story.add(
                f"{self._heir} has taken over: it owns all {self._partitions} partitions, {waited_s:.1f} s later"
            )

    def _kill(self, settled: int, state: WorkerState) -> None:
        self._victim.kill()
        self._killed_at = time.monotonic()
        self._monitor.forget(self._victim.name)
        self._story.add(
            f"{self._victim.name} is killed (SIGKILL) at {settled:,} contacts, with {state.in_flight} requests in"
            f" flight and {state.owned} of {self._partitions} partitions"
        )


class ApiOutage:
    """Outage of the API: every request is answered with 503 until the circuit breaker was open for some seconds.

    Args:
        simulator: the API.
        at: number of settled contacts at which it begins.
        may_begin: returns whether all contacts that the API refuses are rejected. After an outage it takes twelve lone
            failures to reject one, each with a control.
    """

    def __init__(self, simulator: Simulator, *, at: int, may_begin: Callable[[], bool], story: Story) -> None:
        self._simulator = simulator
        self._at = at
        self._may_begin = may_begin
        self._story = story
        self._began_at: float | None = None
        self._opened_at: float | None = None
        self.is_over = False

    def step(self, settled: int, worker: WorkerState) -> None:
        """Begin or end the outage if it is time; ``worker``: the only one that is left."""
        if self.is_over:
            return
        now = time.monotonic()
        if self._began_at is None:
            if settled >= self._at and not worker.is_open and self._may_begin():
                self._began_at = now
                self._simulator.add_fault(status=_STATUS, times=None)
                self._story.add(
                    f"the API fails: it answers every request with {_STATUS}; the circuit breaker is closed"
                )
            return
        if self._opened_at is None and worker.is_open:
            self._opened_at = now
        was_open = self._opened_at is not None and now - self._opened_at > _OPEN_S
        if was_open or now - self._began_at > _OUTAGE_MAX_S:
            self._simulator.clear_faults()
            self.is_over = True
            self._story.add("the API works again")


class Incidents:
    """The incidents of a run, one after the other; None: it does not happen."""

    def __init__(self, kill: WorkerKill | None, outage: ApiOutage | None) -> None:
        self._kill = kill
        self._outage = outage

    def step(self, settled: int, states: Mapping[str, WorkerState]) -> None:
        """Cause what is due."""
        if self._kill is None:
            return
        self._kill.step(settled, states)
        if self._kill.is_over and self._outage is not None:
            [survivor] = [state for state in states.values() if state.owned]
            self._outage.step(settled, survivor)
