"""Every scenario of `scenarios.py` with the present code: nothing lost, duplicated, reordered or billed too often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scenarios import SCENARIOS
from verifier import verdict

if TYPE_CHECKING:
    from scenes import Scenario

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(280)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_contract_holds(scene: Scenario, name: str) -> None:
    state = SCENARIOS[name](scene)
    assert verdict(state) == ""
    print(f"\n{name}: {[f'{one.fault}: {one.seconds:.1f} s' for one in state.recoveries]}")  # noqa: T201
