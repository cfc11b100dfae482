"""The fast path of the decoder against fastavro: equal values, and no value that fastavro rejects."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_scorer.core.avro.codec import Codec, UndecodableError
from stream_scorer.core.avro.confluent import ConfluentCodec, confluent_header
from stream_scorer.core.scoring.contact_decoder import _NO_ATTRIBUTES, ContactDecoder, decode_fast_path
from stream_scorer.schema_files import SchemaFile, load_schema, released_schemas

SCHEMA = load_schema(SchemaFile.CONTACT_FEATURES)
CODEC = Codec.single_object(SCHEMA)
START = len(CODEC.header)
CONTACT: dict[str, Any] = {
    "event_id": "e-1",
    "contact_id": "BANK-00001",
    "features": {"calls": 3, "time": 261.5, "days": None, "known": True, "unknown": False, "job": "retraité"},
    "occurred_at": 1_700_000_000_123,
    "campaign_id": None,
    "model_version": "v2",
    "attributes": {"phone": "+49 170 5550100", "note": "é"},
}
SHORT = st.text("ab \0\x7fé€\U0001f600", max_size=15)
LONG_NUMBERS = st.integers(-(2**63), 2**63 - 1)
VALUES = st.none() | st.booleans() | st.integers(-200, 200) | LONG_NUMBERS | st.floats(allow_nan=False) | SHORT
CONTACTS = st.fixed_dictionaries(
    {
        "event_id": SHORT,
        "contact_id": SHORT,
        "features": st.dictionaries(SHORT, VALUES, max_size=6),
        # Numbers of six bytes have a code path of their own.
        "occurred_at": LONG_NUMBERS | st.integers(2**33, 2**42) | st.integers(-(2**42), -(2**33)),
        "campaign_id": st.none() | SHORT,
        "model_version": st.none() | SHORT,
        "attributes": st.dictionaries(SHORT, SHORT, max_size=4),
    }
)


def by_fastavro(value: bytes) -> tuple[Any, ...] | None:
    try:
        return tuple(CODEC.decode(value).values())
    except UndecodableError:
        return None


def check_agreement(value: bytes) -> None:
    usual = decode_fast_path(value, START)
    # By their text: NaN is not equal to itself, and True is equal to 1.
    if usual is not None:
        assert repr(tuple(usual)) == repr(by_fastavro(value))


def test_the_usual_contact_takes_the_short_cut() -> None:
    assert ContactDecoder(CODEC).has_fast_path
    usual = decode_fast_path(CODEC.encode(CONTACT), START)
    assert usual is not None
    assert usual._asdict() == {name if name != "occurred_at" else "occurred_at_ms": v for name, v in CONTACT.items()}


@settings(max_examples=100, deadline=None)
@given(contact=CONTACTS)
def test_every_contact_is_read_as_fastavro_reads_it(contact: dict[str, Any]) -> None:
    value = CODEC.encode(contact)
    check_agreement(value)
    assert repr(tuple(ContactDecoder(CODEC).decode(value))) == repr(
        tuple(contact[field["name"]] for field in SCHEMA["fields"])
    )


@pytest.mark.parametrize("field", ["event_id", "contact_id", "campaign_id"])
def test_a_long_string_is_left_to_fastavro(field: str) -> None:
    value = CODEC.encode({**CONTACT, field: "x" * 64})
    assert decode_fast_path(value, START) is None
    assert ContactDecoder(CODEC).decode(value)._asdict()[field] == "x" * 64


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=120))
@example(b"\x02a\x02b\x02\x02k\x02\x02\x00\x00\x00\x00")  # a boolean that is neither 0 nor 1
@example(b"\x02a\x02b\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00")  # the greatest long there is
def test_random_bytes_are_never_read_otherwise(body: bytes) -> None:
    check_agreement(CODEC.header + body)


@settings(max_examples=200, deadline=None)
@given(contact=CONTACTS, data=st.data())
def test_mutilated_bytes_are_never_read_otherwise(contact: dict[str, Any], data: st.DataObject) -> None:
    value = bytearray(CODEC.encode(contact))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(START, len(value) - 1))] = data.draw(st.integers(0, 255))
    check_agreement(bytes(value[: data.draw(st.integers(START, len(value)))]))


def test_the_limit_of_size_holds_for_the_short_cut_too() -> None:
    value = CODEC.encode(CONTACT)
    with pytest.raises(UndecodableError, match="more than the 20 allowed"):
        ContactDecoder(Codec.single_object(SCHEMA, max_bytes=20)).decode(value)


# --- records of a release before attributes

OLDER = released_schemas(SchemaFile.CONTACT_FEATURES)["v0.1.0"]
OLD_CODEC = Codec.single_object(OLDER)
BOTH = Codec.single_object(SCHEMA, [OLDER])


def registry_codec() -> Codec:
    return ConfluentCodec.confluent(SCHEMA, {7: OLDER}.__getitem__)


def by_resolution(value: bytes) -> tuple[Any, ...] | None:
    try:
        return tuple(BOTH.decode(value).values())
    except UndecodableError:
        return None


def check_agreement_of_older(value: bytes) -> None:
    at = BOTH.prefix_offset(value, 6)
    usual = None if at is None else decode_fast_path(value + _NO_ATTRIBUTES, at)
    if usual is not None:
        assert repr(tuple(usual)) == repr(by_resolution(value))


@pytest.mark.parametrize("codec", [BOTH, registry_codec()], ids=["single object", "confluent"])
def test_an_older_writers_contact_takes_the_short_cut(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    value = OLD_CODEC.encode(CONTACT)
    decoder = ContactDecoder(codec)
    if isinstance(codec, ConfluentCodec):
        value = confluent_header(7) + OLD_CODEC.payload_of(value)
        decoder.decode(value)  # the registry's schema is known from here on
    monkeypatch.setattr(Codec, "decode", None)
    monkeypatch.setattr(ConfluentCodec, "decode", None)
    assert tuple(decoder.decode(value)) == (*(CONTACT[field["name"]] for field in OLDER["fields"]), {})


@settings(max_examples=100, deadline=None)
@given(contact=CONTACTS, data=st.data())
def test_an_older_writers_bytes_are_never_read_otherwise(contact: dict[str, Any], data: st.DataObject) -> None:
    value = bytearray(OLD_CODEC.encode(contact))
    check_agreement_of_older(bytes(value))
    for _ in range(data.draw(st.integers(0, 3))):
        value[data.draw(st.integers(START, len(value) - 1))] = data.draw(st.integers(0, 255))
    check_agreement_of_older(bytes(value[: data.draw(st.integers(START, len(value)))]))


def test_a_value_without_its_attributes_is_no_value_of_an_older_writer() -> None:
    value = CODEC.encode({**CONTACT, "attributes": {}})
    with pytest.raises(UndecodableError, match="ends too early"):
        ContactDecoder(BOTH).decode(value[:-1])
    with pytest.raises(UndecodableError, match="1 bytes follow"):
        ContactDecoder(BOTH).decode(OLD_CODEC.encode(CONTACT) + b"\0")


def test_many_attributes_and_long_ones_are_left_to_fastavro() -> None:
    for attributes in ({str(number): "x" for number in range(64)}, {"a": "x" * 64}):
        value = CODEC.encode({**CONTACT, "attributes": attributes})
        assert decode_fast_path(value, START) is None
        assert ContactDecoder(CODEC).decode(value).attributes == attributes


def test_another_layout_takes_no_short_cut() -> None:
    fields = [*SCHEMA["fields"][:2][::-1], *SCHEMA["fields"][2:]]
    codec = Codec.single_object({**SCHEMA, "fields": fields})
    assert not ContactDecoder(codec).has_fast_path
    assert ContactDecoder(codec).decode(codec.encode(CONTACT)).contact_id == "BANK-00001"
