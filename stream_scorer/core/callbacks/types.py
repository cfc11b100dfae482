"""The types of the campaign side, one for each stage, none ever changed after it is made.

``SourceRecord`` of the scores topic ─decode─▶ ``Score`` ─group─▶ ``Callback`` ─deliver─▶ ``DeliveryAnswer``. A callback
is planned once, with its exact body and id, and then delivered by any worker that reads it. Every repeat has the same
bytes and the same id.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from stream_scorer.core.records import SourceRecord


class Score(NamedTuple):
    """A ``ContactScore`` value (schemas/contact-score.avsc) as a callback needs it. Times are Unix milliseconds."""

    record: SourceRecord
    event_id: str
    contact_id: str
    campaign_id: str | None
    model_id: str
    model_version: str | None
    score: float
    confidence_lower: float
    confidence_upper: float
    occurred_at_ms: int
    scored_at_ms: int


@dataclass(frozen=True, slots=True)
class Callback:
    """A ``CampaignCallback`` value (schemas/campaign-callback.avsc). Times are Unix milliseconds.

    Attributes:
        callback_id: UUIDv5 of the sources.
        campaign_id: the one campaign of all its contacts; None is a group of its own.
        target: which kind of target the body was made for, and where it goes; never a secret.
        body: exactly what is sent, at every attempt.
        sources: ``topic/partition/offset`` of its scores.
        event_ids: of its contacts, in the order of the sources.
        contact_ids: of its contacts, in the order of the sources.
        planned_at_ms: when it was planned.
        attempts: requests made for it so far.
        not_before_ms: when the next one is due.
    """

    callback_id: str
    campaign_id: str | None
    target: str
    body: bytes
    sources: tuple[str, ...]
    event_ids: tuple[str, ...]
    contact_ids: tuple[str, ...]
    planned_at_ms: int
    attempts: int
    not_before_ms: int


class DeliveryKind(StrEnum):
    """What an answer of the campaign manager means for the callback."""

    DELIVERED = "delivered"
    TRY_LATER = "try_later"
    REFUSED = "refused"
    SWITCHED_OFF = "switched_off"


@dataclass(frozen=True, slots=True)
class DeliveryAnswer:
    """One attempt to deliver a callback, as the target understood its end.

    Attributes:
        kind: what it means.
        message: one line for people that names the status or the trouble; never a secret, never the answer's body.
        status: the HTTP status; None where no answer came.
        latency_ms: how long the attempt took.
        retry_after_s: how long the receiver asked to be left alone; None where it did not say.
    """

    kind: DeliveryKind
    message: str
    status: int | None
    latency_ms: float
    retry_after_s: float | None = None


class CallbackOutcome(StrEnum):
    """How a callback ended: the symbols of ``CallbackReceipt.outcome``."""

    DELIVERED = "DELIVERED"
    REFUSED = "REFUSED"
    GAVE_UP = "GAVE_UP"
    EXPIRED = "EXPIRED"
