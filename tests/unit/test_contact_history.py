from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
from desk_topics import START_MS, audit, callback, decision, entry, features, receipt, score

from stream_scorer.core.desk.decoded_record import DecodedRecord
from stream_scorer.core.desk.history import Happened, History
from stream_scorer.core.desk.record_filter import parse_filter
from stream_scorer.core.records import SourceRecord

if TYPE_CHECKING:
    from stream_scorer.core.desk.history import HistoryEvent

ANNA = parse_filter(now_ms=0, contacts=["anna"])
SCHEMAS = {
    "features": "ContactFeatures",
    "retry-1": "ContactFeatures",
    "rejected": "ContactFeatures",
    "scores": "ContactScore",
    "review": "ContactScore",
    "audit": "BatchAudit",
    "callbacks": "CampaignCallback",
    "callbacks-retry-1": "CampaignCallback",
    "callbacks-rejected": "CampaignCallback",
    "receipts": "CallbackReceipt",
    "decisions": "Decision",
}
Item = tuple[str, dict[str, Any] | None, dict[str, str], int]


def record(place: str, value: dict[str, Any] | None, headers: dict[str, str], time_ms: int) -> DecodedRecord:
    topic, partition, offset = place.split("/")
    given = [(f"stream-scorer-{name}", text.encode()) for name, text in headers.items()]
    source = SourceRecord(topic, int(partition), int(offset), b"anna", b"", given, timestamp_ms=time_ms)
    return DecodedRecord(source, SCHEMAS[topic] if value else None, value, "" if value else "the value is broken")


def history(items: list[Item] | tuple[Item, ...]) -> list[HistoryEvent]:
    collected = History(ANNA)
    for item in items:
        collected.add(record(*item), is_retry="retry" in item[0])
    return collected.ordered()


def kinds(items: list[Item] | tuple[Item, ...]) -> list[Happened]:
    return [event.kind for event in history(items)]


def by(source: str, **headers: str) -> dict[str, str]:
    return {"source": source, "batch": "batch-1", **{name.replace("_", "-"): text for name, text in headers.items()}}


INPUT: Item = ("features/0/17", features("anna"), {}, START_MS)
DEFERRED: Item = ("retry-1/0/3", features("anna"), {"source": "features/0/17", "deferred": "1"}, START_MS)
SCORED: Item = ("scores/0/5", score("anna"), by("features/0/17"), START_MS)
PLANNED: Item = ("callbacks/0/2", callback(["anna"], ["scores/0/5"]), {}, START_MS)
RETRIED: Item = ("callbacks-retry-1/0/2", callback(["anna"], ["scores/0/5"]), {"failed-rounds": "1"}, START_MS)
DELIVERED: Item = ("receipts/0/9", receipt(["anna"], ["scores/0/5"]), {}, START_MS)
PIPELINE = (INPUT, DEFERRED, SCORED, PLANNED, RETRIED, DELIVERED)
ORDER = [
    Happened.RECEIVED,
    Happened.DEFERRED,
    Happened.SCORED,
    Happened.CALLBACK_PLANNED,
    Happened.CALLBACK_DEFERRED,
    Happened.DELIVERED,
]


def test_events_of_one_time_are_in_the_order_of_the_pipeline() -> None:
    for items in permutations(PIPELINE):
        assert kinds(items) == ORDER


def test_an_event_never_stands_before_its_cause_whatever_the_clocks() -> None:
    times = [7000, 1, 6000, 2, 5000, 3]
    late = [
        (place, value, headers, time_ms) for (place, value, headers, _), time_ms in zip(PIPELINE, times, strict=True)
    ]
    assert kinds(late) == ORDER
    # A record without a timestamp stands behind its cause, too.
    assert kinds([(*SCORED[:3], -1), INPUT]) == [Happened.RECEIVED, Happened.SCORED]


def test_events_are_ordered_by_time() -> None:
    second: Item = ("features/0/18", features("anna"), {}, START_MS + 10)
    early: Item = ("features/1/99", features("anna"), {}, START_MS - 10)
    found = [event.place for event in history([second, SCORED, INPUT, early])]
    assert found == ["features/1/99", "features/0/17", "scores/0/5", "features/0/18"]


REJECTED: Item = (
    "rejected/0/4",
    features("anna"),
    by("features/0/17", error_reason="out_of_range", error_detail="age is 400", error_status="400"),
    START_MS + 100,
)
DECISION: Item = ("decisions/0/1", decision("rejected/0/4", result_place="features/0/80"), {}, START_MS + 50)
REPLAYED: Item = ("features/0/80", features("anna"), {"replays": "1", "replay-of": "rejected/0/4"}, START_MS + 50)
SCORED_AGAIN: Item = ("scores/0/6", score("anna"), by("features/0/80"), START_MS + 50)


