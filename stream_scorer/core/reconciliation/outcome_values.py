"""Comparison of outputs with their input and audit entry, by digests of 64 bits.

An input, its output and its audit entry are read at different times, and there may be millions of each. So only digests
of every record are kept. A digest is Python's own hash: it is only compared within one process. Some words have two
digests of 40 and 24 bits, so that a finding can name the part that differs. 0: nothing to compare.

Values are personal data. A finding names fields, never their content.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.core.audit.events import audited_id
from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.avro.confluent import schema_id_of
from stream_scorer.core.scoring.response_match import Verifier
from stream_scorer.core.scoring.types import ReviewReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.scoring.contact_decoder import ContactDecoder

_three_doubles: Final = Struct("<ddd").pack
_LOW_BITS: Final = 24
_LOW: Final = (1 << _LOW_BITS) - 1
_HIGH: Final = (1 << 63) - 1 & ~_LOW
_WORD: Final = (1 << 63) - 1
_HALF: Final = (1 << 32) - 1
_BATCH_FIELDS: Final = ("batch_id", "model_id", "model_version")
_UNREADABLE: Final = -1
_NULL: Final = hash("stream_scorer: no bytes at all")
# With any settings of the worker, these send a score to review.
_RULES: Final = Verifier(min_interval_width=0.0)
_ALWAYS_REVIEWED: Final = frozenset({ReviewReason.SCORE_OUT_OF_RANGE.value, ReviewReason.INTERVAL_INCONSISTENT.value})


class Codecs(NamedTuple):
    """Codecs of ``ContactFeatures``, ``ContactScore`` and ``BatchAudit``."""

    contact: Codec
    score: Codec
    audit: Codec


class Content(NamedTuple):
    """The compared parts of a record.

    Attributes:
        key: the record's key.
        value: its value.
        reason: its header ``stream-scorer-error-reason``; empty if it has none.
        truncated: it has the header ``stream-scorer-error-truncated``, so its value is null.
    """

    key: bytes | None
    value: bytes | None
    reason: str = ""
    truncated: bool = False


class InputDigest(NamedTuple):
    """Digests of an input.

    Attributes:
        contact: its contact id in the form of an audit entry, above 0; -1: the value is undecodable; 0: unknown.
        event: event id, campaign, time and attributes of the event.
        version: the model version of the event; 0: none.
        payload: value and key.
    """

    contact: int
    event: int
    version: int
    payload: int


class OutputDigest(NamedTuple):
    """Digest of an output for the comparison with its audit entry, and its violations.

    Attributes:
        word: for `differences`; 0: nothing to compare.
        unreadable: why its value is undecodable; empty: it is decodable.
        wrong: one sentence for each comparison that failed.
    """

    word: int
    unreadable: str = ""
    wrong: tuple[str, ...] = ()


def digest_input(decoder: ContactDecoder, content: Content) -> InputDigest:
    """Return the digests of a record of the features topic."""
    value = content.value
    payload = payload_digest(content)
    try:
        event = decoder.decode(value)
    except UndecodableError:
        # The registry may have had the schema when the worker read the record.
        return InputDigest(_UNREADABLE if schema_id_of(value) is None else 0, 0, 0, payload)
    return InputDigest(
        contact_digest(event.contact_id),
        _event_word(event.event_id, event.campaign_id, event.occurred_at_ms, event.attributes),
        0 if event.model_version is None else _version(event.model_version),
        payload,
    )


def digest_score(codec: Codec, content: Content, known: InputDigest | None, *, is_review: bool | None) -> OutputDigest:
    """Compare a record of the scores or review topic with its input.

    Args:
        codec: of ``ContactScore``.
        content: the record.
        known: its input; None: it is not in the log.
        is_review: it is on the review topic; None: it was accepted, so any numbers are allowed on the scores topic.
    """
    try:
        fields = codec.decode(content.value)
    except UndecodableError as error:
        return OutputDigest(0, unreadable=str(error))
    wrong = []
    contact_id = fields["contact_id"]
    if content.key != contact_id.encode():
        wrong.append("its key is not its contact_id")
    if known is not None:
        wrong += _input_differences(fields, known)
    wrong += _misplaced(fields, is_review=is_review)
    numbers = fields["score"], fields["confidence_lower"], fields["confidence_upper"]
    latency_ms, at_ms = fields["latency_ms"], fields["scored_at"]
    word = _outcome_word(numbers, fields, fields["review_reasons"], latency_ms, at_ms)
    return OutputDigest(word, wrong=tuple(wrong))


def digest_rejection(content: Content, known: InputDigest | None) -> OutputDigest:
    """Compare a record of the rejected topic with its input: key and value are the input's, byte for byte."""
    wrong = []
    if content.truncated:
        if content.value is not None:
            wrong.append("it is marked as truncated and has a value")
        elif known is not None and content.key is not None and _of(content.key) & _LOW != known.payload & _LOW:
            wrong.append("its key is not that of the input")
    elif known is not None:
        payload = _word(_of(content.value), _of(content.key))
        if is_other_value(payload, known.payload):
            wrong.append("its value is not that of the input")
        if is_other_key(payload, known.payload):
            wrong.append("its key is not that of the input")
    return OutputDigest(_rejection_word(content.reason), wrong=tuple(wrong))


