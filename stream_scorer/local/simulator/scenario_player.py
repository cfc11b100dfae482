"""Player of a scenario: begins and ends due steps. It has no timer: the caller calls `catch_up` regularly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.local.simulator.fault_script import FaultBook
    from stream_scorer.local.simulator.scenario import Scenario


class _Turn(NamedTuple):
    """Start or end of a step. Sorted by time; at the same time, ends come first."""

    at_s: float
    begins: bool
    step: int


@dataclass(frozen=True, slots=True)
class PlayState:
    """State of a scenario, as ``GET /_simulator/scenario`` returns it.

    Attributes:
        name: name of the scenario.
        elapsed_s: seconds since the first request; None before it.
        playing: active steps, in order.
        to_come: steps that have not begun.
        over: whether no further change follows.
    """

    name: str
    elapsed_s: float | None
    playing: tuple[str, ...]
    to_come: tuple[str, ...]
    over: bool

    @classmethod
    def of(cls, content: dict[str, Any]) -> PlayState:
        """Return the state of decoded JSON."""
        steps = {name: tuple(content[name]) for name in ("playing", "to_come")}
        return cls(**{**content, **steps})


class ScenarioPlayer:
    """One run of a scenario. Times are monotonic seconds, passed in.

    Args:
        scenario: the scenario.
        faults: the script to which the faults of active steps are added.
        revoke_tokens: revokes all tokens.
        configure: called with all active changes of the configuration.
        report: called with a line at the start and end of each step.
    """

    def __init__(
        self,
        scenario: Scenario,
        faults: FaultBook,
        *,
        revoke_tokens: Callable[[], object],
        configure: Callable[[Mapping[str, Any]], object],
        report: Callable[[str], object] = lambda _line: None,
    ) -> None:
        self.scenario = scenario
        self.report = report
        self._faults = faults
        self._revoke_tokens = revoke_tokens
        self._configure = configure
        self._turns = sorted(_turns(scenario))
        self._began_at: float | None = None
        self._playing: list[int] = []

    def begin(self, now: float) -> None:
        """Start the time with the first request; only the first call counts."""
        if self._began_at is None:
            self._began_at = now

    def catch_up(self, now: float) -> None:
        """Begin and end the due steps."""
        if self._began_at is None or not self._turns or self._turns[0].at_s > now - self._began_at:
            return
        while self._turns and self._turns[0].at_s <= now - self._began_at:
            self._take(self._turns.pop(0))
        changes: dict[str, Any] = {}
        for index in self._playing:
            changes |= self.scenario.steps[index].config
        self._configure(changes)

    def leave(self) -> None:
        """Undo all changes."""
        for index in self._playing:
            self._faults.remove(_owner(index))
        self._playing.clear()
        self._turns.clear()
        self._configure({})

    def state(self, now: float) -> PlayState:
        """Return the current state."""
        labels = [self.scenario.label(index) for index in range(len(self.scenario.steps))]
        return PlayState(
            name=self.scenario.name,
            elapsed_s=None if self._began_at is None else round(now - self._began_at, 3),
            playing=tuple(labels[index] for index in self._playing),
            to_come=tuple(labels[turn.step] for turn in self._turns if turn.begins),
            over=not self._turns,
        )

    def _take(self, turn: _Turn) -> None:
        step, label = self.scenario.steps[turn.step], self.scenario.label(turn.step)
        if not turn.begins:
            self._playing.remove(turn.step)
            self._faults.remove(_owner(turn.step))
            self.report(f"{turn.at_s:g} s: {label}: over")
            return
        if step.lasts:
            self._playing.append(turn.step)
        self._faults.add(*step.faults, owner=_owner(turn.step))
        if step.revoke_tokens:
            self._revoke_tokens()
        lasts = "" if step.for_s is None else f", for {step.for_s / self.scenario.speed:g} s"
        self.report(f"{turn.at_s:g} s: {label}{lasts}")


def _turns(scenario: Scenario) -> list[_Turn]:
    turns = []
    for index, step in enumerate(scenario.steps):
        turns.append(_Turn(step.at_s / scenario.speed, begins=True, step=index))
        if step.for_s is not None:
            turns.append(_Turn((step.at_s + step.for_s) / scenario.speed, begins=False, step=index))
    return turns


def _owner(index: int) -> str:
    return f"scenario step {index}"
