"""Memory of a worker with records that are much larger in memory than on the wire."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from scoring_harness import contact

if TYPE_CHECKING:
    from worker_harness import WorkerHarness, WorkerProcess

pytestmark = pytest.mark.kafka

LIMIT_MIB = 300
NUMBER = 240


def resident_mib(worker: WorkerProcess) -> int:
    lines = Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:"))


SMALL = [(f"h{n}", b"v") for n in range(20_000)]
LARGE = [("x", random.Random(1).randbytes(900_000))]  # noqa: S311 - what can be compressed would be smaller on the wire


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(SMALL, id="thousands of small headers"),
        pytest.param(LARGE, id="one of 900 kB", marks=pytest.mark.slow),
    ],
)
def test_headers_count_as_memory(stage: WorkerHarness, headers: list[tuple[str, bytes]]) -> None:
    """Of small ones 180 kB on the wire are 5 MB in memory: 1,086 MiB; large ones (script 08) did not count: 711 MiB."""
    for begin in range(0, NUMBER, 40):
        stage.produce(contact(f"C-{n:06}", n % stage.partitions, headers) for n in range(begin, begin + 40))
    stage.simulator.add_fault(delay_ms=15_000, times=None)
    worker = stage.start_ready(genesys__timeout_s="60")
    ends_at, peak = time.monotonic() + 8, 0
    while time.monotonic() < ends_at:
        peak = max(peak, resident_mib(worker))
        time.sleep(0.05)
    assert worker.running, worker.log()
    assert peak < LIMIT_MIB, worker.log()
