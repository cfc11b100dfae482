"""Arbitrary schemas: those that would take hours or gigabytes are rejected, usual ones are not."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_fuzz import fuzz, varint

from stream_scorer.core.avro.codec import Codec, UndecodableError
from stream_scorer.core.avro.schema_safety import check_schema
from stream_scorer.errors import SettingsError
from stream_scorer.schema_files import SchemaFile, load_schema

FEATURES = load_schema(SchemaFile.CONTACT_FEATURES)
CONTACT = {
    "event_id": "e",
    "contact_id": "c",
    "features": {},
    "occurred_at": 0,
    "campaign_id": None,
    "model_version": None,
    "attributes": {},
}
BODY = Codec.single_object(FEATURES).encode_body(CONTACT)
HEADER = b"\0\0\0\0\7"


def with_more(kind: Any) -> dict[str, Any]:
    """Return the schema of a newer producer with one more field, which is skipped by the reader."""
    return {**FEATURES, "fields": [*FEATURES["fields"], {"name": "more", "type": kind}]}


def record(name: str, *kinds: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": f"f{n}", "type": kind} for n, kind in enumerate(kinds)]}


def laughs(depth: int) -> dict[str, Any]:
    """Return a type that contains another one twice, and so on: 2 ** depth nulls in no bytes."""
    kind = record("R0", "null")
    for n in range(1, depth + 1):
        kind = record(f"R{n}", kind, f"R{n - 1}")
    return kind


def nested(depth: int) -> Any:
    kind: Any = "bytes"
    for _ in range(depth):
        kind = {"type": "array", "items": kind}
    return kind


@pytest.mark.parametrize("schema_file", SchemaFile)
def test_our_schemas_are_safe(schema_file: SchemaFile) -> None:
    check_schema(load_schema(schema_file), "ours")


@pytest.mark.parametrize(
    "kind",
    [
        ["null", "string"],
        record("Wide", *[["null", "string"]] * 1_000),
        {"type": "array", "items": record("Item", "null", ["null", "long"], "string")},
        {"type": "map", "values": "null"},
        record("Twice", {"type": "enum", "name": "Colour", "symbols": ["RED"]}, "Colour", "Colour"),
        {"type": "fixed", "name": "Id", "size": 16},
    ],
)
def test_common_schemas_are_safe(kind: Any) -> None:
    check_schema(with_more(kind), "theirs")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (laughs(40), "parts, more than"),
        ({"type": "array", "items": record("Item", "boolean", laughs(10))}, "items of array have"),
        ({"type": "map", "values": laughs(10)}, "items of map have"),
        (nested(80), "nested more than"),
        (nested(5_000), "nested more than"),
        (record("Node", ["null", "Node"]), "recursive or not defined"),
        (record("A", record("ns.X", "null"), record("ns.X", "string")), "two types have the name"),
        ({"type": "record", "name": "NoFields"}, "no valid Avro schema"),
        ({"type": "fixed", "name": "F", "size": "many"}, "no valid Avro schema"),
        (
            {"type": "array", "items": record("Back", {"type": "fixed", "name": "F", "size": -1}, "long", "long")},
            "no valid",
        ),
        ([], "no valid Avro schema"),
        (None, "no valid Avro schema"),
        (7, "no valid Avro schema"),
        ("a\nb", r"type 'a\\nb' is"),
    ],
)
def test_an_exponential_schema_is_rejected_immediately(kind: Any, words: str) -> None:
    began = time.process_time()
    with pytest.raises(SettingsError, match=words):
        Codec(FEATURES, HEADER, {HEADER: with_more(kind)}, 1_000_000)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("item", ["float", "double", {"type": "fixed", "name": "Id", "size": 16}, "long", "bytes"])
def test_a_false_count_in_a_skipped_field(item: Any) -> None:
    codec = Codec(FEATURES, HEADER, {HEADER: with_more({"type": "array", "items": item})}, 1_000_000)
    assert codec.decode(HEADER + BODY + b"\0") == CONTACT
    began = time.process_time()
    with pytest.raises(UndecodableError, match="ends too early"):
        codec.decode(HEADER + BODY + varint(2**62) + bytes(64))
    assert time.process_time() - began < 1.0


KINDS = st.recursive(
    st.sampled_from(["null", "boolean", "int", "long", "double", "string", "bytes", "X", "", None, 3]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda values: {"type": "map", "values": values}, inner),
        st.builds(lambda name, kinds: record(name, *kinds), st.sampled_from("XYZ"), st.lists(inner, max_size=3)),
        st.builds(lambda size: {"type": "fixed", "name": "F", "size": size}, st.integers(-5, 2**40)),
        st.dictionaries(st.sampled_from(["type", "name", "items", "symbols"]), inner, max_size=3),
    ),
    max_leaves=12,
)


@fuzz(150)
@given(KINDS, st.binary(max_size=60))
def test_any_schema_is_refused_or_reads_any_bytes(kind: Any, more: bytes) -> None:
    try:
        codec = Codec(FEATURES, HEADER, {HEADER: with_more(kind)}, 1_000_000)
    except SettingsError as error:
        assert str(error).isprintable()  # noqa: PT017 - either this or a codec
        return
    for value in (HEADER + BODY + more, HEADER + more):
        try:
            read = codec.decode(value)
        except UndecodableError:
            continue
        assert set(read) == set(CONTACT)
