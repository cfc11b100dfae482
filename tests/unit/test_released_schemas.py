"""Records of every released schema and of the present one, read by workers of this version and of that release."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from test_audit_events import CODEC as AUDIT
from test_audit_events import build, chain, request, scored

from stream_scorer import verify_audit_chain
from stream_scorer.core.audit.hash_chain import AuditChain
from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.avro.confluent import ConfluentCodec, confluent_header
from stream_scorer.kafka.registry.serde import SingleObjectSerde
from stream_scorer.schema_files import SchemaFile, load_schema, released_schemas

RELEASES = [(file, name) for file in SchemaFile for name in released_schemas(file)]
# The defaults of fields that an older writer does not have.
ADDED: dict[SchemaFile, dict[str, Any]] = {
    SchemaFile.CONTACT_FEATURES: {"attributes": {}},
    SchemaFile.CONTACT_SCORE: {"attributes": {}},
    SchemaFile.BATCH_AUDIT: {},
    SchemaFile.CAMPAIGN_CALLBACK: {},
    SchemaFile.CALLBACK_RECEIPT: {"threshold": None},
    SchemaFile.DECISION: {},
}
ADDED_TO_ENTRIES = {"event_id": "", "features_hash": None, "reused_from": None, "billed": True}


def value_of(schema: Any) -> Any:
    """Return a value of a schema without default values."""
    if isinstance(schema, list):
        return value_of(schema[-1])
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return {field["name"]: value_of(field["type"]) for field in schema["fields"]}
    if kind == "array":
        return [value_of(schema["items"])]
    if kind == "map":
        return {"phone": value_of(schema["values"])}
    if kind == "enum":
        return schema["symbols"][0]
    return {"string": "ü", "long": 7, "int": 7, "double": 0.5, "boolean": False, "bytes": b"b"}[kind]


def only(value: Any, schema: Any) -> Any:
    """Return the fields of a value that a schema has."""
    if isinstance(schema, dict) and schema["type"] == "record":
        return {field["name"]: only(value[field["name"]], field["type"]) for field in schema["fields"]}
    if isinstance(schema, dict) and schema["type"] == "array":
        return [only(one, schema["items"]) for one in value]
    return value


def with_defaults(file: SchemaFile, value: dict[str, Any]) -> dict[str, Any]:
    if file is SchemaFile.BATCH_AUDIT:
        value = {**value, "contacts": [{**entry, **ADDED_TO_ENTRIES} for entry in value["contacts"]]}
    return {**value, **ADDED[file]}


@pytest.mark.parametrize(("file", "release"), RELEASES)
def test_records_of_a_release_are_read_with_defaults(file: SchemaFile, release: str) -> None:
    older = released_schemas(file)[release]
    value = value_of(older)
    written = Codec.single_object(older).encode(value)
    assert SingleObjectSerde().reader(file).decode(written) == with_defaults(file, value)
    registry = ConfluentCodec.confluent(load_schema(file), {3: older}.__getitem__)
    assert registry.decode(confluent_header(3) + written[10:]) == with_defaults(file, value)


@pytest.mark.parametrize(("file", "release"), RELEASES)
def test_present_records_are_read_by_a_release_with_the_present_schema(file: SchemaFile, release: str) -> None:
    present, older = load_schema(file), released_schemas(file)[release]
    value = value_of(present)
    reader = Codec.single_object(older, [present])
    assert reader.decode(Codec.single_object(present).encode(value)) == only(value, older)


@pytest.mark.parametrize("file", SchemaFile)
def test_new_fields_follow_those_of_every_release(file: SchemaFile) -> None:
    def names(schema: Any) -> list[str]:
        return [field["name"] for field in schema["fields"]]

    def entries(schema: Any) -> Any:
        return next(field["type"]["items"] for field in schema["fields"] if field["name"] == "contacts")

    for older in released_schemas(file).values():
        assert names(load_schema(file))[: len(names(older))] == names(older)
        if file is SchemaFile.BATCH_AUDIT:
            theirs = names(entries(older))
            assert names(entries(load_schema(file)))[: len(theirs)] == theirs


@pytest.mark.parametrize("framed", ["single object", "confluent"])
def test_chains_of_older_and_present_events_are_verified(framed: str) -> None:
    older = Codec.single_object(released_schemas(SchemaFile.BATCH_AUDIT)["v0.1.0"])
    values: list[bytes] = []
    for audit in (AuditChain("older", older), chain()):
        for offset in range(3):
            plan = audit.plan(build([scored(offset, request(f"batch-{offset}"))])[0])
            audit.confirm(plan)
            values += plan.values
    if framed == "confluent":
        values = [confluent_header(17) + AUDIT.payload_of(value) for value in values]
    assert verify_audit_chain(values) == []
    assert len(verify_audit_chain([values[0], *values[2:]])) == 1
    assert len(verify_audit_chain([*values[:4], *values[5:]])) == 1


def test_a_features_hash_is_that_of_the_entry_in_the_request() -> None:
    [value] = chain().plan(build([scored(0, request("batch"))])[0]).values
    assert AUDIT.decode(value)["contacts"][0]["features_hash"] == sha256(b"{}").digest()
