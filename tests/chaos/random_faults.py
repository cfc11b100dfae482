"""Runner of faults, alone and in random mixes, that measures the time to recovery and records each fault.

Everything random is drawn from one seed, which is printed first: ``CHAOS_SEED=<seed> make chaos`` draws the same
faults, lengths and victims again.
"""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from expected_state import Recovery
from faults import known_faults

if TYPE_CHECKING:
    from cluster import ChaosCluster
    from faults import Fault

RESULTS: Final = Path(os.environ.get("CHAOS_RESULTS", Path(__file__).parents[2] / "build" / "chaos-results.jsonl"))
# Without intervention, after the last fault of a moment has ended; required by issue 7 after an outage.
RECOVERY_S: Final = 30.0
_TIMEOUT_S: Final = 180.0
_TWO_AT_ONCE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Moment:
    """One or two simultaneous faults with their durations in seconds."""

    faults: tuple[Fault, ...]
    seconds: tuple[float, ...]

    @property
    def name(self) -> str:
        """Return their names."""
        return " + ".join(fault.name for fault in self.faults)


class RandomFaults:
    """Runs moments on a cluster.

    Args:
        world: a cluster that has been started.
        seed: of the random choices.
        only: parts of fault names (``CHAOS_ONLY``); empty: all.
    """

    def __init__(self, world: ChaosCluster, seed: int, only: str = "") -> None:
        self._world = world
        self._seed = seed
        self._draw = random.Random(seed)  # noqa: S311 - every run draws the same
        self._faults = [fault for fault in known_faults(world) if only in fault.name]

    def alone(self, times: int) -> None:
        """Run each fault alone, so many times."""
        for fault in self._faults * times:
            self.play_alone(fault)

    def play_alone(self, fault: Fault) -> None:
        """Run one fault for a random duration."""
        self.play(self._moment(fault))

    def mixed(self, seconds: float) -> None:
        """Run random faults, sometimes two at once, for so many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.play(self._moment(*self._drawn()))

    def _drawn(self) -> list[Fault]:
        """One fault, or two with different victims: a second SIGTERM ends a worker at once by design."""
        number = 2 if self._draw.random() < _TWO_AT_ONCE else 1
        drawn = self._draw.sample(self._faults, number)
        while len({fault.victim for fault in drawn}) < number:
            drawn = self._draw.sample(self._faults, number)
        return drawn

    def play(self, moment: Moment) -> None:
        """Start the faults, end each in time, wait for a commit on every partition, and record the results."""
        world, before = self._world, self._world.paid_again()
        world.restart_ended()
        print(f"  {moment.name} {[round(s, 1) for s in moment.seconds]}", flush=True)  # noqa: T201
        began = time.monotonic()
        undone = [
            (began + lasts, fault.begin(world, self._draw))
            for fault, lasts in zip(moment.faults, moment.seconds, strict=True)
        ]
        for at, undo in sorted(undone, key=lambda pair: pair[0]):
            time.sleep(max(0.0, at - time.monotonic()))
            undo()
        ended = time.monotonic()
        world.risk += sum(fault.risk for fault in moment.faults)
        world.await_every_partition(_TIMEOUT_S)
        recovered_s = time.monotonic() - ended
        world.recoveries.append(Recovery(f"{moment.name} (seed {self._seed})", recovered_s, RECOVERY_S))
        note(
            faults=[fault.name for fault in moment.faults],
            seed=self._seed,
            lasted_s=round(ended - began, 1),
            recovered_s=round(recovered_s, 1),
            paid_again=world.paid_again() - before,
            allowed=sum(fault.risk for fault in moment.faults),
        )

    def _moment(self, *faults: Fault) -> Moment:
        return Moment(faults, tuple(self._draw.uniform(*fault.seconds) for fault in faults))


def note(**result: object) -> None:
    """Append a line to the results."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result, sort_keys=True) + "\n")
