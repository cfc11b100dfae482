"""Values of the callback topics: encoding of own records, decoding and validation of foreign ones.

The names of the fields are those of the schemas (``contact-score``, ``campaign-callback``, ``callback-receipt``); the
bytes are `stream_scorer.core.avro.codec.Codec`'s.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING, Any, Final

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.callbacks.types import Callback, CallbackOutcome, Score
from stream_scorer.core.desk.decisions import DECIDED_AT_HEADER, DECISION_HEADER
from stream_scorer.core.retry_topics import parse_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.records import Headers, SourceRecord

# A private namespace: the ids of callbacks collide with no other UUIDv5.
_NAMESPACE: Final = bytes.fromhex("6f1f1f0e6c0e5f0b9a550d3c9b0c7d11")
# On the callbacks topic and the retry topics: the schema of callbacks has no field for it.
THRESHOLD_HEADER: Final = "stream-scorer-threshold"
# `true`: an attempt got no response, so a later 409 means that the receiver has the callback; `maybe`: a former owner
# may have made such an attempt.
UNANSWERED_HEADER: Final = "stream-scorer-unanswered"
_DECISION_HEADERS: Final = frozenset({DECISION_HEADER, DECIDED_AT_HEADER})
_NUMBER: Final = re.compile(rb"[0-9]{1,3}(\.[0-9]{1,20})?(e-[0-9]{1,3})?")
_MAX_TIME_DIGITS: Final = 15
_NUMBERS: Final = ("score", "confidence_lower", "confidence_upper")


def callback_id_of(sources: Sequence[str], topic_id: str | None = None) -> str:
    """Return the id of the callback for these sources (``topic/partition/offset``): a UUIDv5 of them, in order.

    ``topic_id``: of their topic, part of the name. A topic that was created again has other scores at the same offsets,
    and receivers drop ids that they have already received. None: the brokers return none. A topic's name has no line
    break, so different sources never have the same text.
    """
    name = "\n".join(sources if topic_id is None else [*sources, topic_id])
    named = bytearray(hashlib.sha1(_NAMESPACE + name.encode(), usedforsecurity=False).digest()[:16])
    named[6] = named[6] & 0x0F | 0x50  # the version
    named[8] = named[8] & 0x3F | 0x80  # the variant
    text = named.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def read_score(codec: Codec, record: SourceRecord) -> Score | None:
    """Decode a ``ContactScore``; None for a score in review, which causes no callback.

    Raises:
        UndecodableError: the value is no ``ContactScore``, or has a number that is not finite.
    """
    fields = codec.decode(record.value)
    if fields["review_reasons"]:
        return None
    for name in _NUMBERS:
        if not math.isfinite(fields[name]):
            raise UndecodableError(f"the ContactScore has no finite number as its {name}")
    return Score(
        record=record,
        event_id=fields["event_id"],
        contact_id=fields["contact_id"],
        campaign_id=fields["campaign_id"],
        model_id=fields["model_id"],
        model_version=fields["model_version"],
        score=fields["score"],
        confidence_lower=fields["confidence_lower"],
        confidence_upper=fields["confidence_upper"],
        occurred_at_ms=fields["occurred_at"],
        scored_at_ms=fields["scored_at"],
        attributes=fields["attributes"],
        latency_ms=fields["latency_ms"],
        imputed_features=tuple(fields["imputed_features"]),
        batch_id=fields["batch_id"],
    )


def age_begins_ms(score: Score) -> int:
    """Return the time from which the age of a score counts: an accepted one may have been in review for days."""
    for name, value in score.record.headers:
        if name == DECIDED_AT_HEADER:
            return max(score.scored_at_ms, parse_number(value, _MAX_TIME_DIGITS) or 0)
    return score.scored_at_ms


def callback_value(callback: Callback) -> dict[str, Any]:
    """Return the ``CampaignCallback`` to be encoded."""
    return {
        "callback_id": callback.callback_id,
        "campaign_id": callback.campaign_id,
        "target": callback.target,
        "body": callback.body,
        "sources": callback.sources,
        "event_ids": callback.event_ids,
        "contact_ids": callback.contact_ids,
        "planned_at": callback.planned_at_ms,
        "attempts": callback.attempts,
        "not_before": callback.not_before_ms,
    }


def read_callback(codec: Codec, record: SourceRecord) -> Callback:
    """Decode a ``CampaignCallback``.

    Raises:
        UndecodableError: the value is no ``CampaignCallback``.
    """
    fields = codec.decode(record.value)
    return Callback(
        callback_id=fields["callback_id"],
        campaign_id=fields["campaign_id"],
        target=fields["target"],
        body=fields["body"],
        sources=tuple(fields["sources"]),
        event_ids=tuple(fields["event_ids"]),
        contact_ids=tuple(fields["contact_ids"]),
        planned_at_ms=fields["planned_at"],
        attempts=fields["attempts"],
        not_before_ms=fields["not_before"],
        threshold=_threshold(record),
    )


def threshold_headers(callback: Callback) -> Headers:
    """Return the header with the threshold of planning, if it is known."""
    return [] if callback.threshold is None else [(THRESHOLD_HEADER, repr(callback.threshold).encode())]


def decision_headers(headers: Headers) -> Headers:
    """Return the headers of the decision to deliver a callback again; all its later records repeat them."""
    return [one for one in headers if one[0] in _DECISION_HEADERS]


def unanswered_headers(*, is_unanswered: bool, may_be_repeat: bool) -> Headers:
    """Return the header about attempts without a response, if there may be some."""
    if not (is_unanswered or may_be_repeat):
        return []
    return [(UNANSWERED_HEADER, b"true" if is_unanswered else b"maybe")]


def _threshold(record: SourceRecord) -> float | None:
    for name, value in record.headers:
        if name == THRESHOLD_HEADER and value is not None and _NUMBER.fullmatch(value):
            return float(value)
    return None


def receipt_value(
    callback: Callback,
    outcome: CallbackOutcome,
    *,
    finished_at_ms: int,
    http_status: int | None = None,
    latency_ms: float = 0.0,
) -> dict[str, Any]:
    """Return the ``CallbackReceipt`` to be encoded; status and latency are those of the last attempt."""
    return {
        "callback_id": callback.callback_id,
        "campaign_id": callback.campaign_id,
        "target": callback.target,
        "sources": callback.sources,
        "event_ids": callback.event_ids,
        "contact_ids": callback.contact_ids,
        "outcome": outcome.value,
        "attempts": callback.attempts,
        "http_status": http_status,
        "finished_at": finished_at_ms,
        "latency_ms": latency_ms,
        "threshold": callback.threshold,
    }
