"""Redelivery of rejected callbacks: which are selected, and what goes back to the callbacks topic.

A callback is delivered again as it was planned: the same id, the same body, the same contacts. Only its times begin
again, and its headers name the decision. With a new target it has a new id and a new body.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.callbacks.records import UNANSWERED_HEADER, callback_id_of, read_callback, threshold_headers
from stream_scorer.core.desk.decisions import NO_CHANGES, RETARGETED, SIZED_DECISION, Action
from stream_scorer.core.desk.record_counts import UNKNOWN, campaign_name
from stream_scorer.core.desk.record_filter import RecordIds
from stream_scorer.core.desk.rejected_record import RejectedRecord, parse_rejected
from stream_scorer.core.desk.verdict import Decide, NotSelected, Output, Skip, SkipReason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.callbacks.types import Callback
    from stream_scorer.core.desk.decisions import Decision
    from stream_scorer.core.desk.desk_filter import DeskFilter
    from stream_scorer.core.desk.verdict import Verdict
    from stream_scorer.core.records import Headers, SourceRecord

# Reasons of a callback that ended without an acceptance, or with contacts that were refused alone.
DELIVERABLE: Final = ("refused", "gave_up", "no_address", "no_contact_id")
# Reasons of a record that is no score or no callback, or of a score that fits no callback.
UNDELIVERABLE: Final = ("undecodable", "invalid_contact", "too_large")


class DeliveryState(StrEnum):
    """State of a rejected callback for an operator."""

    OPEN = "open"
    REDELIVERED = "redelivered"
    DISCARDED = "discarded"


def delivery_state(action: str | None) -> DeliveryState:
    """Return the state of a rejected callback; ``action``: what was decided about it, None: nothing."""
    if action is None:
        return DeliveryState.OPEN
    return DeliveryState.REDELIVERED if action == Action.REDELIVERED else DeliveryState.DISCARDED


class RejectedCallback(NamedTuple):
    """Record of the callbacks' rejected topic; ``callback``: None if the value is none."""

    rejected: RejectedRecord
    callback: Callback | None

    @property
    def record(self) -> SourceRecord:
        return self.rejected.record

    @property
    def reasons(self) -> tuple[str, ...]:
        return (self.rejected.reason,)

    @property
    def ids(self) -> RecordIds:
        return RecordIds() if self.callback is None else ids_of_callback(self.callback)

    @property
    def campaign(self) -> str:
        return UNKNOWN if self.callback is None else campaign_name(self.callback.campaign_id)

    @property
    def values(self) -> Mapping[str, Any]:
        """The values of `stream_scorer.core.desk.expression.DELIVERY_NAMES`."""
        rejected = self.rejected
        values: dict[str, Any] = {"reason": rejected.reason, "detail": rejected.detail, "status": rejected.status}
        return values if self.callback is None else values | values_of_callback(self.callback)


def ids_of_callback(callback: Callback) -> RecordIds:
    """Return the ids of a callback; its own id is selected like a contact id."""
    return RecordIds((callback.callback_id, *callback.contact_ids), callback.event_ids, sources=callback.sources)


def values_of_callback(callback: Callback) -> dict[str, Any]:
    """Return the values of a callback for an expression."""
    return {
        "callback_id": callback.callback_id,
        "campaign_id": callback.campaign_id,
        "target": callback.target,
        "contacts": len(callback.contact_ids),
        "attempts": callback.attempts,
    }


def parse_rejected_callback(record: SourceRecord, codec: Codec, campaigns: Collection[str]) -> RejectedCallback:
    """Return a record of the callbacks' rejected topic with its callback.

    Args:
        record: of the rejected topic.
        codec: decodes callbacks.
        campaigns: the topics of callbacks. A rejected record that was read elsewhere is none.
    """
    rejected = parse_rejected(record)
    if rejected.origin is None or rejected.origin.topic not in campaigns:
        return RejectedCallback(rejected, None)
    try:
        return RejectedCallback(rejected, read_callback(codec, record))
    except UndecodableError:
        return RejectedCallback(rejected, None)


def retargeted_id(callback: Callback, decision_id: str) -> str:
    """Return the id under which the decision to retarget a callback calls its contacts."""
    return callback_id_of([*callback.sources, decision_id])


class Rebuilt(Protocol):
    """Callback that gets a new id and body with the decision."""

    def decided(self, decision: Decision) -> Callback:
        """Return the new callback of a decision."""


class Redelivery:
    """Judge that puts rejected callbacks back on the callbacks topic.

    Args:
        selected: the filter.
        callbacks: name of the callbacks topic.
        campaigns: the topics of callbacks: that one and its retry topics.
        encode: the value of a callback.
        fits: whether the callbacks topic accepts a record for its size.
        forwarded: the headers of the record that are its own.
        rebuild: builds a new body for the present target; None: the body stays.
    """

    action = Action.REDELIVERED

    def __init__(
        self,
        selected: DeskFilter[RejectedCallback],
        *,
        callbacks: str,
        campaigns: Collection[str],
        encode: Callable[[Callback], bytes],
        fits: Callable[[Output], bool],
        forwarded: Callable[[Headers], Headers],
        rebuild: Callable[[Callback], Rebuilt | SkipReason] | None = None,
    ) -> None:
        self._selected = selected
        self._callbacks = callbacks
        self._campaigns = campaigns
        self._encode = encode
        self._fits = fits
        self._forwarded = forwarded
        self._rebuild = rebuild

    def judge(self, record: SourceRecord, action: str | None) -> Verdict:
        """Return the verdict about a record of the callbacks' rejected topic."""
        found = self._selected.read(record)
        if found is None:
            return NotSelected()
        rejected, callback = found
        if (reason := self._obstacle(rejected)) is not None:
            return Skip(reason)
        if action is not None:
            return Skip(SkipReason.DONE_BEFORE)
        if callback is None:
            return Skip(SkipReason.NOT_DECIDABLE)
        return self._redelivered(record, callback)

    def _redelivered(self, record: SourceRecord, callback: Callback) -> Decide | Skip:
        rebuilt = None if self._rebuild is None else self._rebuild(callback)
        if isinstance(rebuilt, SkipReason):
            return Skip(rebuilt)

        def publish(decision: Decision) -> Output:
            if rebuilt is None:
                return self._output(record, record.key, callback, decision)
            renewed = rebuilt.decided(decision)
            return self._output(record, renewed.callback_id.encode(), renewed, decision)

        if not self._fits(publish(SIZED_DECISION)):
            return Skip(SkipReason.TOO_LARGE)
        return Decide(publish, NO_CHANGES if rebuilt is None else {RETARGETED: callback.callback_id})

    def _obstacle(self, rejected: RejectedRecord) -> SkipReason | None:
        if rejected.origin is None:
            return SkipReason.FOREIGN
        if rejected.reason not in DELIVERABLE:
            return SkipReason.NOT_DELIVERABLE
        return None if rejected.origin.topic in self._campaigns else SkipReason.FOREIGN

    def _output(self, record: SourceRecord, key: bytes | None, callback: Callback, decision: Decision) -> Output:
        at_ms = decision.decided_at_ms
        again = replace(callback, attempts=0, planned_at_ms=at_ms, not_before_ms=at_ms)
        headers = [
            *self._forwarded(record.headers),
            *(one for one in record.headers if one[0] == UNANSWERED_HEADER),
            *decision.headers,
            *threshold_headers(callback),
        ]
        return Output(self._callbacks, key, self._encode(again), headers, -1)
