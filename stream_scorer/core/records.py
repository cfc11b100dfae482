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
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Headers: TypeAlias = "list[tuple[str, bytes | None]]"
FeatureValue: TypeAlias = "bool | int | float | str"
NO_ATTRIBUTES: Final[Mapping[str, str]] = MappingProxyType({})
# sys.getsizeof of a tuple, a string and a bytes object, plus the list's reference: 56 + 49 + 33 + 8.
_HEADER_OVERHEAD_BYTES: Final = 146


class Partition(NamedTuple):
    """A partition of a topic. As a tuple it sorts and hashes like the plain pair, and equals it."""

    topic: str
    number: int


class SourceRecord(NamedTuple):
    """One record of the features topic or of a retry topic, byte for byte as it was consumed.

    ``headers_readable``: False if the client could not decode the headers, which are then empty here.
    ``timestamp_ms``: Kafka's timestamp of the record, Unix milliseconds; -1: it has none.
    ``origin``: position on the features topic of a record that was read from a retry topic; otherwise empty.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    headers_readable: bool = True
    timestamp_ms: int = -1
    origin: str = ""

    @property
    def next_offset(self) -> int:
        """The offset that is committed once this record has its outcome."""
        return self.offset + 1

    @property
    def source(self) -> str:
        """``topic/partition/offset``, the record's id in headers and audit events; its origin if it was deferred."""
        return self.origin or f"{self.topic}/{self.partition}/{self.offset}"


class RecordKey(NamedTuple):
    """Position of a record: unique until its topic is deleted."""

    topic: str
    partition: int
    offset: int


def key_of(record: SourceRecord) -> RecordKey:
    """Return the key of a record."""
    return RecordKey(record.topic, record.partition, record.offset)


def is_same_record(one: SourceRecord, other: SourceRecord) -> bool:
    """Return whether two records with one key are the same: a topic created again has other records at its offsets."""
    return one is other or (one.value == other.value and one.key == other.key)


def size_of(record: SourceRecord) -> int:
    """Return the bytes that a record occupies in memory: key, value and headers.

    A header includes Python's overhead, because a record of 2 MB may have a million empty headers.
    """
    value, key, headers = record.value, record.key, record.headers
    size = (len(value) if value else 0) + (len(key) if key else 0)
    if headers:
        for name, header in headers:
            size += _HEADER_OVERHEAD_BYTES + len(name if name.isascii() else name.encode()) + len(header or b"")
    return size


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


# --- results of one HTTP exchange with the scoring API


@dataclass(frozen=True, slots=True)
class RateLimitHeaders:
    """The ``inin-ratelimit-*`` headers of one response: requests counted, requests allowed, seconds until the reset."""

    count: int
    allowed: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Exchange:
    """The facts of one HTTP exchange. Times are Unix milliseconds, UTC; ``latency_ms`` is monotonic.

    ``earlier``: the exchange before it in the same attempt, whose token was rejected. ``error_text``: free text of the
    error body, without secrets and without the request's ids and values; for logs at `debug` only.
    """

    started_at_ms: int
    finished_at_ms: int
    latency_ms: float
    status: int | None = None
    correlation_id: str | None = None
    quota: RateLimitHeaders | None = None
    earlier: Exchange | None = None
    error_text: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """2xx with the expected JSON: the items of ``results``, not validated."""

    exchange: Exchange
    results: list[Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """400 or 422. ``named``: the ids in ``details[].entityId``; empty if the body has none."""

    exchange: Exchange
    named: frozenset[str]
    message: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """413."""

    exchange: Exchange
    message: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """404: the model, or the model version that was sent. ``model_missing``: it is certain that it is the model.

    ``platform_error``: the body is the platform's own error, so the response is not from a gateway or proxy.
    """

    exchange: Exchange
    message: str
    model_missing: bool = False
    platform_error: bool = False


class HttpFailure(StrEnum):
    """Kind of a transient failure.

    ``NO_TOKEN``: the login service failed, so nothing was sent to the score endpoint.
    """

    RATE_LIMITED = "rate_limited"
    NO_CONNECTION = "no_connection"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    MALFORMED = "malformed"
    CUT_OFF = "cut_off"
    NO_TOKEN = "no_token"  # noqa: S105 - a name  # nosec B105


@dataclass(frozen=True, slots=True)
class Unavailable:
    """408, 429, 5xx, no connection, time-out, or a 2xx without the expected JSON; also of the token endpoint.

    ``ignored_retry_after``: a ``Retry-After`` that is not obeyed, one line; empty: there was none.
    """

    exchange: Exchange
    failure: HttpFailure
    message: str
    retry_after_s: float | None = None
    ignored_retry_after: str = ""


@dataclass(frozen=True, slots=True)
class Unexpected:
    """3xx, or a 4xx that nothing above covers: its meaning is unknown, so the circuit breaker opens and names it."""

    exchange: Exchange
    message: str


@dataclass(frozen=True, slots=True)
class Forbidden:
    """401 with a new token, 403, or the token endpoint's 400 or 401: the worker stops. ``message``: what to check.

    ``platform_error``: the body is the platform's own error, so the response is not from a gateway or proxy.
    """

    exchange: Exchange
    message: str
    platform_error: bool = False


ApiResponse: TypeAlias = Answered | Refused | TooLarge | NotFound | Unavailable | Unexpected | Forbidden
