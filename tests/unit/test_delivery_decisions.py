"""Desk of rejected callbacks: redelivery, the explanation of each reason, and bodies for other targets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
import pytest
from delivery_harness import CALLBACKS, MAX_BYTES, RECEIPTS, RETRY_TOPICS, callback

from stream_scorer.callbacks.output_records import CallbackEncoder, CallbackTopics
from stream_scorer.core.callbacks.records import callback_value, read_callback
from stream_scorer.core.callbacks.retry_policy import Completed, DeferReason, DeferredDelivery
from stream_scorer.core.callbacks.types import CallbackOutcome
from stream_scorer.core.desk.decisions import Action, Decision
from stream_scorer.core.desk.delivery_explanation import ReceiptFact, explain_delivery
from stream_scorer.core.desk.desk_filter import DeskFilter
from stream_scorer.core.desk.discard import Discard
from stream_scorer.core.desk.expression import DELIVERY_NAMES, Expression
from stream_scorer.core.desk.record_filter import RecordFilter, parse_filter
from stream_scorer.core.desk.redelivery import (
    DELIVERABLE,
    UNDELIVERABLE,
    DeliveryState,
    Redelivery,
    RejectedCallback,
    delivery_state,
    parse_rejected_callback,
)
from stream_scorer.core.desk.rejected_record import parse_rejected
from stream_scorer.core.desk.verdict import Decide, NotSelected, Output, Skip, SkipReason
from stream_scorer.core.records import SourceRecord
from stream_scorer.kafka.producer.dead_letter import forwarded_headers
from stream_scorer.settings import Settings
from stream_scorer.targets.body_fit import misfit

if TYPE_CHECKING:
    from stream_scorer.core.callbacks.types import Callback

CAMPAIGNS = ("callbacks", "retry-1")
AT_MS = 1_900_000_000_000
DECISION = Decision("d" * 36, "rejected/1/7", "id", Action.REDELIVERED, "j", "ada", "", AT_MS)
DECISION_HEADERS = [("stream-scorer-decision", b"d" * 36), ("stream-scorer-decided-at", b"1900000000000")]
PLAN = callback("k1", contact_ids=("c1", "c2"), event_ids=("e1", "e2"), sources=("s/0/1", "s/0/2"), attempts=9)


def rejected(
    reason: str = "refused", one: Callback | None = PLAN, source: str = "retry-1/0/5", **headers: bytes
) -> SourceRecord:
    given = {
        "own": b"kept",
        "stream-scorer-source": source.encode(),
        "stream-scorer-threshold": b"0.8",
        "stream-scorer-error-reason": reason.encode(),
        "stream-scorer-error-status": b"400",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    value = b"x" if one is None else CALLBACKS.encode(callback_value(one))
    return SourceRecord("rejected", 1, 7, b"k1", value, list(given.items()), timestamp_ms=1)


Filter: TypeAlias = "DeskFilter[RejectedCallback]"


def selected(records: RecordFilter | None = None, *reasons: str, where: str | None = None) -> Filter:
    expression = None if where is None else Expression(where, DELIVERY_NAMES)
    return DeskFilter(
        records or RecordFilter(),
        frozenset(reasons),
        expression,
        lambda record: parse_rejected_callback(record, CALLBACKS, CAMPAIGNS),
    )


def judge(filtered: Filter | None = None, max_bytes: int = 1_000_000) -> Redelivery:
    def fits(output: Output) -> bool:
        return len(output.value or b"") < max_bytes

    return Redelivery(
        filtered or selected(),
        callbacks="callbacks",
        campaigns=CAMPAIGNS,
        encode=lambda one: CALLBACKS.encode(callback_value(one)),
        fits=fits,
        forwarded=forwarded_headers,
    )


def test_a_callback_goes_back_as_it_was_planned() -> None:
    verdict = judge().judge(rejected(stream_scorer_unanswered=b"true", stream_scorer_decision=b"former"), None)
    assert isinstance(verdict, Decide)
    assert verdict.publish is not None
    output = verdict.publish(DECISION)
    assert (output.topic, output.key, output.partition) == ("callbacks", b"k1", -1)
    assert output.headers == [
        ("own", b"kept"),
        ("stream-scorer-unanswered", b"true"),
        *DECISION_HEADERS,
        ("stream-scorer-threshold", b"0.8"),
    ]
    again = read_callback(CALLBACKS, SourceRecord("callbacks", 0, 0, output.key, output.value, output.headers))
    assert again == replace(PLAN, attempts=0, planned_at_ms=AT_MS, not_before_ms=AT_MS, threshold=0.8)


@pytest.mark.parametrize(
    ("record", "action", "reason"),
    [
        *((rejected(one), None, SkipReason.NOT_DELIVERABLE) for one in (*UNDELIVERABLE, "new")),
        *((rejected(one), "DISCARDED", SkipReason.DONE_BEFORE) for one in DELIVERABLE),
        (rejected(), "POSTPONED", SkipReason.DONE_BEFORE),
        (rejected(one=None), None, SkipReason.NOT_DECIDABLE),
        (rejected(source="elsewhere/0/5"), None, SkipReason.FOREIGN),
        (rejected(source="nowhere"), None, SkipReason.FOREIGN),
        (rejected("too_large", source="scores/0/5"), None, SkipReason.NOT_DELIVERABLE),
    ],
)
def test_callbacks_that_cannot_be_redelivered_are_skipped(
    record: SourceRecord, action: str | None, reason: str
) -> None:
    assert judge().judge(record, action) == Skip(SkipReason(reason))


def test_a_callback_that_does_not_fit_its_topic_any_more_is_skipped() -> None:
    assert judge(max_bytes=20).judge(rejected(), None) == Skip(SkipReason.TOO_LARGE)


def test_a_new_body_has_a_new_id_and_key() -> None:
    class Renewed:
        def decided(self, decision: Decision) -> Callback:
            return replace(PLAN, callback_id=f"of {decision.decision_id}", body=b"new")

    renewing = Redelivery(
        selected(),
        callbacks="callbacks",
        campaigns=CAMPAIGNS,
        encode=lambda one: CALLBACKS.encode(callback_value(one)),
        fits=lambda _: True,
        forwarded=forwarded_headers,
        rebuild=lambda _: Renewed(),
    )
    verdict = renewing.judge(rejected(), None)
    assert isinstance(verdict, Decide)
    assert verdict.publish is not None
    assert verdict.changes == {"retargeted": "k1"}
    output = verdict.publish(DECISION)
    again = read_callback(CALLBACKS, SourceRecord("callbacks", 0, 0, output.key, output.value, output.headers))
    assert output.key == again.callback_id.encode() == b"of " + b"d" * 36
    assert (again.body, again.attempts, again.planned_at_ms) == (b"new", 0, AT_MS)


@pytest.mark.parametrize(
    ("filtered", "is_selected"),
    [
        (selected(parse_filter(now_ms=0, contacts=["c2"])), True),
        (selected(parse_filter(now_ms=0, contacts=["k1"])), True),
        (selected(parse_filter(now_ms=0, contacts=["c3"])), False),
        (selected(parse_filter(now_ms=0, events=["e1"])), True),
        (selected(parse_filter(now_ms=0, places=["s/0/2"])), True),
        (selected(parse_filter(now_ms=0, places=["rejected/1/7"])), True),
        (selected(parse_filter(now_ms=0, places=["rejected/1/8"])), False),
        (selected(None, "gave_up"), False),
        (selected(None, "gave_up", "refused"), True),
        (selected(where="contacts == 2 and campaign_id == 'spring' and status == 400"), True),
        (selected(where="attempts < 9"), False),
    ],
)
def test_a_selection_by_ids_reason_and_expression(filtered: Filter, is_selected: bool) -> None:
    for one in (judge(filtered), Discard(filtered.selects)):
        assert isinstance(one.judge(rejected(), None), Decide if is_selected else NotSelected)


def test_a_record_that_is_no_callback_is_selected_by_its_key_and_discarded() -> None:
    filtered = selected(parse_filter(now_ms=0, contacts=["k1"]))
    assert isinstance(Discard(filtered.selects).judge(rejected("undecodable", None), None), Decide)


def test_an_expression_has_all_its_names() -> None:
    assert RejectedCallback(parse_rejected(rejected()), PLAN).values.keys() == DELIVERY_NAMES.keys()


@pytest.mark.parametrize(
    ("action", "state"),
    [(None, "open"), ("REDELIVERED", "redelivered"), ("DISCARDED", "discarded"), ("POSTPONED", "discarded")],
)
def test_the_state_of_a_rejected_callback(action: str | None, state: str) -> None:
    assert delivery_state(action) is DeliveryState(state)


@pytest.mark.parametrize("reason", [*DELIVERABLE, *UNDELIVERABLE])
def test_every_reason_has_its_remedy_and_its_command(reason: str) -> None:
    one = PLAN if reason in DELIVERABLE else None
    found = explain_delivery(parse_rejected(rejected(reason, one)), one, None, state=DeliveryState.OPEN, receipts=())
    assert len(found.remedy) > 40
    verb = "replay" if reason in DELIVERABLE else "discard"
    assert found.command.startswith(f"stream-scorer deliveries {verb} --place rejected/1/7")
    assert found.callback_id == "k1"
    done = explain_delivery(
        parse_rejected(rejected(reason, one)), one, None, state=DeliveryState.DISCARDED, receipts=()
    )
    assert (done.command, done.remedy) == ("", "it was discarded")


def test_a_refused_record_that_is_no_callback_is_not_to_be_delivered_again() -> None:
    """Remedy and command named two things."""
    found = explain_delivery(parse_rejected(rejected()), None, None, state=DeliveryState.OPEN, receipts=())
    assert found.remedy == "the value is no callback that this release can read: it can only be discarded"
    assert found.command.startswith("stream-scorer deliveries discard --place rejected/1/7")


def test_the_attempts_are_those_of_the_same_delivery() -> None:
    receipts = [ReceiptFact("REFUSED", 2, 12, 400, 1, ""), ReceiptFact("REFUSED", 2, 15, 400, 1, "d2")]
    for headers, attempts in (
        ({}, 12),
        ({"stream_scorer_decision": b"d2"}, 15),
        ({"stream_scorer_decision": b"d3"}, 9),
    ):
        record = parse_rejected(rejected(**headers))
        found = explain_delivery(record, PLAN, None, state=DeliveryState.OPEN, receipts=receipts)
        assert found.attempts == attempts


def test_a_body_for_a_former_target_is_explained() -> None:
    found = explain_delivery(parse_rejected(rejected()), PLAN, "other list", state=DeliveryState.OPEN, receipts=())
    assert found.today == "it would be held: other list"
    assert "Set the former target or columns back, or build a new body" in found.remedy
    assert found.command.endswith("--place rejected/1/7 --retarget")


LIST = "genesys-outbound https://api.mypurecloud.ie/api/v2/outbound/contactlists/"
BODY = orjson.dumps([{"id": "x", "data": {"phone": "+1"}}])


@pytest.mark.parametrize(
    ("target", "planned_for", "campaign_id", "fits"),
    [
        ("webhook", "webhook https://a", None, True),
        ("webhook", "log", None, True),
        ("webhook", f"{LIST}L1", None, False),
        ("log", "log", None, True),
        ("log", "webhook https://a", None, False),
        ("genesys-outbound", f"{LIST}L1", None, True),
        ("genesys-outbound", f"{LIST}L1", "spring", False),
        ("genesys-outbound", f"{LIST}L2", "spring", True),
        ("genesys-outbound", "webhook https://a", None, False),
    ],
)
def test_a_body_fits_the_target_it_was_made_for(
    target: str, planned_for: str, campaign_id: str | None, fits: bool
) -> None:
    callbacks: Any = {
        "target": target,
        "contact_list_id": "L1",
        "contact_lists": {"spring": "L2"},
        "columns": {"phone": "attributes.phone"},
    }
    one = replace(PLAN, target=planned_for, campaign_id=campaign_id, body=BODY)
    found = misfit(Settings(callbacks=callbacks), one)
    assert (found is None) is fits
    if target == "genesys-outbound" and fits:
        callbacks["columns"] = {"mobile": "attributes.phone"}
        assert "other columns" in (misfit(Settings(callbacks=callbacks), one) or "")


# --- the deliverer keeps the decision of a redelivery

ENCODER = CallbackEncoder(
    CallbackTopics("callbacks", RETRY_TOPICS, "rejected", "receipts", MAX_BYTES), CALLBACKS, RECEIPTS
)
AGAIN = SourceRecord("callbacks", 0, 9, b"k1", b"v", [("own", b"kept"), *DECISION_HEADERS])


def test_receipt_and_rejection_of_a_redelivery_have_its_decision() -> None:
    one = replace(PLAN, threshold=0.8)
    ended = Completed(AGAIN, one, CallbackOutcome.REFUSED, AT_MS, 400, 1.0, "HTTP 400", is_unanswered=True)
    receipt, dead = ENCODER.completed(ended)
    assert receipt.headers == [("own", b"kept"), *DECISION_HEADERS]
    headers = dict(dead.headers)
    assert headers.items() >= dict(DECISION_HEADERS).items()
    assert (headers["stream-scorer-threshold"], headers["stream-scorer-unanswered"]) == (b"0.8", b"true")


def test_the_retry_of_a_redelivery_has_its_decision() -> None:
    record = ENCODER.deferred(DeferredDelivery(AGAIN, PLAN, 1, 1, DeferReason.RETRY))
    assert dict(record.headers).items() >= dict(DECISION_HEADERS).items()
