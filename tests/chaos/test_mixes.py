"""Everything at once, on three real brokers: faults alone, then random mixes of them, judged by all the rules.

``CHAOS_SEED`` replays one mix (``CHAOS_MINUTES``: how long), ``CHAOS_ONLY`` takes only faults with this in their name.
"""

# ruff: noqa: T201 - seeds and counts are printed

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from judge import verdict
from mixing import Mixer, note
from world import Machines, World, machines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(3600)]

SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEED", "1 2 3 4 5").split()]
MINUTES = float(os.environ.get("CHAOS_MINUTES", "6"))
ONLY = os.environ.get("CHAOS_ONLY", "")
TIMES = int(os.environ.get("CHAOS_TIMES", "3"))


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with machines(tmp_path_factory.mktemp("chaos")) as made:
        print(f"\nlines: {made.lines}; full disk: {made.small_disk is not None}; wrong clock: {bool(made.wrong_clock)}")
        yield made


@contextmanager
def judged(stand: Machines, folder: Path, seed: int, what: str) -> Iterator[Mixer]:
    """A world that has begun, and a mixer for it; at the end everything is judged."""
    print(f"\n{what}, CHAOS_SEED={seed}")
    world = World(stand, folder, seed)
    try:
        world.begin()
        yield Mixer(world, seed, ONLY)
        books = world.end()
    finally:
        world.kill_all()
        world.feeder.__exit__()
        stand.heal()
    found = verdict(books)
    paid = world.paid_again()
    print(f"{world.feeder.produced} contacts, {len(books.recoveries)} faults, {paid} paid again ({world.risk} allowed)")
    note(run=what, seed=seed, contacts=world.feeder.produced, paid_again=paid, violations=found.splitlines()[:1])
    assert found == "", f"CHAOS_SEED={seed}\n{found}"


def test_every_fault_alone(stand: Machines, tmp_path: Path) -> None:
    with judged(stand, tmp_path, SEEDS[0], "alone") as mixer:
        mixer.alone(TIMES)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_mixes(stand: Machines, tmp_path: Path, seed: int) -> None:
    with judged(stand, tmp_path, seed, f"mixed for {MINUTES:g} minutes") as mixer:
        mixer.mixed(60 * MINUTES)
