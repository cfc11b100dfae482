"""What a registry gives back as a schema may be any text."""

from __future__ import annotations

import pytest
from confluent_kafka.schema_registry import Schema

from stream_scorer.core.avro import UndecodableError
from stream_scorer.errors import RegistryUnavailable
from stream_scorer.kafka.registry import _parsed


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
