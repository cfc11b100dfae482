"""Plays a scenario: what is due begins and ends. It waits for nothing; whoever has a clock asks it to catch up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.local.simulator.fault_script import FaultBook
    from stream_scorer.local.simulator.scenario import Scenario


class _Turn(NamedTuple):
    """A step begins or ends. Sorted by time, and at the same time what ends goes first."""

    at_s: float
    begins: bool
    step: int


@dataclass(frozen=True, slots=True)
class PlayState:
    """How far a scenario is, as ``GET /_simulator/scenario`` gives it.

    Attributes:
        name: of the scenario.
        elapsed_s: seconds since the first request; None before it.
        playing: the steps that last now, in their order.
        to_come: the steps that have not begun.
        over: whether nothing will change any more.
    """

    name: str
    elapsed_s: float | None
    playing: tuple[str, ...]
    to_come: tuple[str, ...]
    over: bool

    @classmethod
    def of(cls, content: dict[str, Any]) -> PlayState:
        """The state that decoded JSON tells of."""
        steps = {name: tuple(content[name]) for name in ("playing", "to_come")}
        return cls(**{**content, **steps})


class ScenarioPlayer:
    """One performance. Times are monotonic seconds and come from outside.

    Args:
        scenario: what is played.
        faults: where the faults of its steps go in and out.
        revoke_tokens: makes every token worthless.
        configure: called with all changes of the configuration that hold from now on.
        tell: called with a line whenever a step begins or ends.
    """

    def __init__(
        self,
        scenario: Scenario,
        faults: FaultBook,
        *,
        revoke_tokens: Callable[[], object],
        configure: Callable[[Mapping[str, Any]], object],
        tell: Callable[[str], object] = lambda _line: None,
    ) -> None:
        self.scenario = scenario
        self.tell = tell
        self._faults = faults
        self._revoke_tokens = revoke_tokens
        self._configure = configure
        self._turns = sorted(_turns(scenario))
        self._began_at: float | None = None
        self._playing: list[int] = []

    def begin(self, now: float) -> None:
        """The first request has arrived; only the first call counts."""
        if self._began_at is None:
            self._began_at = now

    def catch_up(self, now: float) -> None:
        """Does whatever has become due."""
        if self._began_at is None or not self._turns or self._turns[0].at_s > now - self._began_at:
            return
        while self._turns and self._turns[0].at_s <= now - self._began_at:
            self._take(self._turns.pop(0))
        changes: dict[str, Any] = {}
        for index in self._playing:
            changes |= self.scenario.steps[index].config
        self._configure(changes)

    def leave(self) -> None:
        """Takes back whatever it did."""
        for index in self._playing:
            self._faults.remove(_owner(index))
        self._playing.clear()
        self._turns.clear()
        self._configure({})

    def state(self, now: float) -> PlayState:
        """How far it is."""
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
            self.tell(f"{turn.at_s:g} s: {label}: over")
            return
        if step.lasts:
            self._playing.append(turn.step)
        self._faults.add(*step.faults, owner=_owner(turn.step))
        if step.revoke_tokens:
            self._revoke_tokens()
        lasts = "" if step.for_s is None else f", for {step.for_s / self.scenario.speed:g} s"
        self.tell(f"{turn.at_s:g} s: {label}{lasts}")


def _turns(scenario: Scenario) -> list[_Turn]:
    turns = []
    for index, step in enumerate(scenario.steps):
        turns.append(_Turn(step.at_s / scenario.speed, begins=True, step=index))
        if step.for_s is not None:
            turns.append(_Turn((step.at_s + step.for_s) / scenario.speed, begins=False, step=index))
    return turns


def _owner(index: int) -> str:
    return f"scenario step {index}"
