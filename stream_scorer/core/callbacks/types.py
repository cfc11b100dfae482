"""Immutable types of the callback service, one for each stage.

``SourceRecord`` of the scores topic ─decode─▶ ``Score`` ─group─▶ ``Callback`` ─deliver─▶ ``DeliveryAnswer``. A callback
is planned once, with its exact body and id, and then delivered by any worker that reads it. Every repeat has the same
bytes and the same id.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.core.scoring.types import NO_ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    attributes: Mapping[str, str] = NO_ATTRIBUTES
    latency_ms: float = 0.0
    imputed_features: tuple[str, ...] = ()
    batch_id: str = ""


@dataclass(frozen=True, slots=True)
class Callback:
    """A ``CampaignCallback`` value (schemas/campaign-callback.avsc). Times are Unix milliseconds.

    Attributes:
        callback_id: UUIDv5 of the sources.
        campaign_id: the one campaign of all its contacts; None is a separate group.
        target: kind and host of the target; never a secret.
        body: the bytes that are sent at every attempt.
        sources: ``topic/partition/offset`` of its scores.
        event_ids: of its contacts, in the order of the sources.
        contact_ids: of its contacts, in the order of the sources.
        planned_at_ms: when it was planned.
        attempts: requests sent for it so far.
        not_before_ms: when the next one is due.
        threshold: ``callbacks.threshold`` when it was planned; None: it is not known.
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
    threshold: float | None = None


class DeliveryKind(StrEnum):
    """Class of a response of the campaign manager.

    ``REFUSED`` is retried like ``TRY_LATER``; without a status no request can be made for the callback, and it ends.
    ``SWITCHED_OFF`` is a 410. ``HELD``: no request was made, because the body was made for another target or other
    columns. ``NOT_SENT``: none was made, because the worker's own quota admits none for ``retry_after_s``.
    """

    DELIVERED = "delivered"
    TRY_LATER = "try_later"
    REFUSED = "refused"
    SWITCHED_OFF = "switched_off"
    HELD = "held"
    NOT_SENT = "not_sent"


class RefusedContact(NamedTuple):
    """A contact of a callback that is refused alone, while others of it are not.

    Attributes:
        position: its position in the callback.
        reason: ``refused``, ``no_address`` or ``no_contact_id``.
        detail: one line with the status or the cause; never a secret or personal data.
        status: the HTTP status; None: it was not sent.
    """

    position: int
    reason: str
    detail: str
    status: int | None


@dataclass(frozen=True, slots=True)
class DeliveryAnswer:
    """Result of one attempt to deliver a callback, as the target classifies it.

    Attributes:
        kind: its class.
        message: one line with the status or the failure; never a secret or the response body.
        status: the HTTP status; None: there was no response.
        latency_ms: duration of the attempt.
        retry_after_s: the pause that the receiver demands; None: it demands none.
        remedy: what an operator can do about a failure; empty: nothing is known.
        is_unanswered: whether a request may have reached the receiver and got no response.
        is_conflict: whether it is a 409 of a receiver that answers so to a callback that it has: a webhook's.
        refused: contacts that are refused alone; the others have the outcome of ``kind``.
    """

    kind: DeliveryKind
    message: str
    status: int | None
    latency_ms: float
    retry_after_s: float | None = None
    remedy: str = ""
    is_unanswered: bool = False
    is_conflict: bool = False
    refused: tuple[RefusedContact, ...] = ()

    @property
    def is_about_target(self) -> bool:
        """Whether it shows if the target accepts callbacks; otherwise this callback or the worker's quota is the cause.

        Failures without a request count if they meet every callback: no token, or a contact list that does not fit.
        """
        if self.kind is DeliveryKind.REFUSED:
            return self.status is not None
        return self.kind not in (DeliveryKind.HELD, DeliveryKind.NOT_SENT)


class CallbackOutcome(StrEnum):
    """Final outcome of a callback: the symbols of ``CallbackReceipt.outcome``."""

    DELIVERED = "DELIVERED"
    REFUSED = "REFUSED"
    GAVE_UP = "GAVE_UP"
    EXPIRED = "EXPIRED"
