"""A cluster that is verified at its end."""

# ruff: noqa: T201 - seeds and counts are printed

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cluster import ChaosCluster
from random_faults import RandomFaults, note
from verifier import verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from environment import ChaosEnvironment

ONLY = os.environ.get("CHAOS_ONLY", "")


@contextmanager
def judged(stand: ChaosEnvironment, folder: Path, seed: int, what: str) -> Iterator[RandomFaults]:
    """Yield a running cluster and its runner of faults; verify everything at the end."""
    print(f"\n{what}, CHAOS_SEED={seed}")
    world = ChaosCluster(stand, folder, seed)
    try:
        world.begin()
        yield RandomFaults(world, seed, ONLY)
        state = world.end()
    finally:
        world.kill_all()
        world.feeder.__exit__()
        stand.heal()
    found = verdict(state)
    paid = world.paid_again()
    print(f"{world.feeder.produced} contacts, {len(state.recoveries)} faults, {paid} paid again ({world.risk} allowed)")
    note(run=what, seed=seed, contacts=world.feeder.produced, paid_again=paid, violations=found.splitlines()[:1])
    assert found == "", f"CHAOS_SEED={seed}\n{found}"
