"""Faults on three real brokers, alone and in random mixes, checked by all rules of the verifier.

``CHAOS_SEED`` replays one mix (``CHAOS_MINUTES``: how long), ``CHAOS_ONLY`` takes only faults with this in their name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from steady_state import judged

if TYPE_CHECKING:
    from pathlib import Path

    from environment import ChaosEnvironment

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(3600)]

SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEED", "1 2 3 4 5").split()]
MINUTES = float(os.environ.get("CHAOS_MINUTES", "6"))
TIMES = int(os.environ.get("CHAOS_TIMES", "1"))


def test_every_fault_alone(stand: ChaosEnvironment, tmp_path: Path) -> None:
    with judged(stand, tmp_path, SEEDS[0], "alone") as mixer:
        mixer.alone(TIMES)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_mixes(stand: ChaosEnvironment, tmp_path: Path, seed: int) -> None:
    with judged(stand, tmp_path, seed, f"mixed for {MINUTES:g} minutes") as mixer:
        mixer.mixed(60 * MINUTES)
