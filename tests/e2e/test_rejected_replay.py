"""Rejected contacts on a real broker: repaired, replayed and discarded, each exactly once."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest
from desk_harness import DeskHarness, each_once
from scoring_harness import FEATURES, PATIENCE_S, SCORE, contact, event, wait_until

if TYPE_CHECKING:
    from worker_harness import WorkerHarness

pytestmark = pytest.mark.kafka

WRONG = {"previous_calls": "many", "avg_handle_time": 1.0, "last_contact_days": 1, "segment_id": "retired"}


def test_a_repaired_contact_ends_as_one_score(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    stage.produce([contact("C-1", features=WRONG, headers=[("own", b"kept")]), contact("C-2")])
    worker = stage.start_ready()
    stage.wait_done(needs=worker)

    report = desk.row("rejected", "replay", "C-1", "--set", "previous_calls=7", "--yes", "--operator", "ada")
    assert (report["decided"], report["skipped"]) == (1, {})
    stage.wait_done(needs=worker)
    worker.stop()

    [rejected] = desk.rows(stage.topics["rejected"])
    [replayed] = [row for row in desk.rows(stage.topics["features"]) if "stream-scorer-replays" in row.headers]
    assert replayed.key == b"C-1"
    assert replayed.headers == {
        "own": b"kept",
        "stream-scorer-replays": b"1",
        "stream-scorer-replay-of": rejected.place.encode(),
    }
    assert FEATURES.decode(replayed.value) == event("C-1", features={**WRONG, "previous_calls": 7})
    [decision] = desk.decisions()
    assert decision["action"] == "REPLAYED"
    assert decision["place"] == rejected.place
    assert decision["result_place"] == replayed.place
    assert decision["operator"] == "ada"
    assert decision["changes"] == {"previous_calls": "7"}

    scores = desk.rows(stage.topics["scores"]) + desk.rows(stage.topics["review"])
    [score] = [row for row in scores if row.headers["stream-scorer-source"] == replayed.place.encode()]
    assert SCORE.decode(score.value)["contact_id"] == "C-1"
    assert score.headers["stream-scorer-replay-of"] == rejected.place.encode()

    again = desk.row("rejected", "replay", "C-1", "--set", "previous_calls=7", "--yes")
    assert (again["decided"], again["skipped"]) == (0, {"decided before": 1})
    each_once([row for row in desk.rows(stage.topics["features"]) if "stream-scorer-replays" in row.headers], "own")


def bad_contacts(number: int) -> list[tuple[str, bytes | None]]:
    return [(f"C-{n}", FEATURES.encode(event(f"C-{n}", features=WRONG))) for n in range(number)]


def test_kills_and_two_jobs_at_once_replay_each_record_once(stage: WorkerHarness) -> None:
    """`make chaos` has 100,000 records and 50 kills."""
    desk = DeskHarness(stage)
    replay_with_kills(desk, records=2_000, kills=5, per_second=60)


def written(desk: DeskHarness) -> int:
    """How far the features topic has grown, transaction markers and aborted records included."""
    return sum(desk.stage.ends().values())


def has_written(desk: DeskHarness, wanted: int) -> bool:
    return written(desk) >= wanted


def replay_with_kills(desk: DeskHarness, records: int, kills: int, per_second: int) -> None:
    """Kill a job again and again, a second one beside it now and then, and let the last one finish."""
    topics = desk.stage.topics
    desk.reject(bad_contacts(records))
    arguments = ("rejected", "replay", "--reason", "wrong_type", "--job", "monday", "--yes", "--rate", str(per_second))
    for kill in range(kills):
        jobs = [desk.start(*arguments)]
        wait_until(partial(has_written, desk, written(desk) + 1), "a record to be replayed")
        if kill % 2:
            jobs.append(desk.start(*arguments))
        wait_until(partial(has_written, desk, written(desk) + 1 + 13 * kill), "further records to be replayed")
        for job in jobs:
            job.kill()
        for job in jobs:
            _, errors = job.communicate(timeout=PATIENCE_S)
            # A job that met the other one in a partition has ended by itself.
            assert job.returncode == -signal.SIGKILL or "another job has taken over" in errors, errors
    left = desk.row(*arguments, "--rate", "100000")  # the last one of an option counts
    decisions = desk.decisions()
    replayed = desk.rows(topics["features"])
    assert len(decisions) == len(replayed) == records
    assert left["decided"] + left["skipped"].get("decided before", 0) == records
    each_once(replayed, "stream-scorer-replay-of")
    assert {row.headers["stream-scorer-replay-of"] for row in replayed} == {one["place"].encode() for one in decisions}
    assert {row.place for row in replayed} == {one["result_place"] for one in decisions}
    again = desk.row(*arguments)
    assert (again["decided"], again["skipped"]) == (0, {"decided before": records})
    assert len(desk.rows(topics["features"])) == records
