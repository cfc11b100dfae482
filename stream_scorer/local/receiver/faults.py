"""Scripted faults: affected callbacks, number of times, and effect.

A fault is JSON::

    {"match":  {"campaign_id": "spring"},                the affected callbacks; {} for all
     "after":  2,                                         number of callbacks that pass first (default 0)
     "times":  3,                                         number of affected callbacks (default 1; null: all)
     "action": {"status": 503, "retry_after": "3"}}       the effect

``match`` has any of these conditions, all of which must hold: ``campaign_id`` (``""``: no campaign) and ``contact_id``
(the callback contains this contact).

An action is one of these, and any of them may have ``"delay_ms": N``, a delay before it:

- ``{"status": N}`` is the answer, without a record; with ``retry_after`` (seconds or an HTTP date, sent unchanged),
  ``headers`` (an object, with ``Location`` for a 3xx) and ``body`` (any text);
- ``{"transfer": …}`` records the callback and spoils the transport of the answer: ``cut`` and ``cut_chunked`` close the
  connection after half of it, ``drip`` sends a byte every 100 ms without end, ``endless`` sends at full speed without
  end, ``gzip_bomb`` is small and expands to 200 MB. Can be combined with ``status``, then without a record;
- ``{"drop": "before"}`` closes the connection without a record, ``{"drop": "after"}`` after the record;
- ``{"hang": true}`` never answers, without a record;
- ``{"delay_ms": N}`` alone gives a correct but late answer.

Faults apply to callbacks with a valid signature, in the order in which they were added; only the first due one acts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import model_validator

from stream_scorer.local.http_server.models import BODILESS, AnswerFault, Frozen, ScriptedFault

if TYPE_CHECKING:
    from stream_scorer.local.receiver.delivery_log import ReceivedCallback


class FaultMatch(Frozen):
    """Condition for the affected callbacks."""

    campaign_id: str | None = None
    contact_id: str | None = None

    def concerns(self, arrival: ReceivedCallback) -> bool:
        """Return whether all conditions hold."""
        if self.campaign_id is not None and self.campaign_id != (arrival.campaign_id or ""):
            return False
        return self.contact_id is None or self.contact_id in arrival.contact_ids


class FaultAction(AnswerFault):
    """Effect of a fault on a callback."""

    body: str = ""
    hang: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> FaultAction:
        answers = self.status is not None or self.transfer is not None
        kinds = (answers, self.drop is not None, self.hang)
        if sum(kinds) > 1:
            raise ValueError("an action is one of status or transfer, drop, hang")
        if not any(kinds) and not self.delay_ms:
            raise ValueError("an action needs status, transfer, drop, hang or delay_ms")
        if self.status is None and self.model_fields_set & {"retry_after", "headers", "body"}:
            raise ValueError("retry_after, headers and body belong to a status")
        if self.status in BODILESS and (self.body or self.transfer):
            raise ValueError(f"a {self.status} has no body: leave out body and transfer")
        return self


class Fault(ScriptedFault):
    """One entry of the receiver's script."""

    action: FaultAction
    match: FaultMatch = FaultMatch()
