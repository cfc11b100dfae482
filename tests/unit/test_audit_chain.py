"""`stream_scorer.verify_audit_chain`: both framings, every kind of damage, clear errors."""

from __future__ import annotations

from typing import Any

import pytest
from test_audit_events import CODEC, build, chain, request, scored

from stream_scorer import verify_audit_chain
from stream_scorer.core.avro.confluent import confluent_header
from stream_scorer.errors import InputError


def whole() -> list[bytes]:
    audit = chain()
    values: list[bytes] = []
    for offset in range(4):
        plan = audit.plan(build([scored(offset, request(f"batch-{offset}"))])[0])
        audit.confirm(plan)
        values += plan.values
    return values


def confluent(value: bytes) -> bytes:
    return confluent_header(17) + CODEC.payload_of(value)


@pytest.mark.parametrize("framed", [bytes, confluent])
def test_a_whole_chain_has_no_findings(framed: Any) -> None:
    assert verify_audit_chain(map(framed, whole())) == []
    assert verify_audit_chain([]) == []


@pytest.mark.parametrize("framed", [bytes, confluent])
def test_a_missing_event_and_a_changed_one_are_found(framed: Any) -> None:
    first, second, third, fourth = map(framed, whole())
    [gap] = verify_audit_chain([first, third, fourth])
    assert "1 was expected here" in gap
    changed = second.replace(b"batch-1", b"batch-9")
    assert changed != second
    [forged] = verify_audit_chain([first, changed, third, fourth])
    assert "sequence 1" in forged


def test_an_invalid_event_is_named_by_its_location() -> None:
    [finding] = verify_audit_chain([b"junk"])
    assert finding.startswith("event 0: ")


@pytest.mark.parametrize(
    ("values", "words"),
    [(whole()[0], "values is a single value"), ([*whole()[:1], "text"], "value 1 is no bytes"), ([None], "value 0")],
)
def test_unsupported_input_is_one_clear_error(values: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        verify_audit_chain(values)
