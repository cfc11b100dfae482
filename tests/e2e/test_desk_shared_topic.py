"""A desk on one topic for scores, reviews and rejections: only what is in review or rejected is decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from desk_harness import DeskHarness
from scoring_harness import FEATURES, ScoringHarness, event
from test_review_desk import put_in_review, score

if TYPE_CHECKING:
    from kafka_fixture import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def desk(broker: Broker) -> DeskHarness:
    stage = ScoringHarness(broker.bootstrap_servers)
    stage.topics["review"] = stage.topics["rejected"] = stage.topics["scores"]
    desk = DeskHarness(stage)
    put_in_review(desk, [score("R-1"), score("S-1", review_reasons=[]), score("S-2", review_reasons=[])])
    desk.reject([("C-1", FEATURES.encode(event("C-1"))), ("C-2", b"")], reason="expired")
    return desk


def test_only_scores_in_review_are_accepted(desk: DeskHarness) -> None:
    done = desk.row("review", "accept", "--note", "checked", "--yes")
    assert (done["decided"], done["skipped"]) == (1, {})
    again = desk.row("review", "accept", "--note", "checked", "--yes")
    assert (again["decided"], again["skipped"]) == (0, {"decided before": 1})
    accepted = [row for row in desk.rows(desk.stage.topics["scores"]) if "stream-scorer-decision" in row.headers]
    assert [row.key for row in accepted] == [b"R-1"]
    row = desk.row("review", "list")
    assert (row["reason"], row["records"], row["accepted"]) == ("wide_interval", 1, 1)


def test_only_rejections_are_replayed(desk: DeskHarness) -> None:
    done = desk.row("rejected", "replay", "--yes")
    assert (done["decided"], done["skipped"]) == (2, {})
    assert {row.key for row in desk.rows(desk.stage.topics["features"])} == {b"C-1", b"C-2"}
    row = desk.row("rejected", "list")
    assert (row["reason"], row["records"], row["replayed"]) == ("expired", 2, 2)
