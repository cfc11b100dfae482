"""Rules of the verifier for callbacks: every due score is planned once and has one final receipt.

A decision to deliver a callback again is one more delivery: one more record on the callbacks topic with the id, the
contacts and the body of the plan, and one more receipt.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from decision_rules import decisions_of, is_decided
from scoring_harness import SCORE, Avro

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expected_state import ExpectedState, Row

CALLBACK = Avro("campaign-callback.avsc")
RECEIPT = Avro("callback-receipt.avsc")
# What a redelivered callback keeps of its plan; with a new target it has another body and another id.
_KEPT = ("callback_id", "campaign_id", "sources", "event_ids", "contact_ids", "body")


def broken_callbacks(state: ExpectedState) -> Iterator[tuple[str, str, str]]:
    """Yield kind, location and text of every violation in callbacks and receipts."""
    plans = [row for row in state.rows["callbacks"] if not is_decided(row)]
    again = [row for row in state.rows["callbacks"] if is_decided(row)]
    yield from _broken_plans(plans)
    yield from _broken_receipts(state)
    yield from _broken_redeliveries(state, plans, again)


def _broken_plans(plans: list[Row]) -> Iterator[tuple[str, str, str]]:
    planned: Counter[str] = Counter()
    for row in plans:
        for source in CALLBACK.decode(row.value)["sources"]:
            planned[source] += 1
            if planned[source] > 1:
                yield "planned twice", row.place, f"{source} stands in another callback too"


def _broken_receipts(state: ExpectedState) -> Iterator[tuple[str, str, str]]:
    """Each callback has one receipt per delivery, and each due score one of its plan."""
    receipts: Counter[tuple[str, str | None]] = Counter()
    reported: Counter[str] = Counter()
    for row in state.rows["receipts"]:
        receipt, decision = RECEIPT.decode(row.value), row.own_header("decision")
        delivery = receipt["callback_id"], decision
        receipts[delivery] += 1
        if decision is None:
            reported.update(receipt["sources"])
        if receipts[delivery] > 1:
            yield "receipt twice", row.place, f"callback {receipt['callback_id']} has another receipt"
    due = _due(state)
    yield from (("no receipt", source, "is due, and has no receipt") for source in due - reported.keys())
    yield from (("receipt undue", source, "has a receipt and is not due") for source in reported.keys() - due)
    for source, times in reported.items():
        if times > 1:
            yield "receipt twice", source, f"stands in {times} receipts"


def _broken_redeliveries(state: ExpectedState, plans: list[Row], again: list[Row]) -> Iterator[tuple[str, str, str]]:
    planned = {value["callback_id"]: value for value in (CALLBACK.decode(row.value) for row in plans)}
    decided = {one["decision_id"]: one for one in decisions_of(state) if one["action"] == "REDELIVERED"}
    received = {row.own_header("decision"): row for row in state.rows["receipts"] if is_decided(row)}
    delivered: set[str | None] = set()
    for row in again:
        decision_id, value = row.own_header("decision"), CALLBACK.decode(row.value)
        if decision_id in delivered:
            yield "redelivered twice", row.place, f"decision {decision_id} has another callback"
        delivered.add(decision_id)
        yield from _changed(row, value, planned, decided.get(decision_id or ""))
        receipt = received.get(decision_id)
        if receipt is None:
            yield "no receipt", row.place, f"was delivered again by decision {decision_id}, and has no receipt of it"
        elif any(RECEIPT.decode(receipt.value)[name] != value[name] for name in ("callback_id", "sources")):
            yield "mismatch", receipt.place, f"is not about the callback at {row.place}, which has its decision"
    for decision_id in received.keys() - delivered:
        yield "receipt undue", received[decision_id].place, f"names decision {decision_id}, which has no callback"


def _changed(
    row: Row, value: dict[str, Any], planned: dict[str, dict[str, Any]], decision: dict[str, Any] | None
) -> Iterator[tuple[str, str, str]]:
    former_id = None if decision is None else decision["changes"].get("retargeted")
    plan = planned.get(former_id or value["callback_id"])
    kept = _KEPT if former_id is None else ("campaign_id", "sources", "event_ids", "contact_ids")
    if plan is None:
        yield "mismatch", row.place, f"callback {value['callback_id']} was never planned"
    elif any(plan[name] != value[name] for name in kept):
        yield "mismatch", row.place, f"is not what was planned as callback {plan['callback_id']}"


def _due(state: ExpectedState) -> set[str]:
    """Return the locations of the scores that have to be delivered."""
    scores = ((row.place, SCORE.decode(row.value)) for row in state.rows["scores"])
    return {place for place, score in scores if score["score"] >= state.threshold and not score["review_reasons"]}
