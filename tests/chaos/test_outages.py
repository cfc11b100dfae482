"""Outages of minutes: afterwards every worker recovers within 30 s without intervention."""

# ruff: noqa: T201 - measured figures are printed

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from faults import ALL, Fault
from steady_state import judged

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from cluster import ChaosCluster
    from environment import ChaosEnvironment
    from random_faults import RandomFaults

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(3600)]

BROKERS_AWAY_S = float(os.environ.get("CHAOS_BROKERS_AWAY_S", "120"))
API_AWAY_S = float(os.environ.get("CHAOS_API_AWAY_S", "600"))


def _kill_all_nodes(world: ChaosCluster, _: Random) -> partial[None]:
    for node_id in world.machines.cluster.node_ids:
        world.machines.cluster.node(node_id).kill()
    return partial(_start, world)


def _start(world: ChaosCluster) -> None:
    world.machines.cluster.start()


def _cut_api(world: ChaosCluster, _: Random) -> partial[None]:
    world.machines.api.cut()
    return partial(_heal, world)


def _heal(world: ChaosCluster) -> None:
    world.machines.api.heal()


def play(mixer: RandomFaults, fault: Fault) -> None:
    began = time.monotonic()
    mixer.play_alone(fault)
    print(f"{fault.name}: all in all {time.monotonic() - began:.0f} s")


def test_all_brokers_gone_for_two_minutes(stand: ChaosEnvironment, tmp_path: Path) -> None:
    fault = Fault(f"all brokers gone for {BROKERS_AWAY_S:g} s", _kill_all_nodes, (BROKERS_AWAY_S,) * 2, ALL)
    with judged(stand, tmp_path, 1, "all brokers gone") as mixer:
        play(mixer, fault)


def test_the_api_gone_for_ten_minutes(stand: ChaosEnvironment, tmp_path: Path) -> None:
    fault = Fault(f"API gone for {API_AWAY_S:g} s", _cut_api, (API_AWAY_S,) * 2, ALL)
    with judged(stand, tmp_path, 1, "API gone") as mixer:
        play(mixer, fault)
