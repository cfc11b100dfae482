"""Intake: decode, validate, impute and encode a record into a contact, or reject it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.avro.confluent import SchemaMissingError
from stream_scorer.core.avro.framing_detector import with_framing
from stream_scorer.core.retry_topics import state_of
from stream_scorer.core.scoring.contact_decoder import ContactDecoder
from stream_scorer.core.scoring.event_time import age_ms
from stream_scorer.core.scoring.types import Contact, Deferred, Reason, Rejected
from stream_scorer.core.text import truncated

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.core.scoring.features import ContactChecker
    from stream_scorer.core.scoring.types import FeatureValue

_MAX_DETAIL_CHARACTERS = 1_000
_MAX_VERSION_BYTES = 256


class Intake:
    """Decoder and validator of single records.

    Args:
        codec: decodes ``ContactFeatures``.
        checker: the rules of contract section 5 that need no API.
        encode: the JSON of a contact in a request.
        fits: whether a contact alone stays within the request limit.
        model_version: the version to request if the event has none.
        on_missing_schema: returns the outcome of a record whose schema is missing in the registry, from the reason in
            one sentence; None: the record is rejected.
    """

    def __init__(
        self,
        *,
        codec: Codec,
        checker: ContactChecker,
        encode: Callable[[str, dict[str, FeatureValue]], bytes],
        fits: Callable[[Contact], bool],
        model_version: str | None,
        on_missing_schema: Callable[[SourceRecord, str], Rejected | Deferred] | None = None,
    ) -> None:
        self._decoder = ContactDecoder(codec)
        self._checker = checker
        self._encode = encode
        self._fits = fits
        self._model_version = model_version
        self._on_missing_schema = on_missing_schema

    def examine(self, record: SourceRecord, now_ms: int) -> Contact | Rejected | Deferred:
        """Return the valid, complete contact of a record, or its rejection or deferral."""
        if not record.headers_readable:
            detail = "a header's name is not UTF-8, so the headers cannot be passed on"
            return _reject(record, "", [(Reason.UNDECODABLE, detail)], now_ms)
        try:
            event = self._decoder.decode(record.value)
        except UndecodableError as error:
            return self._undecodable(record, error, now_ms)
        age = None
        if self._checker.checks_age and not record.origin:  # that of an event that was accepted before is not
            age = age_ms(event.occurred_at_ms, written_ms=record.timestamp_ms, now_ms=now_ms)
        checked = self._checker.check(event, age)
        if isinstance(checked, list):
            return _reject(record, event.contact_id, checked, now_ms, event.event_id)
        features, imputed = checked
        version = event.model_version
        if version is not None and not 0 < len(version.encode()) <= _MAX_VERSION_BYTES:
            detail = f"the event's model_version must have 1 to {_MAX_VERSION_BYTES} bytes of UTF-8, or be null"
            failures = [(Reason.UNKNOWN_MODEL_VERSION, detail)]
            return _reject(record, event.contact_id, failures, now_ms, event.event_id)
        contact = Contact(
            record,
            event.event_id,
            event.contact_id,
            event.campaign_id,
            event.occurred_at_ms,
            self._model_version if version is None else version,
            version is not None,
            imputed,
            self._encode(event.contact_id, features),
            attributes=event.attributes,
        )
        if record.origin:
            state = state_of(record)
            contact = contact._replace(rounds=state.rounds, held=state.held)
        if not self._fits(contact):
            detail = f"a request with this contact alone ({len(contact.body)} bytes) is over scoring.max_request_bytes"
            return _reject(record, event.contact_id, [(Reason.TOO_LARGE, detail)], now_ms, event.event_id)
        return contact

    def _undecodable(self, record: SourceRecord, error: UndecodableError, now_ms: int) -> Rejected | Deferred:
        if isinstance(error, SchemaMissingError) and self._on_missing_schema is not None:
            return self._on_missing_schema(record, str(error))
        return _reject(record, "", [(Reason.UNDECODABLE, with_framing(error, record.headers))], now_ms)


def _reject(
    record: SourceRecord, contact_id: str, failures: list[tuple[Reason, str]], now_ms: int, event_id: str = ""
) -> Rejected:
    reasons = tuple(dict.fromkeys(reason.value for reason, _ in failures))
    detail = truncated("; ".join(detail for _, detail in failures), _MAX_DETAIL_CHARACTERS)
    return Rejected(record, reasons, detail, contact_id, now_ms, event_id=event_id)
