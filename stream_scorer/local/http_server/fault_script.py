"""Active script of faults of a local server: selects the one that is due for a request, and counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Generic

from stream_scorer.local.http_server.models import FaultT

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class _Entry(Generic[FaultT]):
    fault: FaultT
    owner: str | None
    draw: Random
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self.fired >= self.fault.times


class FaultScript(Generic[FaultT]):
    """Active faults with their counters.

    Args:
        seed_of: returns the seed of a fault's random numbers.
    """

    def __init__(self, seed_of: Callable[[FaultT], int] = lambda _: 0) -> None:
        self._entries: list[_Entry[FaultT]] = []
        self._seed_of = seed_of

    def add(self, *faults: FaultT, owner: str | None = None) -> None:
        """Append faults to the script; `remove` removes those of an owner."""
        for fault in faults:
            draw = Random(self._seed_of(fault))  # noqa: S311 - the same selection in every run  # nosec B311
            self._entries.append(_Entry(fault, owner, draw))

    def remove(self, owner: str) -> None:
        """Remove the faults of this owner."""
        self._entries = [entry for entry in self._entries if entry.owner != owner]

    def clear(self) -> None:
        """Remove all faults."""
        self._entries.clear()

    def state(self) -> list[dict[str, Any]]:
        """Return every fault with ``seen`` (matching requests so far) and ``fired`` (affected requests so far)."""
        return [{**self._described(one.fault), "seen": one.seen, "fired": one.fired} for one in self._entries]

    def next_due(self, concerns: Callable[[FaultT, Random], bool]) -> FaultT | None:
        """Return the fault of this request; None: none is due.

        Args:
            concerns: returns whether a fault matches the request; the random numbers are the fault's own.
        """
        for entry in self._entries:
            if entry.spent or not concerns(entry.fault, entry.draw):
                continue
            entry.seen += 1
            if entry.seen > entry.fault.after:
                entry.fired += 1
                return entry.fault
        return None

    def _described(self, fault: FaultT) -> dict[str, Any]:
        return fault.model_dump(mode="json", exclude_defaults=True)
