"""The full kill storm of `chaos`: 30 kills, 100,000 contacts."""

# ruff: noqa: T201 - measured figures are printed

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chaos import Storm

if TYPE_CHECKING:
    from worker_harness import WorkerHarness

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]


def test_thirty_kills(stage: WorkerHarness) -> None:
    report = Storm(stage, number=100_000, kills=30, seed=1).run()
    print(f"\n{report}")
    assert report.paid_twice <= report.bound
