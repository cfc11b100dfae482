"""Writer schemas with oddities in unused parts: their values are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support_fuzz import varint

from stream_scorer.core.avro.codec import Codec, UndecodableError
from stream_scorer.core.avro.compatibility import incompatibilities
from stream_scorer.core.avro.confluent import ConfluentCodec, confluent_header
from stream_scorer.schema_files import SchemaFile, load_schema, released_schemas

CASES = Path(__file__).parents[1] / "cases" / "schemas"
FEATURES = load_schema(SchemaFile.CONTACT_FEATURES)
CONTACT: dict[str, Any] = {
    "event_id": "e-1",
    "contact_id": "c-1",
    "features": {"calls": 3},
    "occurred_at": 1_790_000_000_000,
    "campaign_id": None,
    "model_version": None,
    "attributes": {},
}
BODY = Codec.single_object(FEATURES).encode_body(CONTACT)
TEXT = b"\x02x"


def decode(schema: Any, body: bytes) -> dict[str, Any]:
    return ConfluentCodec.confluent(FEATURES, {9: schema}.__getitem__).decode(confluent_header(9) + body)


def with_more(*kinds: Any) -> dict[str, Any]:
    fields = [{"name": f"more{number}", "type": kind} for number, kind in enumerate(kinds)]
    return {**FEATURES, "fields": [*FEATURES["fields"], *fields]}


def with_field(**field: Any) -> dict[str, Any]:
    return {**FEATURES, "fields": [*FEATURES["fields"], {"name": "more", **field}]}


def record(name: str, *kinds: Any, **more: Any) -> dict[str, Any]:
    fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(kinds)]
    return {"type": "record", "name": name, **more, "fields": fields}


def meta(namespace: str | None, *kinds: Any) -> dict[str, Any]:
    return record("Meta", *kinds, namespace=namespace)


@pytest.mark.parametrize(
    ("case", "more"),
    [
        ("default-long-as-text", b""),
        ("enum-symbol-hyphen", varint(1)),
        ("two-namespaces", TEXT + TEXT),
    ],
)
def test_the_field_cases(case: str, more: bytes) -> None:
    schema = json.loads((CASES / f"{case}.json").read_text())
    # They are those of the field trial, before attributes.
    older = Codec.single_object(released_schemas(SchemaFile.CONTACT_FEATURES)["v0.1.0"]).encode_body(CONTACT)
    assert decode(schema, older + more) == CONTACT


COLOURS = {"type": "enum", "name": "Colour"}


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ({"type": "int", "default": "0"}, varint(7)),
        ({"type": ["null", "long"], "default": "none"}, varint(0)),
        ({"type": {"type": "array", "items": "long"}, "default": {}}, varint(0)),
        ({"type": {"type": "map", "values": "long"}, "default": None}, varint(0)),
        ({"type": meta(None, "long"), "default": "x"}, varint(7)),
        ({"type": {"type": "fixed", "name": "Id", "size": 2}, "default": 0}, b"ab"),
        ({"type": {**COLOURS, "symbols": ["RED"]}, "default": 1}, varint(0)),
        # Found here: more that concerns only writers or code generators.
        ({"type": {**COLOURS, "symbols": ["RED", "RED", "_", "__0"]}}, varint(3)),
        ({"type": {**COLOURS, "symbols": ["1st", 2, None, "vert clair", "été", ""]}}, varint(5)),
        ({"type": {**COLOURS, "symbols": [], "default": "x"}}, varint(0)),
        ({"type": "long", "aliases": "other"}, varint(7)),
        ({"type": "long", "aliases": None, "order": "up", "doc": 7}, varint(7)),
        ({"type": {**COLOURS, "symbols": ["RED"], "aliases": 7}}, varint(0)),
        ({"type": {"type": {"type": "string"}}}, TEXT),
        ({"type": {"type": ["null", "string"]}}, varint(1) + TEXT),
        ({"type": {"type": "bytes", "logicalType": "decimal", "precision": 0, "scale": -3}}, TEXT),
        ({"type": {"type": "fixed", "name": "D", "size": 1, "logicalType": "decimal", "precision": 99}}, b"x"),
        ({"type": {"type": "string", "logicalType": ["no", "text"]}}, TEXT),
        ({"type": record("my-meta", "long")}, varint(7)),
        ({"type": {**record("Failure", "long"), "type": "error"}}, varint(7)),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_what_is_odd_in_a_field_that_is_never_used(field: dict[str, Any], more: bytes) -> None:
    assert decode(with_field(**field), BODY + more) == CONTACT
    assert incompatibilities(FEATURES, with_field(**field)) == []


@pytest.mark.parametrize("default", ["0", None, {}, [1], 1.5])
def test_an_ill_typed_default_of_a_used_field_takes_the_short_cut_too(default: Any) -> None:
    schema = {**FEATURES, "fields": [{**one, "default": default} for one in FEATURES["fields"]]}
    codec = ConfluentCodec.confluent(FEATURES, {9: schema}.__getitem__)
    assert codec.decode(confluent_header(9) + BODY) == CONTACT
    assert codec.fast_path_offset(confluent_header(9) + BODY) == 5


@pytest.mark.parametrize(
    ("kinds", "more"),
    [
        ([meta("a", "long"), meta("b", "string"), "a.Meta", "b.Meta"], varint(7) + TEXT + varint(7) + TEXT),
        # A name inside a type is of that type's namespace.
        (
            [meta("a", record("In", "long"), "In"), meta("b", record("In", "string"), "In"), "b.In"],
            b"\x0e\x0e" + TEXT * 3,
        ),
        ([meta("a", record("In"), "In"), record("In", "long"), "In"], varint(7) * 2),
        ([meta(None, "long"), meta("b", "string")], varint(7) + TEXT),
        ([record("a.M", "long"), record("b.M", "string", namespace="a"), "a.M", "b.M"], (varint(7) + TEXT) * 2),
        ([{**COLOURS, "namespace": "a", "symbols": ["A"]}, {**COLOURS, "namespace": "b", "symbols": ["b-c"]}], b"\0\0"),
        (
            [
                {"type": "fixed", "name": "Id", "namespace": "a", "size": 1},
                {"type": "fixed", "name": "Id", "namespace": "b", "size": 2},
                "a.Id",
                "b.Id",
            ],
            b"abbabb",
        ),
    ],
)
def test_equal_names_in_two_namespaces(kinds: list[Any], more: bytes) -> None:
    assert decode(with_more(*kinds), BODY + more) == CONTACT


OURS = FEATURES["namespace"]


@pytest.mark.parametrize(
    ("kinds", "more"),
    [
        # Inherited, and written in full.
        ([meta(OURS, "long"), "Meta"], varint(7) * 2),
        ([record("Meta", record("In", "long"), "In"), "In", f"{OURS}.In", {"type": "Meta"}], varint(7) * 6),
        ([record("a.Out", record("In", "long"), "In"), "a.In", record("In", "string"), "In"], varint(7) * 3 + TEXT * 2),
        ([record("Out", record("b.In", "long")), "b.In", ["null", "Out"]], varint(7) * 2 + varint(1) + varint(7)),
        # In no namespace, inside ours: how Java and C# write it, and a reference to it.
        ([meta("", "long"), "Meta"], varint(7) * 2),
        ([meta("", "long"), {"type": "array", "items": "Meta"}, ["null", "Meta"]], varint(7) + b"\0\0"),
        ([meta("", "long"), record("Meta", "string"), "Meta", ".Meta"], varint(7) + TEXT * 2 + varint(7)),
        ([record(".Meta", "long"), "Meta", ".Meta"], varint(7) * 3),
        ([meta("", record("In", "long"), "In"), "In", record("b.Out", "In", "Meta")], varint(7) * 6),
        ([meta("", "long"), record("b.O", record("Meta", "string"), "Meta"), "Meta"], varint(7) + TEXT * 2 + varint(7)),
        ([meta(None, "long"), "Meta"], varint(7) * 2),
    ],
)
def test_names_without_a_namespace_inside_a_namespace(kinds: list[Any], more: bytes) -> None:
    assert decode(with_more(*kinds), BODY + more) == CONTACT
    assert incompatibilities(FEATURES, with_more(*kinds)) == []


def test_a_used_field_whose_type_is_a_reference_to_a_name_in_no_namespace() -> None:
    side = {"type": "enum", "name": "Side", "namespace": "", "symbols": ["LEFT", "RIGHT"]}
    reader = record("Two", {**side, "namespace": "r"}, "r.Side", namespace="ours")
    writer = record("Two", side, "Side", namespace="theirs")
    assert incompatibilities(reader, writer) == []
    codec = ConfluentCodec.confluent(reader, {9: writer}.__getitem__)
    assert codec.decode(confluent_header(9) + varint(1) + varint(0)) == {"f0": "RIGHT", "f1": "LEFT"}


def test_a_type_of_our_name_in_a_field_that_is_never_used() -> None:
    """The writer's record and the type of one of its fields have one name, in two namespaces."""
    schema = with_more(record("ContactFeatures", "long", namespace="com.acme"))
    assert decode(schema, BODY + varint(7)) == CONTACT