def test_a_replay_stands_behind_its_rejection_and_its_decision() -> None:
    for items in permutations((INPUT, REJECTED, DECISION, REPLAYED, SCORED_AGAIN)):
        found = history(items)
        assert [event.place for event in found] == [
            *("features/0/17", "rejected/0/4", "decisions/0/1", "features/0/80", "scores/0/6"),
        ]
    assert found[1].details["reason"] == "out_of_range"
    assert found[2].details["action"] == "REPLAYED"
    assert found[3].details["replay_of"] == "rejected/0/4"


def test_an_outcome_has_the_facts_of_its_audit_entry() -> None:
    event = audit([entry("anna", "features/0/17"), entry("bert", "features/0/18")])
    found = history([INPUT, SCORED, ("audit/0/1", event, {}, START_MS)])
    assert [one.kind for one in found] == [Happened.RECEIVED, Happened.SCORED]
    assert found[1].details["api_status"] == 200
    assert found[1].details["audit"] == "audit/0/1"
    assert found[1].details["confidence_upper"] == 0.95
    assert "note" not in found[1].details


def test_an_outcome_that_retention_deleted_is_known_from_the_audit() -> None:
    event = audit([entry("anna", "features/0/17", "REJECTED"), entry("anna", "features/0/20", "REVIEW")])
    found = history([("audit/0/1", event, {}, START_MS)])
    assert [(one.kind, one.causes) for one in found] == [
        (Happened.REVIEW, ("features/0/20",)),
        (Happened.REJECTED, ("features/0/17",)),
    ]
    assert found[0].details["note"] == "known from the audit only"
    assert found[1].details["reasons"] == ["out_of_range"]


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (("review/0/1", score("anna", review_reasons=["wide_interval"]), by("f/0/1"), 1), Happened.REVIEW),
        (
            ("callbacks-rejected/0/1", callback(["anna"], ["s/0/1"]), {"error-reason": "refused"}, 1),
            Happened.CALLBACK_REJECTED,
        ),
        (("scores/0/1", score("anna"), {"error-reason": "too_large"}, 1), Happened.CALLBACK_REJECTED),
        (("receipts/0/1", receipt(["anna"], ["s/0/1"], outcome="GAVE_UP"), {}, 1), Happened.GAVE_UP),
        (("receipts/0/1", receipt(["anna"], ["s/0/1"], outcome="EXPIRED"), {}, 1), Happened.EXPIRED),
        (("features/0/1", None, {}, 1), Happened.UNDECODABLE),
        (("review/0/1", None, by("f/0/1"), 1), Happened.UNDECODABLE),
        (("rejected/0/1", None, by("f/0/1", error_reason="undecodable"), 1), Happened.REJECTED),
    ],
)
def test_kinds(item: Item, kind: Happened) -> None:
    [found] = history([item])
    assert found.kind is kind
    assert (item[1] is None) is ("error" in found.details)


def test_an_accepted_score_and_a_redelivered_callback_name_their_decision() -> None:
    accepted: Item = ("scores/0/9", score("anna"), {"decision": "d-1"}, 1)
    [found] = history([accepted])
    assert found.details["decision"] == "d-1"
    again: Item = ("callbacks/0/9", callback(["anna"], ["scores/0/5"]), {"decision": "d-2"}, 2)
    redelivery: Item = (
        "decisions/0/1",
        decision("callbacks-rejected/0/1", "REDELIVERED", result_place="callbacks/0/9"),
        {},
        2,
    )
    assert kinds([again, redelivery]) == [Happened.DECIDED, Happened.CALLBACK_PLANNED]


def test_a_record_that_is_its_own_cause_after_a_topic_was_created_again() -> None:
    one: Item = ("features/0/1", features("anna"), {"replay-of": "rejected/0/1"}, 1)
    other: Item = ("rejected/0/1", features("anna"), by("features/0/1", error_reason="expired"), 2)
    itself: Item = ("features/0/2", features("anna"), {"replay-of": "features/0/2"}, 3)
    assert len(history([one, other, itself])) == 3


def test_rows_and_lines() -> None:
    [_, found] = history([INPUT, SCORED])
    assert found.as_row() == {
        "time": "2023-11-14T22:13:20.000Z",
        "what": "scored",
        "place": "scores/0/5",
        "event_id": "event-anna",
        "from": ["features/0/17"],
        "details": {
            "score": 0.9,
            "confidence_lower": 0.8,
            "confidence_upper": 0.95,
            "review_reasons": [],
            "model_version": "v1",
            "imputed_features": [],
        },
    }
    line = found.as_line()
    assert line["from"] == "features/0/17"
    assert line["details"] == "score 0.9, confidence_lower 0.8, confidence_upper 0.95, model_version v1"
    [changed] = history([("decisions/0/1", decision("r/0/1", changes={"age": "40"}), {}, 1)])
    assert "changes age=40" in changed.as_line()["details"]