def payload_digest(content: Content) -> int:
    """Return the digest of key and value of a record, byte for byte."""
    return _word(_of(content.value), _of(content.key))


def is_other_payload(content: Content, known: InputDigest) -> bool:
    """Return whether key or value of a record of a retry topic differ from those of its input."""
    return payload_digest(content) != known.payload


def is_other_value(one: int, other: int) -> bool:
    """Return whether two digests of `payload_digest` are those of other values."""
    return bool((one ^ other) & _HIGH)


def is_other_key(one: int, other: int) -> bool:
    """Return whether two digests of `payload_digest` are those of other keys."""
    return bool((one ^ other) & _LOW)


def digest_entry(event: Mapping[str, Any], entry: Mapping[str, Any]) -> int:
    """Return the word of an audit entry, to be compared with that of its output."""
    reasons = entry["reasons"]
    if entry["outcome"] == "REJECTED":
        return _rejection_word(reasons[0] if reasons else "")
    numbers = entry["score"], entry["confidence_lower"], entry["confidence_upper"]
    if None in numbers:
        numbers = 0.0, 0.0, -1.0  # none: equal to no output's, and never 0
    shared = {**entry, **{name: event[name] for name in _BATCH_FIELDS}}
    return _outcome_word(numbers, shared, reasons, event["latency_ms"] or 0.0, event["finished_at"])


def is_other_contact(entry: Mapping[str, Any], known: InputDigest) -> bool:
    """Return whether an audit entry has another contact than its input."""
    contact_id = entry["contact_id"]
    if known.contact <= 0 or (not contact_id and entry["outcome"] == "REJECTED"):
        return False  # a record that was not decoded has none
    return contact_digest(contact_id) != known.contact


def differences(output: int, audit: int, *, rejected: bool) -> str:
    """Return the differences between the words of an output and of its audit entry; empty: none."""
    if not (output and audit) or output == audit:
        return ""
    if rejected:
        return "the reason"
    parts = []
    if (output ^ audit) & _HIGH:
        parts.append("score or bounds")
    if (output ^ audit) & _LOW:
        parts.append("reasons, imputed features, batch, model or times")
    return " and ".join(parts)


def is_other_score(one: int, other: int) -> bool:
    """Return whether two words of `digest_score` are those of other scores or bounds."""
    return bool(one and other and (one ^ other) & _HIGH)


def contact_digest(contact_id: str) -> int:
    """Return the digest of a contact id in the form of an audit entry; never 0."""
    return hash(audited_id(contact_id)) & _WORD or 1


def key_digest(key: bytes | None) -> int:
    """Return the `contact_digest` of the contact id in a record's key."""
    return contact_digest((key or b"").decode(errors="replace"))


def _input_differences(fields: Mapping[str, Any], known: InputDigest) -> list[str]:
    if not known.contact:
        return []
    if known.contact == _UNREADABLE:
        return ["its input is not readable, so it cannot have a score"]
    names = []
    if contact_digest(fields["contact_id"]) != known.contact:
        names.append("contact_id")
    event = _event_word(fields["event_id"], fields["campaign_id"], fields["occurred_at"], fields["attributes"])
    if (event ^ known.event) & _HIGH:
        names.append("event_id")
    if (event ^ known.event) & _LOW:
        names.append("campaign_id, occurred_at or attributes")
    if known.version and known.version != _version(fields["model_version"]):
        names.append("model_version")
    return [f"not that of its input: {', '.join(names)}"] if names else []


def _event_word(event_id: str, campaign_id: str | None, at_ms: int, attributes: Mapping[str, str]) -> int:
    return _word(hash(event_id), hash((campaign_id, at_ms, frozenset(attributes.items()))))


def _misplaced(fields: Mapping[str, Any], *, is_review: bool | None) -> list[str]:
    reasons = fields["review_reasons"]
    if is_review:
        return [] if reasons else ["it stands in review without review_reasons"]
    if reasons:
        return ["it has review_reasons and does not stand in review"]
    if is_review is None:
        return []
    odd = _RULES.review_reasons(fields["score"], fields["confidence_lower"], fields["confidence_upper"])
    return ["its score or bounds have to stand in review"] if _ALWAYS_REVIEWED.intersection(odd) else []


def _outcome_word(
    numbers: tuple[float, float, float], fields: Mapping[str, Any], reasons: Any, latency_ms: float, at_ms: int
) -> int:
    shared = *(fields[name] for name in _BATCH_FIELDS), latency_ms, at_ms
    return _word(hash(_three_doubles(*numbers)), hash((*shared, *fields["imputed_features"], None, *reasons)))


def _version(model_version: str | None) -> int:
    return hash(model_version) & _HALF or 1


def _rejection_word(reason: str) -> int:
    return hash(reason) & _WORD or 1


def _word(high: int, low: int) -> int:
    """Return two digests in one word of 63 bits; never 0."""
    return (high << _LOW_BITS & _HIGH) | (low & _LOW) or 1


def _of(data: bytes | None) -> int:
    return _NULL if data is None else hash(data)