@pytest.mark.parametrize(
    ("kinds", "problem"),
    [
        ([meta("a", "long"), meta("a", "long")], r"two types have the name 'a\.Meta'"),
        ([meta("", "long"), meta("", "long")], "two types have the name 'Meta'"),
        ([meta("a", "long"), "Meta"], "'Meta' is recursive or not defined"),
        ([meta("", ["null", "Meta"])], "'Meta' is recursive"),
        (["Meta", meta("", "long")], "'Meta' is recursive or not defined"),
        ([meta("a", record("b.In", "Meta"))], "'Meta' is recursive or not defined"),
        ([meta("a", ["null", "Meta"])], "'Meta' is recursive"),
        ([meta("a", ["null", "a.Meta"])], r"'a\.Meta' is recursive"),
        ([meta("a", {"type": "array", "items": "Meta"})], "'Meta' is recursive"),
        ([record("", "long")], "no valid Avro schema"),
        ([{"type": "enum", "name": "E", "symbols": "AB"}], "no valid Avro schema"),
        ([{"type": "enum", "name": "E"}], "no valid Avro schema"),
    ],
)
def test_what_is_no_schema_or_not_safe_is_still_refused(kinds: list[Any], problem: str) -> None:
    with pytest.raises(UndecodableError, match=problem):
        decode(with_more(*kinds), BODY + bytes(20))


def test_the_symbols_of_a_used_field_are_distinguished() -> None:
    """A symbol that Avro does not allow matches none of the reader's; the other symbols are read."""

    def side(*symbols: str) -> dict[str, Any]:
        return record("One", {"type": "enum", "name": "Side", "symbols": list(symbols)})

    codec = ConfluentCodec.confluent(side("L", "R"), {9: side("left-hand", "L", "R")}.__getitem__)
    assert codec.decode(confluent_header(9) + varint(2)) == {"f0": "R"}
    with pytest.raises(UndecodableError, match="f0 may be left-hand, which is not known"):
        codec.decode(confluent_header(9) + varint(0))
    assert incompatibilities(side("L", "R"), side("a\nb")) == ["f0 may be 'a\\nb', which is not known"]
