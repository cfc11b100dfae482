"""Every scenario of `scenarios.py`, with the code as it is: nothing lost, doubled, out of order or paid too often."""

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
    books = SCENARIOS[name](scene)
    assert verdict(books) == ""
    print(f"\n{name}: {[f'{one.fault}: {one.seconds:.1f} s' for one in books.recoveries]}")  # noqa: T201
