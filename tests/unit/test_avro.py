from __future__ import annotations

import io
import json
import resource
import time
from typing import Any

import fastavro
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_scorer.core.avro.codec import (
    SINGLE_OBJECT_HEADER_BYTES,
    Codec,
    UndecodableError,
    single_object_header,
)
from stream_scorer.core.avro.encoder import compile_writer
from stream_scorer.core.scoring.contact_decoder import ContactDecoder
from stream_scorer.core.scoring.types import ContactEvent
from stream_scorer.errors import InputError, SettingsError
from stream_scorer.schema_files import SchemaFile, load_schema, released_schemas

FEATURES = load_schema(SchemaFile.CONTACT_FEATURES)
CODEC = Codec.single_object(FEATURES)
HEADER = single_object_header(FEATURES)
CONTACT: dict[str, Any] = {
    "event_id": "e-1",
    "contact_id": "BANK-00001",
    "features": {"calls": 3, "time": 261.5, "days": None, "known": True, "job": "retraité"},
    "occurred_at": 1_700_000_000_123,
    "campaign_id": None,
    "model_version": "v2",
    "attributes": {"phone": "+49 170 5550100"},
}


def varint(value: int) -> bytes:
    """An independent encoder of Avro's long, for invalid values."""
    rest = ((value << 1) ^ (value >> 63)) & (2**64 - 1)
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*out, rest])


def text(value: bytes) -> bytes:
    return varint(len(value)) + value


IDS = text(b"e") + text(b"c")
REST = varint(1) + varint(0) + varint(0) + varint(0)


def rabin(data: bytes) -> int:
    """CRC-64-AVRO, by the definition of the Avro specification."""
    empty = 0xC15D213AA4D7A795
    table = []
    for index in range(256):
        entry = index
        for _ in range(8):
            entry = (entry >> 1) ^ (empty & -(entry & 1))
        table.append(entry)
    crc = empty
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc


def canonical(schema: Any) -> str:
    """Parsing Canonical Form for the types of our schemas, independent of fastavro's."""
    if isinstance(schema, list):
        return "[" + ",".join(map(canonical, schema)) + "]"
    kind = schema if isinstance(schema, str) else schema["type"]
    full_name = "" if isinstance(schema, str) else f'"name":"stream_scorer.{schema.get("name")}"'
    match kind:
        case "array":
            form = '{"type":"array","items":' + canonical(schema["items"]) + "}"
        case "map":
            form = '{"type":"map","values":' + canonical(schema["values"]) + "}"
        case "enum":
            symbols = json.dumps(schema["symbols"], separators=(",", ":"))
            form = "{" + full_name + ',"type":"enum","symbols":' + symbols + "}"
        case "record":
            fields = [f'{{"name":"{field["name"]}","type":{canonical(field["type"])}}}' for field in schema["fields"]]
            form = "{" + full_name + ',"type":"record","fields":[' + ",".join(fields) + "]}"
        case str():
            form = json.dumps(kind)
        case _:
            form = canonical(kind)
    return form


@pytest.mark.parametrize("schema_file", SchemaFile)
def test_header_is_marker_and_little_endian_crc_64_avro(schema_file: SchemaFile) -> None:
    schema = load_schema(schema_file)
    assert single_object_header(schema) == b"\xc3\x01" + rabin(canonical(schema).encode()).to_bytes(8, "little")


def test_fingerprint_of_the_features_schema_never_changes_by_accident() -> None:
    assert HEADER.hex() == "c3012786ca9670f6da9b"
    released = released_schemas(SchemaFile.CONTACT_FEATURES)
    assert {name: single_object_header(one).hex() for name, one in released.items()} == {
        "v0.1.0": "c301377414f753b60e3b"
    }


def test_fingerprint_ignores_documentation_and_logical_types() -> None:
    bare = json.loads(json.dumps(FEATURES))
    del bare["doc"]
    for field in bare["fields"]:
        del field["doc"]
        if field["name"] == "occurred_at":
            field["type"] = "long"
    assert single_object_header(bare) == HEADER


def test_a_value_survives_and_its_time_stays_an_integer() -> None:
    decoded = CODEC.decode(CODEC.encode(CONTACT))
    assert decoded == CONTACT
    assert {name: type(value) for name, value in decoded["features"].items()} == {
        "calls": int,
        "time": float,
        "days": type(None),
        "known": bool,
        "job": str,
    }


def test_decode_contact() -> None:
    assert ContactDecoder(CODEC).decode(CODEC.encode(CONTACT)) == ContactEvent(
        "e-1", "BANK-00001", CONTACT["features"], 1_700_000_000_123, None, "v2", CONTACT["attributes"]
    )


def test_a_time_no_datetime_can_hold_is_read() -> None:
    assert CODEC.decode(CODEC.encode({**CONTACT, "occurred_at": 2**62}))["occurred_at"] == 2**62


