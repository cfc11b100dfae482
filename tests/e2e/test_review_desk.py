"""Scores in review on a real broker: accepted and discarded, each exactly once, and called once."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from desk_harness import DeskHarness
from scoring_harness import PATIENCE_S, SCORE, ScoringHarness

from stream_scorer.core.desk.selection import OffsetBounds, Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from callbacks_harness import CallbacksHarness
    from kafka_fixture import Broker

    from stream_scorer.local.receiver import Receiver

pytestmark = pytest.mark.kafka

DAY_MS = 86_400_000


def score(contact_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"event-{contact_id}",
        "contact_id": contact_id,
        "campaign_id": "spring",
        "model_id": "m",
        "model_version": None,
        "score": 0.9,
        "confidence_lower": 0.1,
        "confidence_upper": 0.95,
        "latency_ms": 1.0,
        "occurred_at": 1_700_000_000_000,
        "scored_at": time.time_ns() // 1_000_000 - 3 * DAY_MS,
        "imputed_features": [],
        "batch_id": "b",
        "review_reasons": ["wide_interval"],
        "attributes": {"phone": "+49"},
        **changes,
    }


def put_in_review(desk: DeskHarness, scores: Iterable[dict[str, Any]]) -> None:
    producer = Producer({"bootstrap.servers": desk.stage.bootstrap_servers, "linger.ms": 5})
    for number, one in enumerate(scores):
        headers: Any = [
            ("stream-scorer-source", f"{desk.stage.topics['features']}/0/{number}".encode()),
            ("stream-scorer-batch", b"b"),
            ("own", b"kept"),
        ]
        producer.produce(desk.stage.topics["review"], SCORE.encode(one), one["contact_id"].encode(), headers=headers)
    assert producer.flush(PATIENCE_S) == 0


@pytest.fixture
def desk(broker: Broker) -> DeskHarness:
    return DeskHarness(ScoringHarness(broker.bootstrap_servers))


def test_an_accepted_score_is_published_once_as_it_is(desk: DeskHarness) -> None:
    put_in_review(
        desk, [score("C-1"), score("C-2"), score("C-3", score=1.5), score("C-4", confidence_lower=float("nan"))]
    )
    done = desk.row("review", "accept", "--note", "checked", "--operator", "ada", "--yes")
    unfit = "cannot be accepted: its score is not finite, or not from 0 to 1"
    assert (done["decided"], done["skipped"]) == (2, {unfit: 2})
    accepted = {row.key: row for row in desk.rows(desk.stage.topics["scores"])}
    assert set(accepted) == {b"C-1", b"C-2"}
    reviewed = {row.key: row for row in desk.rows(desk.stage.topics["review"])}
    decisions = {one["place"]: one for one in desk.decisions()}
    for key, row in accepted.items():
        assert SCORE.decode(row.value) == {**SCORE.decode(reviewed[key].value), "review_reasons": []}
        decision = decisions[reviewed[key].place]
        assert (decision["action"], decision["note"], decision["operator"]) == ("ACCEPTED", "checked", "ada")
        assert decision["result_place"] == row.place
        assert row.headers == {
            **reviewed[key].headers,
            "stream-scorer-decision": decision["decision_id"].encode(),
            "stream-scorer-decided-at": str(decision["decided_at"]).encode(),
        }
    again = desk.row("review", "accept", "--note", "checked", "--yes")
    assert (again["decided"], again["skipped"]) == (0, {"decided before": 2, unfit: 2})
    closed = desk.row("review", "discard", "C-3", "C-1", "--note", "defect", "--yes")
    assert (closed["decided"], closed["skipped"]) == (1, {"decided before": 1})
    assert len(desk.rows(desk.stage.topics["scores"])) == 2
    row = desk.row("review", "list")
    assert (row["reason"], row["records"], row["open"], row["accepted"], row["discarded"]) == (
        "wide_interval",
        4,
        1,
        2,
        1,
    )


def test_a_job_that_needs_a_reason_is_resumed_by_its_name_with_that_of_its_beginning(desk: DeskHarness) -> None:
    put_in_review(desk, [score("C-1"), score("C-2")])
    topic = desk.stage.topics["review"]
    bounds = {number: OffsetBounds(0, end) for number, end in desk.stage.ends("review").items()}
    begun = {
        "decision_id": "d",
        "place": f"{topic}/job/monday",
        "topic_id": None,
        "action": "JOB",
        "job": "monday",
        "operator": "ada",
        "note": "checked by hand",
        "decided_at": 1,
        "result_place": None,
        "changes": Selection("ACCEPTED", {"reasons": ["wide_interval"]}, bounds).as_changes(),
    }
    desk.decide([begun])
    assert desk.row("review", "accept", "--job", "monday", "--yes")["decided"] == 2
    assert {one["note"] for one in desk.decisions()} == {"checked by hand"}


def test_the_explanation_names_limit_state_and_command(desk: DeskHarness) -> None:
    put_in_review(
        desk, [score("C-1"), score("C-2", score=-0.5, review_reasons=["score_out_of_range", "wide_interval"])]
    )
    good = desk.row("review", "explain", "C-1", "-o", "jsonl", verification__max_interval_width="0.8")
    assert good["review_reasons"] == {"wide_interval": "the interval is wider than 0.8"}
    assert (good["state"], good["acceptable"], good["score"]) == ("open", True, 0.9)
    assert good["command"] == f"stream-scorer review accept --place {good['place']} --note …"
    bad = desk.row("review", "explain", "--reason", "score_out_of_range", "-o", "jsonl")
    assert (bad["contact_id"], bad["acceptable"]) == ("C-2", False)
    assert bad["remedy"] == "can only be discarded: score is not from 0 to 1"
    text = desk.call("review", "explain", "C-2")
    assert text.returncode == 0
    assert "can only be discarded" in text.stdout
    assert re.search(r"model version +none\n", text.stdout)
    assert re.search(r"acceptable +no\n", text.stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("accept", "absent", "--note", "x", "--yes"), "no record of"),
        (("accept", "C-1", "--yes"), "--note is missing: give the reason"),
        (("accept", "C-1", "--note", " ", "--yes"), "--note is missing"),
        (("accept", "C-1", "--job", "new", "--yes"), "--note is missing"),
        (("accept", "C-1", "--note", "x"), "nothing was changed"),
        (("accept", "--reason", "odd", "--note", "x", "--yes"), "--reason 'odd': use narrow_interval"),
        (("accept", "--where", "features['a'] > 1", "--note", "x", "--yes"), "--where: there is no 'features'"),
        (("explain",), "name a contact"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(desk: DeskHarness, arguments: tuple[str, ...], words: str) -> None:
    put_in_review(desk, [score("C-1")])
    done = desk.call("review", *arguments)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert words in line
    assert desk.rows(desk.topic) == []
    assert desk.rows(desk.stage.topics["scores"]) == []


def test_an_accepted_score_of_three_days_ago_is_called_once(
    desk: DeskHarness, make_campaign: Callable[..., CallbacksHarness], receiver: Receiver
) -> None:
    campaign = make_campaign(receiver.environment())
    put_in_review(desk, [score("C-1"), score("C-2", score=0.2)])
    worker = campaign.start(callbacks__max_age_s="3600")
    scores = campaign.topics["scores"]
    arguments = ("review", "accept", "--since", "0", "--note", "checked", "--yes", "--job", "monday")
    assert desk.row(*arguments, topics__scores=scores)["decided"] == 2
    assert desk.row(*arguments, topics__scores=scores)["decided"] == 0
    campaign.wait_receipts(1, needs=worker)
    assert worker.stop() == 0
    assert [receipt["outcome"] for receipt in campaign.receipts()] == ["DELIVERED"]
    assert receiver.contacts() == {"C-1": 1}
