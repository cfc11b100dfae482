"""The Confluent wire format with arbitrary registered schemas and arbitrary values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.core.avro.codec import Codec, UndecodableError
from stream_scorer.core.avro.confluent import ConfluentCodec, WriterUnknownError, confluent_header, schema_id_of
from stream_scorer.core.scoring.contact_decoder import ContactDecoder
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

FEATURES = load_schema(SchemaFile.CONTACT_FEATURES)
OURS, OLD, NEW = 7, 3, 2**32 - 1
CONTACT = {
    "event_id": "e-1",
    "contact_id": "c-1",
    "features": {"calls": 3, "rate": 0.5, "vip": True, "segment": "basic", "age": None},
    "occurred_at": 1_790_000_000_000,
    "campaign_id": None,
    "model_version": "v2",
    "attributes": {"phone": "+49 170 5550100"},
}


def with_fields(*fields: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {**FEATURES, "fields": list(fields), **changes}


OLDER = with_fields(*FEATURES["fields"][:4])
NEWER = with_fields(*reversed(FEATURES["fields"]), {"name": "extra", "type": {"type": "array", "items": "string"}})


class Registry:
    """Registry that counts its requests."""

    def __init__(self, **schemas: Any) -> None:
        self.schemas = {int(name[1:]): schema for name, schema in schemas.items()}
        self.asked: list[int] = []

    def __call__(self, schema_id: int) -> Mapping[str, Any]:
        self.asked.append(schema_id)
        if schema_id not in self.schemas:
            raise WriterUnknownError(schema_id)
        found: Mapping[str, Any] = self.schemas[schema_id]
        return found


def codec(registry: Registry | None = None, **options: Any) -> ConfluentCodec:
    return ConfluentCodec.confluent(FEATURES, registry or Registry(), **options)


def written(schema: Mapping[str, Any], schema_id: int, value: Mapping[str, Any]) -> bytes:
    return confluent_header(schema_id) + Codec.single_object(schema).encode_body(value)


def test_what_is_written_has_the_id_in_front_and_is_read_again() -> None:
    ours = codec(schema_id=OURS)
    value = ours.encode(CONTACT)
    assert value[:5] == b"\x00\x00\x00\x00\x07"
    assert ours.frame(ours.encode_body(CONTACT)) == value
    assert ours.payload_of(value) == Codec.single_object(FEATURES).encode_body(CONTACT)
    assert ours.decode(value) == CONTACT


def test_older_and_newer_writers_and_single_objects_are_read_beside_each_other() -> None:
    registry = Registry(_3=OLDER, _4294967295=NEWER, _7=FEATURES)
    reader = codec(registry)
    old = {name: CONTACT[name] for name in ("event_id", "contact_id", "features", "occurred_at")}
    for _ in range(2):
        assert reader.decode(written(OLDER, OLD, old)) == {**CONTACT, "model_version": None, "attributes": {}}
        assert reader.decode(written(NEWER, NEW, {**CONTACT, "extra": ["x"]})) == CONTACT
        assert reader.decode(Codec.single_object(FEATURES).encode(CONTACT)) == CONTACT
        assert ContactDecoder(reader).decode(written(FEATURES, OURS, CONTACT)).contact_id == "c-1"
    assert registry.asked == [OLD, NEW, OURS]


def test_a_release_is_read_without_a_registry_too() -> None:
    older = Codec.single_object(OLDER).encode(CONTACT)
    with pytest.raises(UndecodableError, match="unknown schema"):
        codec().decode(older)
    reader = ConfluentCodec.confluent(FEATURES, Registry(), [OLDER])
    assert reader.decode(older) == {**CONTACT, "campaign_id": None, "model_version": None, "attributes": {}}


def test_the_short_cut_is_taken_for_our_own_schema_only() -> None:
    reader = codec(Registry(_3=OLDER, _7=FEATURES))
    own, single = written(FEATURES, OURS, CONTACT), Codec.single_object(FEATURES).encode(CONTACT)
    assert reader.fast_path_offset(own) is None  # id 7 is not resolved yet
    assert reader.decode(own) == CONTACT
    assert reader.fast_path_offset(own) == 5
    assert reader.fast_path_offset(single) == 10
    assert reader.payload_of(single) == reader.payload_of(own)
    old = written(OLDER, OLD, CONTACT)
    reader.decode(old)
    assert reader.fast_path_offset(old) is None


def test_an_unknown_id_is_waited_for_and_asked_for_again() -> None:
    registry = Registry()
    reader = codec(registry)
    for _ in range(2):
        with pytest.raises(WriterUnknownError) as caught:
            reader.decode(written(FEATURES, OURS, CONTACT))
        assert caught.value.schema_id == OURS
    registry.schemas[OURS] = FEATURES
    assert reader.decode(written(FEATURES, OURS, CONTACT)) == CONTACT


def recursive() -> dict[str, Any]:
    node = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
    return with_fields(*FEATURES["fields"], {"name": "node", "type": node})


def in_microseconds() -> dict[str, Any]:
    written = {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
    return with_fields(*(written if one["name"] == "occurred_at" else one for one in FEATURES["fields"]))


def doubling(times: int) -> dict[str, Any]:
    """Return a type that contains another one twice, and so on: exponentially many nulls in no bytes."""
    inner: Any = "null"
    for number in range(times):
        fields = [{"name": "a", "type": inner}, {"name": "b", "type": f"T{number - 1}" if number else "null"}]
        inner = {"type": "record", "name": f"T{number}", "fields": fields}
    return with_fields(*FEATURES["fields"], {"name": "t", "type": inner})


def deep(levels: int) -> dict[str, Any]:
    inner: Any = "string"
    for _ in range(levels):
        inner = {"type": "array", "items": inner}
    return with_fields(*FEATURES["fields"], {"name": "deep", "type": inner})


EXTRA = {"name": "x", "type": "string"}
FREE = {"type": "record", "name": "Free", "fields": [{"name": f"n{n}", "type": "null"} for n in range(50)]}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (with_fields(*FEATURES["fields"], {**EXTRA, "type": {"type": "array", "items": "null"}}), "take no bytes"),
        (with_fields(*FEATURES["fields"], {**EXTRA, "type": {"type": "map", "values": FREE}}), "51 parts in 1 bytes"),
        (recursive(), "'Node' is recursive"),
        (doubling(40), "more than the 10000 allowed"),
        (deep(1_000), "nested more than 64 deep"),
        (with_fields(*({**EXTRA, "name": f"f{n}"} for n in range(20_000))), "more than the 10000 allowed"),
        (with_fields(*FEATURES["fields"], {"name": "x"}), "no valid Avro schema"),
        ({**FEATURES, "fields": 3}, "no valid Avro schema"),
        ({**FEATURES, "type": "nonsense"}, ""),
        ({}, "no valid Avro schema"),
        ({**FEATURES, "name": "Other"}, "is a record Other, not a record ContactFeatures"),
        (load_schema(SchemaFile.CONTACT_SCORE), "is a record ContactScore, not"),
        (in_microseconds(), "occurred_at is written as timestamp-micros and read as timestamp-millis"),
        (with_fields(*FEATURES["fields"][1:]), "event_id is missing and has no default"),
        (with_fields({"name": "event_id", "type": "long"}, *FEATURES["fields"][1:]), "written as long and read as str"),
        ({"type": "array", "items": "string"}, ""),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_a_hostile_or_foreign_writer_costs_the_value_and_is_not_asked_for_twice(
    schema: dict[str, Any], why: str
) -> None:
    registry = Registry(_9=schema)
    reader = codec(registry)
    for _ in range(2):
        with pytest.raises(UndecodableError, match=f"written with schema id 9, .*{why}") as caught:
            reader.decode(confluent_header(9) + b"\x00" * 40)
        assert len(str(caught.value)) < 800
    assert registry.asked == [9]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "null"),
        (b"", "empty"),
        (b"\x00\x00\x00\x07", "only 4 bytes"),
        (confluent_header(OURS), "ends too early"),
        (written(FEATURES, OURS, CONTACT) + b"\x00", "1 bytes follow the end of the ContactFeatures"),
        (written(FEATURES, OURS, CONTACT)[:-3], "ends too early"),
        (b"\x7fELF and so on", "does not begin like"),
    ],
)
def test_values_that_are_none(data: bytes | None, why: str) -> None:
    with pytest.raises(UndecodableError, match=why):
        codec(schema_id=OURS).decode(data)


def test_the_limit_on_bytes_holds_in_this_framing_too() -> None:
    with pytest.raises(UndecodableError, match="more than the 20 allowed"):
        codec(schema_id=OURS, max_bytes=20).decode(written(FEATURES, OURS, CONTACT))


def test_what_is_kept_of_foreign_writers_is_bounded() -> None:
    registry = Registry(**{f"_{number}": OLDER for number in range(1, 301)})
    reader = codec(registry)
    for number in range(1, 301):
        reader.decode(written(OLDER, number, CONTACT))
    assert len(reader._kept) == 200
    reader.decode(written(OLDER, 300, CONTACT))
    assert len(registry.asked) == 300


def test_without_a_registry_the_refusal_names_the_setting() -> None:
    with pytest.raises(UndecodableError, match=r"Confluent wire format .* set schema_registry\.url"):
        Codec.single_object(FEATURES).decode(written(FEATURES, OURS, CONTACT))


@pytest.mark.parametrize(
    "data", [None, b"", b"\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00", b"\xc3\x01\x00\x00\x00\x00", b"{1234"]
)
def test_what_has_no_id(data: bytes | None) -> None:
    assert schema_id_of(data) is None