def test_fastavro_reads_what_we_write() -> None:
    body = CODEC.encode(CONTACT)[SINGLE_OBJECT_HEADER_BYTES:]
    read: Any = fastavro.schemaless_reader(io.BytesIO(body), fastavro.parse_schema(FEATURES), None)
    assert read["occurred_at"].timestamp() == 1_700_000_000.123
    assert read["features"] == CONTACT["features"]


def test_frame_and_body() -> None:
    body = CODEC.encode_body(CONTACT)
    assert CODEC.frame(body) == CODEC.encode(CONTACT)
    assert CODEC.payload_of(CODEC.encode(CONTACT)) == body


OLD: dict[str, Any] = {**FEATURES, "fields": [f for f in FEATURES["fields"] if f["name"] != "model_version"]}
NEW: dict[str, Any] = {**FEATURES, "fields": [*FEATURES["fields"], {"name": "extra", "type": "string"}]}


class TestOtherWriters:
    def test_older_and_newer_values_are_resolved(self) -> None:
        codec = Codec.single_object(FEATURES, [OLD, NEW])
        old = {name: value for name, value in CONTACT.items() if name != "model_version"}
        assert codec.decode(Codec.single_object(OLD).encode(old)) == {**CONTACT, "model_version": None}
        assert codec.decode(Codec.single_object(NEW).encode({**CONTACT, "extra": "x"})) == CONTACT
        assert codec.decode(codec.encode(CONTACT)) == CONTACT

    def test_an_unknown_writer_is_refused_by_its_fingerprint(self) -> None:
        value = Codec.single_object(NEW).encode({**CONTACT, "extra": "x"})
        with pytest.raises(UndecodableError, match=f"unknown schema.*{value[2:10].hex()}"):
            CODEC.decode(value)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "the value is null"),
        (b"", "the value is empty"),
        (b"\xc3\x01\x00", "only 3 bytes"),
        (b"\x7fELF and so on", "does not begin like an Avro single-object encoding .* 7f45"),
        (b"\x00\x00\x00\x00\x07abcdefgh", "in the Confluent wire format .* set schema_registry.url"),
        (CODEC.encode(CONTACT) + b"\x00\x00", "2 bytes follow the end of the ContactFeatures"),
        (CODEC.encode(CONTACT)[:-3], "ends too early"),
        (HEADER, "ends too early"),
        (HEADER + varint(-1) + b"abc", "ends too early"),
        (HEADER + varint(-(2**63)) + b"abc", "ends too early"),
        (HEADER + varint(2**62) + b"abc", "ends too early"),
        (HEADER + varint(1) + b"\xff" + REST, "a string is not UTF-8"),
        (HEADER + text(b"e") + text(b"\xed\xa0\x80") + varint(0) + REST, "a string is not UTF-8"),
        (HEADER + IDS + varint(2**62), "ends too early"),
        (HEADER + IDS + varint(1) + text(b"k") + varint(5) + varint(0) + REST, "index is out of range"),
        (HEADER + IDS + varint(1) + text(b"k") + varint(2**62) + varint(0) + REST, "index is out of range"),
        (HEADER + IDS + varint(1) + text(b"k") + varint(-9) + varint(0) + REST, "index is out of range"),
        (HEADER + IDS + varint(0) + b"\xff" * 20, "ends too early"),
    ],
)
def test_what_is_no_contact_is_refused_in_one_sentence(value: bytes | None, sentence: str) -> None:
    with pytest.raises(UndecodableError, match=sentence) as caught:
        CODEC.decode(value)
    assert isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)


def test_the_sentence_never_repeats_the_content() -> None:
    secret = b"4111-1111-1111-1111"
    for broken in (varint(1000) + secret, text(secret) + text(secret + b"\xff") + varint(0) + REST):
        with pytest.raises(UndecodableError) as caught:
            CODEC.decode(HEADER + broken)
        assert "4111" not in str(caught.value)


def test_blocks_with_a_size_are_read() -> None:
    block = varint(-1) + varint(3) + text(b"k") + varint(2) + varint(7) + varint(0)
    assert CODEC.decode(HEADER + IDS + block + REST)["features"] == {"k": 7}


def test_the_size_is_limited_before_anything_is_read() -> None:
    codec = Codec.single_object(FEATURES, max_bytes=64)
    assert codec.decode(codec.encode({**CONTACT, "features": {}}))
    with pytest.raises(UndecodableError, match=r"has \d+ bytes, more than the 64 allowed"):
        codec.decode(codec.encode({**CONTACT, "features": {"job": "x" * 64}}))


