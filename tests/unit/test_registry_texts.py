"""Arbitrary texts as schemas of a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka.schema_registry import RegisteredSchema, Schema
from confluent_kafka.schema_registry.error import SchemaRegistryError

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.errors import RegistryRefused, RegistryUnavailable
from stream_scorer.kafka.registry.client import SchemaRegistry, _parsed
from stream_scorer.kafka.registry.subjects import Comparison, compare, register
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka.schema_registry import SchemaRegistryClient


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('["null", "string"]', "which is no record"),
        ('"string"', "which is no record"),
        ("[" * 60_000, "which is nested too deep"),
        (" " * 65_537, "of 65537 characters, more than the 65536 allowed"),
    ],
    ids=range(4),
)
def test_a_text_that_is_no_schema_costs_the_value(text: str, why: str) -> None:
    with pytest.raises(UndecodableError, match=f"^the value was written with schema id 17, {why}"):
        _parsed(Schema(text, "AVRO"), 17)


@pytest.mark.parametrize(
    "schema", [Schema("", "AVRO"), Schema('{"type": ', "AVRO"), Schema(None, "AVRO"), Schema("{}", 5)]
)
def test_an_answer_that_is_none_costs_nothing_and_is_waited_out(schema: Schema) -> None:
    with pytest.raises(RegistryUnavailable, match=r"^schema id 17: the schema registry's answer"):
        _parsed(schema, 17)


class Client:
    """The registry client with a JSON schema under a subject, as Apicurio returns it."""

    def __init__(self, status: int) -> None:
        self._status = status

    def lookup_schema(self, _subject: str, _schema: Schema) -> RegisteredSchema:
        raise SchemaRegistryError(self._status, 42201, 'A schema "type" MUST be a primitive type')

    def get_versions(self, _subject: str) -> list[int]:
        return [1]

    def get_version(self, subject: str, version: int) -> RegisteredSchema:
        return RegisteredSchema(subject, version, 17, "guid", Schema('{"type": "object"}', "JSON"))


def registry(client: Client) -> SchemaRegistry:
    adapter = SchemaRegistry(load_settings(environ={"STREAM_SCORER_SCHEMA_REGISTRY__URL": "http://127.0.0.1:1"}))
    adapter._client = cast("SchemaRegistryClient", client)
    return adapter


@pytest.mark.parametrize("compared", [compare, register])
@pytest.mark.parametrize("status", [409, 422])
def test_a_schema_of_another_kind_under_our_subject_is_a_finding(
    status: int, compared: Callable[[SchemaRegistry, str, dict[str, Any]], Comparison]
) -> None:
    found = compared(registry(Client(status)), "scores-value", load_schema(SchemaFile.CONTACT_SCORE))
    assert found.problems == [
        "scores-value: not compatible with version 1 (id 17), a schema of type JSON, not Avro",
    ]


def test_a_403_names_the_registry_properties() -> None:
    with pytest.raises(RegistryRefused, match=r"check schema_registry\.properties"):
        compare(registry(Client(403)), "scores-value", load_schema(SchemaFile.CONTACT_SCORE))
