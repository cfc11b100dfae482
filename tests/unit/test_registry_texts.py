"""What a registry gives back as a schema may be any text."""

from __future__ import annotations

import pytest
from confluent_kafka.schema_registry import Schema

from stream_scorer.core.avro import UndecodableError
from stream_scorer.kafka.registry import _parsed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('["null", "string"]', "which is no record"),
        ('"string"', "which is no record"),
        ("", "which is no valid JSON"),
        ('{"type": ', "which is no valid JSON"),
        ("[" * 60_000, "which is no valid JSON"),
        (" " * 65_537, "of 65537 characters, more than the 65536 allowed"),
    ],
    ids=range(6),
)
def test_a_text_that_is_no_schema_costs_the_value(text: str, why: str) -> None:
    with pytest.raises(UndecodableError, match=f"^the value was written with schema id 17, {why}"):
        _parsed(Schema(text, "AVRO"), 17)