def test_hostile_counts_take_neither_time_nor_memory() -> None:
    """Each is a megabyte with false counts; a decoder that trusts them would need gigabytes or minutes."""
    megabyte = 1024 * 1024 - 64
    tricks = [
        IDS + varint(2**62) + (text(b"k") + varint(0)) * (megabyte // 3),
        IDS + (varint(-(2**63)) + varint(0)) * (megabyte // 11) + varint(0) + REST,
        IDS + varint(0) + b"\xff" * megabyte,
        varint(2**40) + b"x" * megabyte,
        IDS + b"".join(varint(1) + text(b"%06x" % index) + varint(0) for index in range(megabyte // 9)),
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    for trick in tricks:
        try:
            CODEC.decode(HEADER + trick)
        except UndecodableError:
            continue
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "record", "name": "Empty", "fields": []},
        {"type": "record", "name": "Nothing", "fields": [{"name": "n", "type": "null"}]},
        {"type": "fixed", "name": "Zero", "size": 0},
    ],
)
def test_a_writer_whose_items_take_no_bytes_is_refused(items: Any) -> None:
    schema = {"type": "record", "name": "Bomb", "fields": [{"name": "a", "type": {"type": "array", "items": items}}]}
    with pytest.raises(SettingsError, match="take no bytes"):
        Codec.single_object(FEATURES, [schema])


def test_a_recursive_writer_is_refused() -> None:
    schema = {
        "type": "record",
        "name": "Node",
        "fields": [{"name": "v", "type": "int"}, {"name": "next", "type": ["null", "Node"]}],
    }
    with pytest.raises(SettingsError, match="'Node' is recursive"):
        Codec.single_object(FEATURES, [schema])


def test_a_named_type_may_be_used_twice() -> None:
    pair = {"type": "enum", "name": "Side", "symbols": ["L", "R"]}
    schema = {"type": "record", "name": "Two", "fields": [{"name": "a", "type": pair}, {"name": "b", "type": "Side"}]}
    codec = Codec.single_object(schema)
    assert codec.decode(codec.encode({"a": "R", "b": "L"})) == {"a": "R", "b": "L"}


@settings(max_examples=500, deadline=None)
@given(data=st.binary(max_size=200))
@example(b"\xff" * 30)
def test_any_bytes_are_a_contact_or_undecodable(data: bytes) -> None:
    for value in (data, HEADER + data, HEADER + IDS + data):
        try:
            decoded = CODEC.decode(value)
        except UndecodableError:
            continue
        assert set(decoded) == set(CONTACT)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_contact_is_a_contact_or_undecodable(data: st.DataObject) -> None:
    value = bytearray(CODEC.encode(CONTACT))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    try:
        event = ContactDecoder(CODEC).decode(bytes(value))
    except UndecodableError:
        return
    assert isinstance(event.contact_id, str)
    assert isinstance(event.occurred_at_ms, int)


TEXTS = st.text("ab \0\n\x7fé€\U0001f600", max_size=20)
PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(),
    "string": TEXTS,
    "bytes": st.binary(max_size=50),
}


def values_of(schema: Any) -> st.SearchStrategy[Any]:
    """Any value of a schema."""
    if isinstance(schema, list):
        return st.one_of([values_of(branch) for branch in schema])
    kind = schema["type"] if isinstance(schema, dict) else schema
    match kind:
        case "enum":
            values: st.SearchStrategy[Any] = st.sampled_from(schema["symbols"])
        case "array":
            values = st.lists(values_of(schema["items"]), max_size=4)
        case "map":
            values = st.dictionaries(TEXTS, values_of(schema["values"]), max_size=4)
        case "record":
            values = st.fixed_dictionaries({field["name"]: values_of(field["type"]) for field in schema["fields"]})
        case _:
            values = PRIMITIVES[kind]
    return values


@pytest.mark.parametrize("schema_file", SchemaFile)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_byte_is_what_fastavro_writes(schema_file: SchemaFile, data: st.DataObject) -> None:
    codec = Codec.single_object(load_schema(schema_file))
    value = data.draw(values_of(codec.schema))
    expected = io.BytesIO()
    fastavro.schemaless_writer(expected, fastavro.parse_schema(dict(codec.schema)), value)
    assert codec.encode_body(value) == expected.getvalue()


class TestEncodingErrors:
    @pytest.mark.parametrize(
        ("schema", "value", "error"),
        [
            ("int", 2**31, OverflowError),
            ("long", 2**63, OverflowError),
            ("long", -(2**63) - 1, OverflowError),
            ("long", "7", TypeError),
            ("string", 7, AttributeError),
            ("string", "\ud800", UnicodeEncodeError),
            (["null", "boolean", "long", "double", "string"], [], KeyError),
            (["null", "boolean", "long", "double", "string"], 2**63, OverflowError),
            ({"type": "enum", "name": "E", "symbols": ["A"]}, "B", KeyError),
            ({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}, {}, KeyError),
        ],
    )
    def test_value(self, schema: Any, value: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            compile_writer(schema)(value)

    @pytest.mark.parametrize("schema", ["float", {"type": "fixed", "name": "F", "size": 4}, ["null", "int", "long"]])
    def test_schema(self, schema: Any) -> None:
        with pytest.raises(SettingsError):
            compile_writer(schema)
