"""Explanation of a rejected callback: why it ended, whether its body fits today's target, and what to do."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.desk.decisions import DECISION_HEADER
from stream_scorer.core.desk.redelivery import DELIVERABLE, DeliveryState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_scorer.core.callbacks.types import Callback
    from stream_scorer.core.desk.rejected_record import RejectedRecord

_REPLAY: Final = "stream-scorer deliveries replay"
_DISCARD: Final = "stream-scorer deliveries discard"
_REMEDIES: Final[Mapping[str, str]] = {
    "refused": "the receiver refused it in every round: correct what its last status means, then deliver it again",
    "gave_up": "the receiver did not accept it in any round: once it is well, deliver it again",
    "no_address": "contacts had no value in an address column of the list. A redelivery sends the same body, so it"
    " helps after the list has changed; after callbacks.columns has, add --retarget. Else score the contacts again",
    "no_contact_id": "contacts had no value for callbacks.contact_id. After that setting has changed, add --retarget;"
    " else discard it, and send these contacts to be scored again",
    "undecodable": "the record is no score or no callback: correct its producer, and discard it",
    "invalid_contact": "the contact's id fits no callback: correct the producer, and discard the record",
    "too_large": "the score fits no callback: raise max.message.bytes of the callback topics, and discard the record",
}
_DONE: Final[Mapping[DeliveryState, str]] = {
    DeliveryState.REDELIVERED: "it was delivered again: its receipts have the result",
    DeliveryState.DISCARDED: "it was discarded",
}


class ReceiptFact(NamedTuple):
    """Receipt of a callback.

    Attributes:
        outcome: such as ``REFUSED``.
        contacts: number of its contacts.
        attempts: requests of the delivery.
        status: HTTP status of the last one; None: there was none.
        finished_at_ms: Unix milliseconds.
        decision: id of the decision to deliver it again; empty: it is that of the plan.
    """

    outcome: str
    contacts: int
    attempts: int
    status: int | None
    finished_at_ms: int
    decision: str


class DeliveryExplanation(NamedTuple):
    """Explanation of one record of the callbacks' rejected topic.

    Attributes:
        place: its place.
        callback_id: the key, if the value is no callback.
        campaign_id: its campaign; None: it has none, or the value is no callback.
        target: for which target it was planned; empty: the value is no callback.
        contacts: number of its contacts.
        attempts: requests of this delivery.
        planned_at_ms: Unix milliseconds; None: the value is no callback.
        rejected_at: ISO 8601.
        reason: why it ended.
        detail: the sentence about it.
        status: HTTP status of the last response.
        state: open, redelivered or discarded.
        retargeted_id: its new id, if it was retargeted; empty: it was not.
        receipts: its receipts since it was planned, those under the new id included.
        today: whether its body fits today's target, or why not.
        remedy: what to do.
        command: the command that delivers it again or closes it; empty: it is decided.
    """

    place: str
    callback_id: str
    campaign_id: str | None
    target: str
    contacts: int
    attempts: int
    planned_at_ms: int | None
    rejected_at: str
    reason: str
    detail: str
    status: int | None
    state: DeliveryState
    retargeted_id: str
    receipts: Sequence[ReceiptFact]
    today: str
    remedy: str
    command: str


def explain_delivery(
    rejected: RejectedRecord,
    callback: Callback | None,
    misfit: str | None,
    *,
    state: DeliveryState,
    receipts: Sequence[ReceiptFact],
    retargeted_id: str = "",
) -> DeliveryExplanation:
    """Explain a rejected callback.

    Args:
        rejected: the record.
        callback: the callback; None: the value is none.
        misfit: why its body does not fit today's target; None: it does.
        state: its state.
        receipts: its receipts.
        retargeted_id: its new id; empty: it has none.
    """
    is_deliverable = callback is not None and rejected.reason in DELIVERABLE
    today = "its body fits the present target" if misfit is None else f"it would be held: {misfit}"
    remedy = _REMEDIES.get(rejected.reason, "this release does not know the reason: look at the detail")
    if callback is None and rejected.reason in DELIVERABLE:
        remedy = "the value is no callback that this release can read: it can only be discarded"
    if is_deliverable and misfit is not None:
        remedy = f"{remedy}. Set the former target or columns back, or build a new body for the present ones"
    place = shlex.quote(rejected.record.source)
    retarget = "" if misfit is None else " --retarget"
    command = (
        f"{_REPLAY} --place {place}{retarget}"
        if is_deliverable
        else f'{_DISCARD} --place {place} --note "cannot be delivered"'
    )
    return DeliveryExplanation(
        place=rejected.record.source,
        callback_id=(rejected.record.key or b"").decode(errors="replace") if callback is None else callback.callback_id,
        campaign_id=None if callback is None else callback.campaign_id,
        target="" if callback is None else callback.target,
        contacts=0 if callback is None else len(callback.contact_ids),
        attempts=0 if callback is None else _attempts(rejected, callback, receipts),
        planned_at_ms=None if callback is None else callback.planned_at_ms,
        rejected_at=rejected.rejected_at,
        reason=rejected.reason,
        detail=rejected.detail,
        status=rejected.status,
        state=state,
        retargeted_id=retargeted_id,
        receipts=receipts,
        today=today if is_deliverable else "it cannot be delivered",
        remedy=remedy if state is DeliveryState.OPEN else _DONE[state],
        command=command if state is DeliveryState.OPEN else "",
    )


def _attempts(rejected: RejectedRecord, callback: Callback, receipts: Iterable[ReceiptFact]) -> int:
    """Return the attempts of a delivery; the record itself lacks those of the last round."""
    decision = dict(rejected.record.headers).get(DECISION_HEADER) or b""
    counted = (one.attempts for one in receipts if one.decision.encode() == decision)
    return max(counted, default=callback.attempts)
