"""Encoder of scores: byte-identical to the codec and readable by fastavro."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.records import SourceRecord
from stream_scorer.core.scoring.score_encoder import ScoreEncoder
from stream_scorer.core.scoring.types import Contact, RequestAudit, Scored
from stream_scorer.errors import SettingsError
from stream_scorer.schema_files import SchemaFile, load_schema

SCHEMA = load_schema(SchemaFile.CONTACT_SCORE)
CODEC = Codec.single_object(SCHEMA)
TEXTS = st.text(max_size=80)
NUMBERS = st.floats(allow_nan=False)
# A varint grows by a byte at these, and present times have a code path of their own.
EDGES = [value + step for value in (0, 2**13, 2**34, 2**41) for step in (-1, 0, 1)]
TIMES = st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1)
REQUESTS = st.builds(
    RequestAudit,
    batch_id=TEXTS,
    model_id=TEXTS,
    model_version=st.none() | TEXTS,
    request_contacts=st.just(2),
    started_at_ms=st.just(0),
    finished_at_ms=TIMES,
    latency_ms=st.none() | NUMBERS,
    attempts=st.just(1),
    api_status=st.just(200),
    correlation_id=st.none(),
)
CONTACTS = st.builds(
    Contact,
    record=st.just(SourceRecord("contact-features", 0, 7, None, b"", [])),
    event_id=TEXTS,
    contact_id=TEXTS,
    campaign_id=st.none() | TEXTS,
    occurred_at_ms=TIMES,
    model_version=st.none(),
    version_from_event=st.just(False),
    imputed_features=st.lists(TEXTS, max_size=3).map(tuple),
    body=st.just(b""),
    attributes=st.dictionaries(TEXTS, TEXTS, max_size=3),
)
REASONS = st.lists(st.sampled_from(["narrow_interval", "score_out_of_range"]), max_size=2).map(tuple)


def fields_of(scored: Scored) -> dict[str, Any]:
    contact, request = scored.contact, scored.request
    return {
        "event_id": contact.event_id,
        "contact_id": contact.contact_id,
        "campaign_id": contact.campaign_id,
        "model_id": request.model_id,
        "model_version": request.model_version,
        "score": scored.score,
        "confidence_lower": scored.confidence_lower,
        "confidence_upper": scored.confidence_upper,
        "latency_ms": request.latency_ms or 0.0,
        "occurred_at": contact.occurred_at_ms,
        "scored_at": request.finished_at_ms,
        "imputed_features": list(contact.imputed_features),
        "batch_id": request.batch_id,
        "review_reasons": list(scored.review_reasons),
        "attributes": contact.attributes,
    }


@settings(max_examples=200, deadline=None)
@given(
    requests=st.lists(REQUESTS, min_size=2, max_size=2),
    contacts=st.lists(CONTACTS, min_size=3, max_size=3),
    numbers=st.tuples(NUMBERS, NUMBERS, NUMBERS),
    reasons=REASONS,
)
def test_every_score_is_what_the_codec_writes(
    requests: list[RequestAudit],
    contacts: list[Contact],
    numbers: tuple[float, float, float],
    reasons: tuple[str, ...],
) -> None:
    writer = ScoreEncoder(CODEC)
    for contact in contacts:
        for request in requests:  # they alternate, so that no state of one is reused for the other
            scored = Scored(contact, request, *numbers, reasons)
            value = writer.encode(scored)
            assert value == CODEC.encode(fields_of(scored))
            assert CODEC.decode(value) == fields_of(scored)


def test_a_schema_with_other_fields_is_refused_when_the_writer_is_made() -> None:
    more = {**SCHEMA, "fields": [*SCHEMA["fields"], {"name": "more", "type": "string"}]}
    with pytest.raises(SettingsError, match="has other fields"):
        ScoreEncoder(Codec.single_object(more))
