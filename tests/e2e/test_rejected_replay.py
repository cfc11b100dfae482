"""Rejected contacts on a real broker: repaired, replayed and discarded, each exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from desk_harness import DeskHarness, each_once
from scoring_harness import FEATURES, SCORE, contact, event

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
