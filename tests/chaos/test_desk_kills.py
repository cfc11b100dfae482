"""Kills of workers and jobs of the desk while rejected contacts are replayed."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from desk_harness import DeskHarness
from expected_state import read_state
from scoring_harness import PATIENCE_S, contact, wait_until
from verifier import verdict

if TYPE_CHECKING:
    from worker_harness import WorkerHarness

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(280)]

WRONG = {"previous_calls": "many", "avg_handle_time": 1.0, "last_contact_days": 1, "segment_id": "retired"}
# Contacts in flight of a killed worker are billed once more.
IN_FLIGHT = {"scoring__max_uncommitted": "200", "scoring__max_contacts": "50"}


@pytest.mark.slow
def test_kills_of_workers_and_jobs(stage: WorkerHarness) -> None:
    replay_under_kills(stage, rejected=300, good=200, kills=2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_kills_of_workers_and_jobs(stage: WorkerHarness) -> None:
    replay_under_kills(stage, rejected=5_000, good=2_000, kills=20)


def replay_under_kills(stage: WorkerHarness, *, rejected: int, good: int, kills: int) -> None:
    """Replay all rejected contacts while good ones are scored, and kill worker and job in turn."""
    desk = DeskHarness(stage)
    stage.produce(contact(f"W-{n}", features=WRONG) for n in range(rejected))
    worker = stage.start_ready(name="one", **IN_FLIGHT)
    stage.wait_done(needs=worker)
    stage.produce(contact(f"G-{n}") for n in range(good))
    replay = ("rejected", "replay", "--set", "previous_calls=3", "--job", "monday", "--yes", "--rate", "100")
    progress = stage.watch()
    for _ in range(kills):
        job = desk.start(*replay)
        before = progress.done()
        wait_until(lambda before=before: progress.done() > before, "the worker to go on")
        worker.kill()
        worker = stage.start(name="one", **IN_FLIGHT)
        size = sum(stage.ends().values())
        wait_until(lambda size=size, job=job: sum(stage.ends().values()) > size or job.poll() is not None, "a replay")
        job.kill()
        _, errors = job.communicate(timeout=PATIENCE_S)
        assert job.returncode in (-signal.SIGKILL, 0), errors
    progress.close()
    done = desk.row(*replay, "--rate", "100000")
    assert done["decided"] + done["skipped"].get("decided before", 0) == rejected
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    state = read_state(stage, decisions=desk.topic)
    state.good = {f"G-{n}".encode() for n in range(good)}
    assert verdict(state) == ""
    scored = [row.key for kind in ("scores", "review") for row in state.rows[kind]]
    assert len(scored) == len(set(scored)) == rejected + good
    report = desk.call("reconcile", "--json")
    assert report.returncode == 0, json.loads(report.stdout)["findings"]
