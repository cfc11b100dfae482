"""Immutable types of the scoring service, one for each stage.

``SourceRecord`` ─decode, validate, impute─▶ ``Contact`` ─request─▶ ``ApiResponse`` ─match, verify─▶ ``Scored``. A
contact that cannot be scored becomes ``Rejected`` and is carried forward like a score. A contact whose request failed
while others succeeded becomes ``Deferred``: it is written to a retry topic and read again.

Types with one instance per contact are ``NamedTuple``: as immutable as a frozen dataclass, at a quarter of the cost of
construction. Types with one instance per request are frozen dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.records import SourceRecord

FeatureValue: TypeAlias = "bool | int | float | str"
NO_ATTRIBUTES: Final[Mapping[str, str]] = MappingProxyType({})


class ContactEvent(NamedTuple):
    """A ``ContactFeatures`` value (schemas/contact-features.avsc), decoded and not validated."""

    event_id: str
    contact_id: str
    features: dict[str, FeatureValue | None]
    occurred_at_ms: int
    campaign_id: str | None
    model_version: str | None
    attributes: Mapping[str, str] = NO_ATTRIBUTES


class Contact(NamedTuple):
    """A valid contact, complete after imputation, ready to be sent to the API.

    ``body`` is its JSON in a request (``{"contactId":…,"features":{…}}``), encoded once: so the size of a request is
    exact before it is sent. ``model_version``: the one to send; ``version_from_event``: whether the event contains it.
    ``rounds``: failed rounds of a contact that was deferred before; ``held``: why it is held after the last round.
    ``attributes``: what the campaign needs of the contact; never sent to the API.
    """

    record: SourceRecord
    event_id: str
    contact_id: str
    campaign_id: str | None
    occurred_at_ms: int
    model_version: str | None
    version_from_event: bool
    imputed_features: tuple[str, ...]
    body: bytes
    rounds: int = 0
    held: str = ""
    attributes: Mapping[str, str] = NO_ATTRIBUTES

    @property
    def features_hash(self) -> bytes | None:
        """SHA-256 of `body`; None: it has none."""
        return sha256(self.body).digest() if self.body else None


class Reason(StrEnum):
    """Why a contact was rejected, in the order in which the checks run (contract, section 5)."""

    UNDECODABLE = "undecodable"
    INVALID_CONTACT = "invalid_contact"
    EXPIRED = "expired"
    TOO_MANY_FEATURES = "too_many_features"
    UNSUPPORTED_FEATURE = "unsupported_feature"
    MISSING_FEATURE = "missing_feature"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    TOO_LARGE = "too_large"
    UNKNOWN_MODEL_VERSION = "unknown_model_version"
    REFUSED_BY_API = "refused_by_api"
    NO_RESULT = "no_result"
    UNPUBLISHABLE = "unpublishable"


class ReviewReason(StrEnum):
    """Why a score goes to the review topic instead of the scores topic."""

    NARROW_INTERVAL = "narrow_interval"
    WIDE_INTERVAL = "wide_interval"
    SCORE_OUT_OF_RANGE = "score_out_of_range"
    INTERVAL_INCONSISTENT = "interval_inconsistent"


@dataclass(frozen=True, slots=True)
class RequestAudit:
    """Audit data of the request that finished a contact. Times are Unix milliseconds, UTC."""

    batch_id: str
    model_id: str
    model_version: str | None
    request_contacts: int
    started_at_ms: int
    finished_at_ms: int
    latency_ms: float | None
    attempts: int
    api_status: int | None
    correlation_id: str | None


class Scored(NamedTuple):
    """A verified score. With ``review_reasons`` it goes to the review topic, without to the scores topic."""

    contact: Contact
    request: RequestAudit
    score: float
    confidence_lower: float
    confidence_upper: float
    review_reasons: tuple[str, ...]

    @property
    def record(self) -> SourceRecord:
        """The source record."""
        return self.contact.record

    @property
    def needed_request(self) -> bool:
        return True


class Rejected(NamedTuple):
    """A contact that cannot be scored. ``reasons[0]`` is in the header, all reasons are in the audit event.

    ``request``: None if it was rejected before any request; ``detail``: one readable sentence without secrets.
    ``truncated``: the broker rejects the original value, so the rejection is published without it.
    ``event_id``, ``features_hash``: those of the contact, for the audit; empty and None where there was none.
    """

    record: SourceRecord
    reasons: tuple[str, ...]
    detail: str
    contact_id: str
    rejected_at_ms: int
    request: RequestAudit | None = None
    api_status: int | None = None
    truncated: bool = False
    event_id: str = ""
    features_hash: bytes | None = None

    @property
    def needed_request(self) -> bool:
        return self.request is not None


class Deferred(NamedTuple):
    """A contact that is sent again later: its record goes to a retry topic, without an audit entry.

    Attributes:
        record: the record that was read, from the features topic or from a retry topic.
        contact_id: for logs; empty if the record was not decoded.
        rounds: the rounds of ``scoring.retry_delays_s`` that count as failed so far.
        level: number of the retry topic, 1 to n.
        not_before_ms: when it is due, in Unix milliseconds.
        held: why it is held after its last round, such as ``refused_by_api/400/v1``; otherwise empty.
        request: the last failed request for it; None: it was only written again.
        event_id: that of the contact; empty if the record was not decoded.
        features_hash: that of the contact; None: it has none.
    """

    record: SourceRecord
    contact_id: str
    rounds: int
    level: int
    not_before_ms: int
    held: str = ""
    request: RequestAudit | None = None
    event_id: str = ""
    features_hash: bytes | None = None

    @property
    def needed_request(self) -> bool:
        return False


class Skipped(NamedTuple):
    """A record of a retry topic that belongs to another group or an earlier start: only its offset is committed."""

    record: SourceRecord

    @property
    def needed_request(self) -> bool:
        return False


Outcome: TypeAlias = Scored | Rejected | Deferred
