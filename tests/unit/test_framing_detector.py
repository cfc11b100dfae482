"""Values in framings of other serializers: undecodable, and the reason names the framing and the remedy."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import uuid
import zlib
from typing import TYPE_CHECKING, Any

import fastavro
import pytest
from confluent_kafka.schema_registry import header_schema_id_serializer
from confluent_kafka.schema_registry.serde import SchemaId
from confluent_kafka.serialization import MessageField, SerializationContext
from support_fuzz import varint

from stream_scorer.callbacks.intake import CallbackIntake
from stream_scorer.core.avro.codec import Codec, UndecodableError
from stream_scorer.core.avro.confluent import ConfluentCodec, confluent_header
from stream_scorer.core.avro.framing_detector import framing_of
from stream_scorer.core.callbacks.retry_policy import DeliveryRules
from stream_scorer.core.callbacks.selection import Invalid
from stream_scorer.core.records import SourceRecord
from stream_scorer.core.scoring.feature_types import Feature
from stream_scorer.core.scoring.features import ContactChecker, FeatureList
from stream_scorer.core.scoring.types import Reason, Rejected
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
    "attributes": {},
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
    "zlib": (zlib.compress(VALUE), "is compressed by its producer: set Kafka's compression.type there instead of zlib"),
    "zlib, fast": (zlib.compress(BODY, 1), "instead of zlib"),
    "bzip2": (bz2.compress(VALUE), "instead of bzip2"),
    "xz": (lzma.compress(VALUE), "instead of xz"),
    "zstd": (b"\x28\xb5\x2f\xfd\x20\x42" + VALUE, "instead of zstd"),
    "lz4": (b"\x04\x22\x4d\x18\x64\x40\xa7" + VALUE, "instead of lz4"),
    "lz4 of Java": (b"LZ4Block\x16" + VALUE, "instead of lz4"),
    "snappy frame": (b"\xff\x06\0\0sNaPpY\x01" + VALUE, "instead of snappy"),
    "snappy of Java": (b"\x82SNAPPY\0\0\0\0\x01" + VALUE, "instead of snappy"),
    "snappy block": (bytes([len(VALUE), 0xF0, len(VALUE) - 1]) + VALUE, "instead of snappy"),
    "snappy block of an id": (bytes([0x85, 0x01, 0x3C]) + confluent_header(7) + BODY, "instead of snappy"),
    "JSON in text": (json.dumps(json.dumps(CONTACT)).encode(), "is JSON, not Avro"),
    "short JSON": (b'{"a":1}', "is JSON, not Avro"),
    "JSON in UTF-16": (json.dumps(CONTACT).encode("utf-16"), "is UTF-16 text, not Avro"),
    "XML with a mark": (b"\xef\xbb\xbf<?xml version='1.0'?>\n<id>c-1</id>\n", "is XML or HTML, not Avro"),
    "XML with white space": (b"\r\n  <contact id='c-1'/>", "is XML or HTML, not Avro"),
    "XML in UTF-16": ("\ufeff<contact id='c-1'/>".encode("utf-16-be"), "is UTF-16 text, not Avro"),
    "CSV": (b"c-1,2026-11-30T10:00:00Z,3\r\n", "is text, not Avro: let the producer use an Avro serializer"),
    "hexadecimal": (VALUE.hex().encode(), "is hexadecimal text: let the producer send the bytes"),
    "hexadecimal of PostgreSQL": (b"\\x" + (confluent_header(7) + BODY).hex().upper().encode(), "is hexadecimal text"),
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
def test_a_value_that_only_starts_like_a_framing_is_undecodable(value: bytes) -> None:
    with pytest.raises(UndecodableError):
        SINGLE.decode(value)


ONCE = "after its header stands another one: let the producer serialize the value once"
INSIDE: dict[str, tuple[bytes, str]] = {
    "Confluent in Confluent": (confluent_header(9) + confluent_header(9) + BODY, ONCE),
    "Confluent of another id": (confluent_header(9) + confluent_header(8) + BODY, ONCE),
    "Confluent in single object": (VALUE[:10] + confluent_header(9) + BODY, ONCE),
    "single object twice": (VALUE[:10] + VALUE[:10] + BODY, ONCE),
    "single object in Confluent": (confluent_header(9) + VALUE, ONCE),
    # A serializer for bytes, after that for records: with their length (Python), and without (Java).
    "as bytes": (confluent_header(8) + confluent_header(9) + BODY, ONCE),
    "as bytes with a length": (confluent_header(8) + varint(len(VALUE)) + VALUE, ONCE),
    "single object as bytes": (confluent_header(8) + VALUE, ONCE),
    "gzip": (confluent_header(9) + gzip.compress(BODY), "what follows its header is compressed by its producer"),
    "zlib": (VALUE[:10] + zlib.compress(BODY), "compression.type there instead of zlib"),
    "JSON": (confluent_header(9) + json.dumps(CONTACT).encode(), "what follows its header is JSON, not Avro"),
    "XML": (VALUE[:10] + b"<contact id='c-1'/>", "what follows its header is XML or HTML"),
    "JSON as bytes": (confluent_header(8) + json.dumps(CONTACT).encode(), "what follows its header is JSON"),
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_framing_inside_a_framing_is_named_with_the_remedy(name: str) -> None:
    value, problem = INSIDE[name]

    def writer_of(schema_id: int) -> Any:
        if schema_id == 8:  # as the schema fetcher refuses Avro's type bytes
            raise UndecodableError("the value was written with schema id 8, which is no record")
        return FEATURES

    with pytest.raises(UndecodableError, match=problem) as caught:
        ConfluentCodec.confluent(FEATURES, writer_of, schema_id=9).decode(value)
    assert "c-1" not in str(caught.value)
    assert str(caught.value).isascii()


@pytest.mark.parametrize("event_id", ["e" * 30, "e" * 17, "e" * 36])
def test_a_truncated_value_names_no_other_framing(event_id: str) -> None:
    """A contact whose event id has 30 bytes begins with ``<``, one with 17 bytes with a quotation mark."""
    value = SINGLE.encode({**CONTACT, "event_id": event_id})
    for end in range(10, len(value)):
        with pytest.raises(UndecodableError, match=r"(too early|out of range)$"):
            SINGLE.decode(value[:end])


@pytest.mark.timeout(60)  # a backtracking pattern would take hours
@pytest.mark.parametrize(
    ("hostile", "framing"),
    [(b" " * 1_000_000 + b"\0", None), (b"<" + b"> " * 500_000, "XML or HTML"), (b"00" * 500_000 + b"x", "text")],
)
def test_a_long_value_is_read_once(hostile: bytes, framing: str | None) -> None:
    named = framing and f"is {framing}, not Avro: let the producer use an Avro serializer"
    assert framing_of(hostile) == named


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
        Codec.single_object(load_schema(SchemaFile.CAMPAIGN_CALLBACK)), {}, DeliveryRules((60.0,)), 0
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
