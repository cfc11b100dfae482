"""The schemas: what the contract promises, and that no version ever released is broken by the current one."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.core.avro.codec import Codec
from stream_scorer.errors import SettingsError
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
RELEASED = sorted((ROOT / "schemas" / "released").glob("v*/*.avsc"))
PROMOTIONS = {
    ("int", "long"),
    ("int", "float"),
    ("int", "double"),
    ("long", "float"),
    ("long", "double"),
    ("float", "double"),
    ("string", "bytes"),
    ("bytes", "string"),
}


def kind_of(schema: Any) -> str:
    return "union" if isinstance(schema, list) else str(schema["type"] if isinstance(schema, dict) else schema)


def breaks(reader: Any, writer: Any, at: str = "value") -> list[str]:
    """Say where a reader with one schema misreads what a writer with the other wrote; empty: nowhere.

    Stricter than Avro's resolution, and than a fingerprint: logical types must be the same, names too.
    """
    if isinstance(writer, list):
        return [problem for branch in writer for problem in breaks(reader, branch, at)]
    if isinstance(reader, list):
        if any(not breaks(branch, writer, at) for branch in reader):
            return []
        return [f"{at}: {kind_of(writer)} is in no branch of the union any more"]
    r_kind, w_kind = kind_of(reader), kind_of(writer)
    if r_kind != w_kind:
        return [] if (w_kind, r_kind) in PROMOTIONS else [f"{at}: was {w_kind}, is {r_kind}"]
    if not (isinstance(reader, dict) and isinstance(writer, dict)):
        logical = {schema.get("logicalType") for schema in (reader, writer) if isinstance(schema, dict)}
        return [f"{at}: a logical type was added or taken away"] if logical - {None} else []
    problems = [
        f"{at}: {part} was {writer.get(part)}, is {reader.get(part)}"
        for part in ("name", "namespace", "logicalType", "size")
        if writer.get(part) != reader.get(part)
    ]
    match r_kind:
        case "array":
            problems += breaks(reader["items"], writer["items"], f"{at}[]")
        case "map":
            problems += breaks(reader["values"], writer["values"], f"{at}{{}}")
        case "enum":
            gone = set(writer["symbols"]) - set(reader["symbols"])
            problems += [f"{at}: symbols {sorted(gone)} are gone"] if gone else []
        case "record":
            problems += breaks_of_records(reader, writer, at)
    return problems


def breaks_of_records(reader: dict[str, Any], writer: dict[str, Any], at: str) -> list[str]:
    problems = []
    written = {field["name"]: field for field in writer["fields"]}
    for field in reader["fields"]:
        place = f"{at}.{field['name']}"
        before = written.pop(field["name"], None)
        if before is None:
            problems += [] if "default" in field else [f"{place}: is new and has no default"]
            continue
        problems += breaks(field["type"], before["type"], place)
        if "default" in before and field.get("default", ...) != before["default"]:
            problems.append(f"{place}: its default was changed or taken away")
    return problems + [f"{at}.{name}: is gone" for name in written]


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_current_schema_reads_every_version_released(released: Path) -> None:
    current = load_schema(SchemaFile(released.stem))
    assert breaks(current, json.loads(released.read_text())) == []


def test_every_schema_was_released() -> None:
    names = {schema_file.value for schema_file in SchemaFile}
    assert {path.stem for path in RELEASED} == names
    assert {path.stem for path in (ROOT / "schemas").glob("*.avsc")} == names


SIMPLE: dict[str, Any] = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A", "B"]}},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "names", "type": {"type": "array", "items": "string"}},
    ],
}


def changed(field_name: str, /, **changes: Any) -> dict[str, Any]:
    fields = [{**field, **changes} if field["name"] == field_name else field for field in SIMPLE["fields"]]
    return {**SIMPLE, "fields": fields}


class TestTheComparison:
    """It must find each of these, or the test above is worth nothing."""

    @pytest.mark.parametrize(
        ("reader", "problem"),
        [
            (changed("id", type="long"), "value.id: was string, is long"),
            (changed("id", name="key"), "value.id: is gone"),
            (changed("at", type="long"), "value.at: a logical type was added or taken away"),
            (
                changed("at", type={"type": "long", "logicalType": "timestamp-micros"}),
                "logicalType was timestamp-millis",
            ),
            (changed("kind", type={"type": "enum", "name": "K", "symbols": ["A"]}), "symbols ['B'] are gone"),
            (changed("kind", type={"type": "enum", "name": "L", "symbols": ["A", "B"]}), "name was K, is L"),
            (changed("note", type="string"), "value.note: was null, is string"),
            (changed("note", default="x"), "value.note: its default was changed"),
            (changed("names", type={"type": "array", "items": "int"}), "value.names[]: was string, is int"),
            ({**SIMPLE, "fields": [*SIMPLE["fields"], {"name": "x", "type": "int"}]}, "value.x: is new"),
            ({**SIMPLE, "name": "S"}, "value: name was R, is S"),
        ],
    )
    def test_breaking(self, reader: dict[str, Any], problem: str) -> None:
        assert any(problem in found for found in breaks(reader, SIMPLE)), breaks(reader, SIMPLE)

    @pytest.mark.parametrize(
        "reader",
        [
            SIMPLE,
            {**SIMPLE, "doc": "said better"},
            {**SIMPLE, "fields": [*SIMPLE["fields"], {"name": "x", "type": "int", "default": 0}]},
            changed("id", type=["null", "string"]),
            changed("kind", type={"type": "enum", "name": "K", "symbols": ["A", "B", "C"]}),
        ],
    )
    def test_compatible(self, reader: dict[str, Any]) -> None:
        assert breaks(reader, SIMPLE) == []


def shape(schema: Any) -> Any:
    """A schema in the short form of the contract."""
    if isinstance(schema, list):
        return [shape(branch) for branch in schema]
    if isinstance(schema, str):
        return schema
    shapes: dict[str, Callable[[], Any]] = {
        "array": lambda: ("array", shape(schema["items"])),
        "map": lambda: ("map", shape(schema["values"])),
        "enum": lambda: "|".join(schema["symbols"]),
        "record": lambda: {field["name"]: shape(field["type"]) for field in schema["fields"]},
        "long": lambda: schema["logicalType"],
    }
    return shapes[schema["type"]]()


NULLABLE_STRING = ["null", "string"]
NULLABLE_DOUBLE = ["null", "double"]
MILLIS = "timestamp-millis"
STRINGS = ("array", "string")
CONTRACT: dict[SchemaFile, tuple[str, dict[str, Any]]] = {
    SchemaFile.CONTACT_FEATURES: (
        "ContactFeatures",
        {
            "event_id": "string",
            "contact_id": "string",
            "features": ("map", ["null", "boolean", "long", "double", "string"]),
            "occurred_at": MILLIS,
            "campaign_id": NULLABLE_STRING,
            "model_version": NULLABLE_STRING,
            "attributes": ("map", "string"),
        },
    ),
    SchemaFile.CONTACT_SCORE: (
        "ContactScore",
        {
            "event_id": "string",
            "contact_id": "string",
            "campaign_id": NULLABLE_STRING,
            "model_id": "string",
            "model_version": NULLABLE_STRING,
            "score": "double",
            "confidence_lower": "double",
            "confidence_upper": "double",
            "latency_ms": "double",
            "occurred_at": MILLIS,
            "scored_at": MILLIS,
            "imputed_features": STRINGS,
            "batch_id": "string",
            "review_reasons": STRINGS,
            "attributes": ("map", "string"),
        },
    ),
    SchemaFile.BATCH_AUDIT: (
        "BatchAudit",
        {
            "batch_id": "string",
            "chain_id": "string",
            "sequence": "long",
            "previous_hash": "bytes",
            "hash": "bytes",
            "model_id": "string",
            "model_version": NULLABLE_STRING,
            "request_contacts": "int",
            "started_at": MILLIS,
            "finished_at": MILLIS,
            "latency_ms": NULLABLE_DOUBLE,
            "attempts": "int",
            "api_status": ["null", "int"],
            "correlation_id": NULLABLE_STRING,
            "counts": {"received": "long", "scored": "long", "review": "long", "rejected": "long"},
            "contacts": (
                "array",
                {
                    "source": "string",
                    "contact_id": "string",
                    "outcome": "SCORED|REVIEW|REJECTED",
                    "score": NULLABLE_DOUBLE,
                    "confidence_lower": NULLABLE_DOUBLE,
                    "confidence_upper": NULLABLE_DOUBLE,
                    "imputed_features": STRINGS,
                    "reasons": STRINGS,
                    "event_id": "string",
                    "features_hash": ["null", "bytes"],
                    "reused_from": NULLABLE_STRING,
                    "billed": "boolean",
                },
            ),
        },
    ),
    SchemaFile.CAMPAIGN_CALLBACK: (
        "CampaignCallback",
        {
            "callback_id": "string",
            "campaign_id": NULLABLE_STRING,
            "target": "string",
            "body": "bytes",
            "sources": STRINGS,
            "event_ids": STRINGS,
            "contact_ids": STRINGS,
            "planned_at": MILLIS,
            "attempts": "int",
            "not_before": MILLIS,
        },
    ),
    SchemaFile.CALLBACK_RECEIPT: (
        "CallbackReceipt",
        {
            "callback_id": "string",
            "campaign_id": NULLABLE_STRING,
            "target": "string",
            "sources": STRINGS,
            "event_ids": STRINGS,
            "contact_ids": STRINGS,
            "outcome": "DELIVERED|REFUSED|GAVE_UP|EXPIRED",
            "attempts": "int",
            "http_status": ["null", "int"],
            "finished_at": MILLIS,
            "latency_ms": "double",
            "threshold": NULLABLE_DOUBLE,
        },
    ),
    SchemaFile.DECISION: (
        "Decision",
        {
            "decision_id": "string",
            "place": "string",
            "topic_id": NULLABLE_STRING,
            "action": "string",
            "job": "string",
            "operator": "string",
            "note": "string",
            "decided_at": MILLIS,
            "result_place": NULLABLE_STRING,
            "changes": ("map", "string"),
        },
    ),
}


@pytest.mark.parametrize("schema_file", SchemaFile)
class TestContract:
    def test_shape_and_order(self, schema_file: SchemaFile) -> None:
        schema = load_schema(schema_file)
        name, fields = CONTRACT[schema_file]
        assert (schema["name"], schema["namespace"]) == (name, "stream_scorer")
        assert shape(schema) == fields
        assert list(shape(schema)) == list(fields)

    def test_everything_is_documented(self, schema_file: SchemaFile) -> None:
        schema = load_schema(schema_file)
        assert schema["doc"]
        assert [field["name"] for field in schema["fields"] if not field.get("doc")] == []

    def test_it_is_safe_to_read(self, schema_file: SchemaFile) -> None:
        codec = Codec.single_object(load_schema(schema_file))  # an unsafe one would raise
        assert codec.header.startswith(b"\xc3\x01")


def test_defaults_of_the_contract() -> None:
    defaults = {
        (schema_file, field["name"]): field["default"]
        for schema_file in SchemaFile
        for field in load_schema(schema_file)["fields"]
        if "default" in field
    }
    assert defaults[SchemaFile.CONTACT_FEATURES, "campaign_id"] is None
    assert defaults[SchemaFile.CONTACT_FEATURES, "model_version"] is None
    assert defaults[SchemaFile.CONTACT_SCORE, "review_reasons"] == []
    assert defaults[SchemaFile.CAMPAIGN_CALLBACK, "attempts"] == 0
    assert defaults[SchemaFile.CONTACT_FEATURES, "attributes"] == {}
    assert defaults[SchemaFile.CONTACT_SCORE, "attributes"] == {}
    assert defaults[SchemaFile.CALLBACK_RECEIPT, "threshold"] is None
    audited = next(f for f in load_schema(SchemaFile.BATCH_AUDIT)["fields"] if f["name"] == "contacts")["type"]["items"]
    added = {field["name"]: field["default"] for field in audited["fields"] if "default" in field}
    assert added == {"event_id": "", "features_hash": None, "reused_from": None, "billed": True}


def test_a_package_without_its_schemas_is_a_settings_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "files", lambda _: tmp_path / "site" / "stream_scorer")
    with pytest.raises(SettingsError, match="the schemas are not part of this installation"):
        load_schema(SchemaFile.CONTACT_SCORE)


def test_a_wheel_carries_its_schemas_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "stream_scorer" / "schemas"
    inside.mkdir(parents=True)
    (inside / "contact-score.avsc").write_text('{"from": "wheel"}')
    monkeypatch.setattr(resources, "files", lambda _: tmp_path / "stream_scorer")
    assert load_schema(SchemaFile.CONTACT_SCORE) == {"from": "wheel"}
