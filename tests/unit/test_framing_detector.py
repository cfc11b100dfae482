"""Values in framings of other serializers: undecodable, and the reason names the framing and the remedy."""

from __future__ import annotations

import base64
import gzip
import io
import json
import uuid
from typing import TYPE_CHECKING, Any

import fastavro
import pytest
from confluent_kafka.schema_registry import header_schema_id_serializer
from confluent_kafka.schema_registry.serde import SchemaId
from confluent_kafka.serialization import MessageField, SerializationContext

from stream_scorer.callbacks.intake import CallbackIntake
from stream_scorer.core.avro.codec import Codec, UndecodableError
from stream_scorer.core.avro.confluent import ConfluentCodec, confluent_header
from stream_scorer.core.callbacks.delivery_policy import DeliveryRules
from stream_scorer.core.callbacks.selection import Invalid
from stream_scorer.core.records import Reason, Rejected, SourceRecord
from stream_scorer.core.scoring.feature_types import Feature
from stream_scorer.core.scoring.features import ContactChecker, FeatureList
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.scoring.intake import Intake

if TYPE_CHECKING:
    from stream_scorer.core.records import Headers

FEATURES = load_schema(SchemaFile.CONTACT_FEATURES)
CONTACT: dict[str, Any] = {
    "event_id": "0f3c1f9e-5a8e-4c34-a111-1a2b3c4d5e6f",
    "contact_id": "c-1",
    "features": {"calls": 3},
    "occurred_at": 1_790_000_000_000,
    "campaign_id": None,
    "model_version": None,
}
SINGLE = Codec.single_object(FEATURES)
VALUE, BODY = SINGLE.encode(CONTACT), SINGLE.encode_body(CONTACT)


def container() -> bytes:
    file = io.BytesIO()
    fastavro.writer(file, fastavro.parse_schema(FEATURES), [CONTACT])
    return file.getvalue()


FRAMINGS: dict[str, tuple[bytes, str]] = {
    "Apicurio": (
        b"\0" + (7).to_bytes(8, "big") + BODY,
        "begins with schema id 0, as ids of eight bytes do: for Apicurio",
    ),
    "Glue": (b"\x03\x00" + uuid.UUID(int=7).bytes + BODY, "is in the framing of AWS Glue: let the producer use"),
    "Glue, packed": (b"\x03\x05" + uuid.UUID(int=7).bytes + b"x\x9c", "is in the framing of AWS Glue"),
    "container file": (container(), "is an Avro container file: let the producer send each record"),
    "JSON": (json.dumps(CONTACT).encode(), "is JSON, not Avro: let the producer use an Avro serializer"),
    "JSON with a mark": (b"\xef\xbb\xbf " + json.dumps(CONTACT).encode(), "is JSON, not Avro"),
    "no header": (BODY, f"is a ContactFeatures without a header: let the producer write {VALUE[:10].hex()} before it"),
    "big endian": (b"\xc3\x01" + VALUE[9:1:-1] + BODY, "fingerprint of the value's schema is big endian: let the"),
    "base64 of an id": (
        base64.b64encode(confluent_header(7) + BODY),
        "is base64 text: let the producer send the bytes",
    ),
    "base64 of a fingerprint": (base64.b64encode(VALUE), "is base64 text"),
    "gzip": (gzip.compress(VALUE), "is compressed by its producer: set Kafka's compression.type"),
    "Java": (b"\xac\xed\x00\x05sr\x00\x10com.acme.Contact", "is a serialized Java object"),
    "XML": (b"<contact><id>c-1</id></contact>", "is XML or HTML, not Avro"),
}


@pytest.mark.parametrize("name", FRAMINGS)
def test_a_foreign_framing_is_named_with_the_remedy(name: str) -> None:
    value, problem = FRAMINGS[name]
    registry: dict[int, Any] = {}
    for codec in (SINGLE, ConfluentCodec.confluent(FEATURES, registry.__getitem__)):
        with pytest.raises(UndecodableError, match=problem) as caught:
            codec.decode(value)
        assert "c-1" not in str(caught.value)


@pytest.mark.parametrize(
    "value", [b"AAAA and more text", b"<" * 12, b"\x03\x07" + bytes(20), b"{" * 3, b"\x7fELF" + bytes(20)]
)
def test_what_only_begins_alike_is_undecodable_all_the_same(value: bytes) -> None:
    with pytest.raises(UndecodableError):
        SINGLE.decode(value)


def confluent_guid() -> tuple[bytes, Headers]:
    """Value and headers as confluent-kafka's own serializer writes them, with ids in headers."""
    headers: Headers = []
    context = SerializationContext("features", MessageField.VALUE, headers)
    guid = str(uuid.UUID(int=7))
    return header_schema_id_serializer(BODY, context, SchemaId("AVRO", 7, guid)), headers


HEADERS: dict[str, tuple[bytes, Headers, str]] = {
    "Confluent GUID": (
        *confluent_guid(),
        "stands in the header __value_schema_id, not before the value: let the producer",
    ),
    "Apicurio": (
        BODY,
        [("apicurio.value.globalId", (7).to_bytes(8, "big"))],
        "apicurio.registry.headers.enabled=false",
    ),
    "Azure": (
        BODY,
        [("content-type", b"avro/binary+" + b"f" * 32)],
        "stands in the header content-type of Azure, not",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_an_id_in_a_header_is_named_in_the_rejection(name: str) -> None:
    value, headers, problem = HEADERS[name]
    record = SourceRecord("features", 0, 0, b"c", value, headers)
    intake = Intake(
        codec=SINGLE,
        checker=ContactChecker(FeatureList([Feature("calls", "integer")])),
        encode=lambda _contact_id, _features: b"{}",
        fits=lambda _contact: True,
        model_version=None,
    )
    rejected = intake.examine(record, 0)
    assert isinstance(rejected, Rejected)
    assert rejected.reasons == (Reason.UNDECODABLE,)
    assert problem in rejected.detail
    assert rejected.detail.isascii()
    callbacks = CallbackIntake(
        Codec.single_object(load_schema(SchemaFile.CAMPAIGN_CALLBACK)), {}, DeliveryRules((60.0,))
    )
    unusable = callbacks.examine(record, 0)
    assert isinstance(unusable, Invalid)
    assert problem in unusable.detail


def test_a_good_value_needs_no_header() -> None:
    value, headers, _ = HEADERS["Confluent GUID"]
    assert value == BODY
    assert headers[0][0] == "__value_schema_id"
    assert SINGLE.decode(VALUE)["contact_id"] == "c-1"


def test_an_enum_for_text_is_named() -> None:
    kind = {"type": "enum", "name": "Campaign", "symbols": ["SPRING", "FALL"]}
    for wanted, problem in (
        (kind, r"campaign_id enum Campaign is in no branch of \[null, string\]"),
        (["null", kind], r"campaign_id may be enum Campaign, which \[null, string\] cannot take"),
    ):
        fields = [{**one, "type": wanted} if one["name"] == "campaign_id" else one for one in FEATURES["fields"]]
        body = io.BytesIO()
        written = {**FEATURES, "fields": [{k: v for k, v in one.items() if k != "default"} for one in fields]}
        fastavro.schemaless_writer(body, fastavro.parse_schema(written), {**CONTACT, "campaign_id": "SPRING"})
        codec = ConfluentCodec.confluent(FEATURES, {9: written}.__getitem__)
        with pytest.raises(UndecodableError, match=problem):
            codec.decode(confluent_header(9) + body.getvalue())
