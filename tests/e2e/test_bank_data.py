"""20,000 real contacts through ``stream-scorer produce`` and ``stream-scorer run``."""

# ruff: noqa: T201 - measured figures are printed

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from output_verifier import verify_outputs
from worker_harness import ROOT

if TYPE_CHECKING:
    from worker_harness import WorkerHarness

BANK = Path(__file__).parents[3] / "shared" / "data" / "bank-marketing-contacts.csv"

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(
        not BANK.exists(), reason="the bank-marketing contacts are not beside the project (../shared/data)"
    ),
]


def test_all_are_scored_and_what_was_imputed_is_named(stage: WorkerHarness) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STREAM_SCORER_", "GENESYS_"))}
    worker = stage.start_ready()
    loaded = subprocess.run(
        [sys.executable, "-m", "stream_scorer", "produce", str(BANK)],
        env={**kept, **stage.settings(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    verdict = verify_outputs(stage)  # exactly once, in order, audited
    assert len(verdict.outputs) == 20_000
    assert verdict.count("rejected") == 0
    with BANK.open(encoding="utf-8", newline="") as file:
        gaps = {row["contact_id"]: {name for name, cell in row.items() if cell == ""} for row in csv.DictReader(file)}
    scores = [output.score for output in verdict.outputs.values() if output.score is not None]
    assert {score["contact_id"]: set(score["imputed_features"]) for score in scores} == gaps
    without_last_contact = sum("last_contact_days" in names for names in gaps.values())
    assert without_last_contact > 19_000
    assert verdict.paid_twice(stage.simulator.scored()) == 0
    print(
        f"\n20,000 inputs = {verdict.count('scores')} scores + {verdict.count('review')} review + 0 rejected; "
        f"{without_last_contact} with an imputed last_contact_days; {verdict.events} audit events"
    )
