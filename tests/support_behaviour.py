"""Rows of the tables of contract section 5: the injected fault, the outcome of every contact, the permitted cost.

`support_behaviour_play.play` plays a row: the real worker on a real broker against the simulator over real HTTP. The
result is a line of docs/api-behaviour.md (`support_behaviour_table`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
from scoring_harness import Input, contacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from support_behaviour_play import Case

# Of `QUICK_SETTINGS`: after so many rounds in the retry topics a contact may be rejected.
ROUNDS: Final = 2
Amount: TypeAlias = "int | range"


def batch(number: int, *, partitions: int = 1, prefix: str = "C") -> tuple[Input, ...]:
    """Good contacts ``C-000000``, ``C-000001``, …, dealt to the partitions in turn."""
    return tuple(contacts(number, partitions, prefix))


def upto(amount: int) -> range:
    """An upper bound."""
    return range(amount + 1)


def fault(**words: Any) -> dict[str, Any]:
    """One fault with the arguments of `SimulatorControl.add_fault`: once, unless ``times`` is given.

    It does not apply to the model check at startup, whose request has no contact.
    """
    return words if words.get("path", "score") != "score" else {"min_contacts": 1, **words}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The permitted cost of a row, from the simulator's account: score requests that reached it, contacts in them,
    contacts scored (which are billed), and those of them that were billed before.
    """

    requests: Amount
    sent: Amount
    paid: Amount
    twice: Amount = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row.

    Attributes:
        id: of the test and of the line in docs/api-behaviour.md.
        injected: the fault in words, for docs/api-behaviour.md.
        cost: the permitted cost.
        feed: records of the features topic before the worker starts; every key once.
        faults: the simulator's script.
        api: changes of the simulator's configuration.
        settings: changes of the worker's settings.
        topics: broker settings of the topics.
        partitions: of every topic.
        prepare: called before the worker starts.
        act: called while it runs; it may feed more.
        holds: part of the line of /readyz that is waited for; empty: the circuit breaker must never open, unless it
            ``may_hold``, which is not waited for.
        recover: closes the breaker; by default it ends the faults.
        stops: part of the one line with which the process has to exit with code 1; empty: it must not exit.
        committed: expected number of outputs; None: one for every record that was fed.
        rejected: key -> all reasons in order; keys in neither map have to be scored.
        review: key -> review reasons.
        status: the HTTP status in the headers of the rejected records; a mapping: by key.
        deferred: key -> rounds in the header of the output; None: all rounds for those that the API fails for, by
            ``status``, and no header for the others.
        waits: key -> rounds, of the contacts pending in the retry topics at the end.
        at_least_s: time between the first and the last request with contacts.
        check: additional assertions.
        gap: the known reason why the worker fails this row; empty: it passes.
        is_slow: played by `make chaos` and `make api-table`, not by `make test`.
    """

    id: str
    injected: str
    cost: Cost
    feed: Sequence[Input] = field(default_factory=lambda: batch(20))
    faults: Sequence[dict[str, Any]] = ()
    api: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    topics: Mapping[str, Any] = field(default_factory=dict)
    partitions: int = 1
    prepare: Callable[[Case], None] = lambda _: None
    act: Callable[[Case], None] = lambda _: None
    holds: str = ""
    may_hold: bool = False
    recover: Callable[[Case], None] = lambda case: case.simulator.clear_faults()
    stops: str = ""
    committed: int | None = None
    rejected: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    review: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    status: str | Mapping[str, str] | None = None
    deferred: Mapping[str, int] | None = None
    waits: Mapping[str, int] = field(default_factory=dict)
    at_least_s: float = 0.0
    check: Callable[[Case], None] = lambda _: None
    gap: str = ""
    is_slow: bool = False

    @property
    def tutorial_model(self) -> bool:
        """Return whether the worker has the tutorial's features."""
        return "model__features" not in self.settings

    @property
    def rounds(self) -> Mapping[str, int]:
        """Key -> rounds in the header of the output; a key that is not here has no such header."""
        if self.deferred is not None:
            return self.deferred
        return dict.fromkeys(self.rejected if self.status else (), ROUNDS)

    @property
    def widest(self) -> float:
        """The widest interval that is not reviewed."""
        return float(self.settings.get("verification__max_interval_width", 1))


def cases(rows: Iterable[Row]) -> list[Any]:
    """The rows as parameters of a test; one with a gap has to fail."""
    return [pytest.param(row, id=row.id, marks=_marks(row)) for row in rows]


def _marks(row: Row) -> list[pytest.MarkDecorator]:
    fails = [pytest.mark.xfail(strict=True, reason=row.gap)] if row.gap else []
    return fails + ([pytest.mark.slow] if row.is_slow else [])
