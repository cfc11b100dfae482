from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from environment import ChaosEnvironment, machines
from proxied_kafka import ProxiedKafka
from scenes import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_scorer.local.simulator import Simulator


@pytest.fixture(scope="module")
def proxied_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedKafka]:
    """One Kafka behind a proxy for the scenarios of a module, which have topics of their own."""
    with ProxiedKafka(tmp_path_factory.mktemp("proxied")) as kafka:
        yield kafka


@pytest.fixture
def scene(proxied_kafka: ProxiedKafka, simulator: Simulator, tmp_path: Path) -> Scenario:
    return Scenario(proxied_kafka, simulator, tmp_path)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosEnvironment]:
    """Three brokers, an API, a receiver, and the links to them, for the runs of a module."""
    with machines(tmp_path_factory.mktemp("chaos")) as made:
        full, clock = made.small_disk is not None, made.wrong_clock is not None
        print(f"\nlines: {made.lines}; a disk can be full: {full}; a clock can be wrong: {clock}")  # noqa: T201
        yield made
