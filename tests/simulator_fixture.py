"""Simulators for tests: one process for a whole run, as good as new for every test, or one made to measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.local.simulator import Simulator, SimulatorConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def _shared_simulator() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(_shared_simulator: Simulator) -> Simulator:
    """A simulator with the default configuration; change it with `configure`. It may be stopped and started."""
    _shared_simulator.start()
    _shared_simulator.reset()
    return _shared_simulator


@pytest.fixture
def make_simulator() -> Iterator[Callable[..., Simulator]]:
    """Start a simulator of one's own with these fields of `SimulatorConfig`; it ends with the test."""
    started: list[Simulator] = []

    def make(**fields: Any) -> Simulator:
        started.append(Simulator(SimulatorConfig(**fields)))
        return started[-1].start()

    yield make
    for simulator in started:
        simulator.stop()
