"""20,000 real contacts from the file to the campaign manager, with ten kills."""

# ruff: noqa: T201 - measured figures are printed

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from callbacks_harness import SCORE, THRESHOLD
from worker_harness import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from callbacks_harness import CallbacksHarness
    from worker_harness import WorkerHarness

    from stream_scorer.local.receiver import Receiver

BANK = Path(__file__).parents[3] / "shared" / "data" / "bank-marketing-contacts.csv"
KILLS = 10
CONTACTS_A_LIFE = 150

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(
        not BANK.exists(), reason="the bank-marketing contacts are not beside the project (../shared/data)"
    ),
]


def run(command: str, *arguments: str, settings: dict[str, str]) -> str:
    """Run a command as an operator does; return its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STREAM_SCORER_", "GENESYS_"))}
    ended = subprocess.run(
        [sys.executable, "-m", "stream_scorer", command, *arguments],
        env={**kept, **settings, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_the_campaign_manager_gets_exactly_the_high_scores(
    make_stage: Callable[..., WorkerHarness],
    make_campaign: Callable[..., CallbacksHarness],
    make_receiver: Callable[..., Receiver],
) -> None:
    receiver = make_receiver(latency_ms=20)
    stage = make_stage(partitions=2)
    campaign = make_campaign(receiver.environment())
    campaign.topics["scores"] = stage.topics["scores"]
    campaign.group_id = stage.group_id
    scorer = stage.start_ready()
    run("produce", str(BANK), settings=stage.settings())
    small: dict[str, Any] = {"callbacks__max_contacts": "5", "scoring__max_in_flight": "4"}
    for life in range(KILLS):
        worker = campaign.start(name="campaign", **small)
        wanted = (life + 1) * CONTACTS_A_LIFE
        campaign.wait(lambda wanted=wanted: receiver.stats().contacts >= wanted, f"{wanted} contacts", needs=worker)
        worker.kill()
    worker = campaign.start(name="campaign", **small)
    stage.wait_done(needs=scorer)
    scores = [SCORE.decode(one.value) for one in campaign.read("scores")]
    high = {score["contact_id"] for score in scores if score["score"] >= THRESHOLD}
    campaign.wait_receipts(sum(score["score"] >= THRESHOLD for score in scores), needs=worker)
    assert (worker.stop(), scorer.stop()) == (0, 0)

    assert set(receiver.contacts()) == high
    stats = receiver.stats()
    assert (stats.changed, stats.unverified) == (0, 0), "a repeat is the same bytes under the same id"
    assert campaign.verify_receipts() == {"DELIVERED": sum(score["score"] >= THRESHOLD for score in scores)}
    topics = {f"STREAM_SCORER_TOPICS__{kind.upper()}": topic for kind, topic in campaign.topics.items()}
    report = json.loads(run("reconcile", "--json", settings={**stage.settings(), **topics}))
    assert report["holds"]
    assert report["callbacks"]["holds"]
    assert report["callbacks"]["totals"]["delivered"] == report["callbacks"]["totals"]["called"] >= len(high)
    print(f"\n{len(high)} contacts in {stats.callbacks} callbacks past {KILLS} kills; {stats.repeats} came again")
