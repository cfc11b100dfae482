"""Scores in review for an operator: what is accepted, and its size with the headers of the decision."""

from __future__ import annotations

from typing import Any

import pytest

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.decisions import SIZED_DECISION
from stream_scorer.core.desk.desk_filter import DeskFilter
from stream_scorer.core.desk.record_filter import RecordFilter
from stream_scorer.core.desk.review import Accept, parse_review
from stream_scorer.core.desk.verdict import Decide, Output, Skip, SkipReason
from stream_scorer.core.records import SourceRecord
from stream_scorer.kafka.producer.dead_letter import too_large
from stream_scorer.kafka.producer.records import OutRecord

FIELDS: dict[str, Any] = {
    "score": 0.9,
    "confidence_lower": 0.1,
    "confidence_upper": 0.95,
    "review_reasons": ["wide_interval"],
    "contact_id": "C-1",
    "event_id": "E-1",
    "batch_id": "b",
}
RECORD = SourceRecord("review", 0, 7, b"C-1", b"value", [("stream-scorer-source", b"features/0/1"), ("own", b"kept")])
DECISION = SIZED_DECISION._replace(decision_id="d" * 36)


def accept(max_bytes: int) -> Accept:
    def fits(output: Output) -> bool:
        return not too_large(OutRecord(*output), max_bytes)

    return Accept(
        DeskFilter(RecordFilter(), frozenset(), None, lambda record: parse_review(record, lambda _: FIELDS)),
        features="features",
        scores="scores",
        encode=lambda fields: b"x" * 10_000 if fields["review_reasons"] == [] else b"",
        fits=fits,
    )


def test_a_value_that_is_no_score_is_not_called_a_score_out_of_range() -> None:
    def decode(_: bytes | None) -> dict[str, Any]:
        raise UndecodableError("text")

    judge = Accept(
        DeskFilter(RecordFilter(), frozenset(), None, lambda record: parse_review(record, decode)),
        features="features",
        scores="scores",
        encode=lambda _: b"",
        fits=lambda _: True,
    )
    assert judge.judge(RECORD, None) == Skip(SkipReason.NOT_DECIDABLE)


def published(max_bytes: int) -> Output | None:
    verdict = accept(max_bytes).judge(RECORD, None)
    if verdict == Skip(SkipReason.TOO_LARGE):
        return None
    assert isinstance(verdict, Decide)
    assert verdict.publish is not None
    return verdict.publish(DECISION)


@pytest.mark.parametrize("spare", [0, 1, 50, 100, 200])
def test_the_size_of_an_accepted_score_includes_the_headers_of_its_decision(spare: int) -> None:
    """A record that the topic refuses would end the job in the middle, and each resumption at the same record."""
    output = published(1_000_000)
    assert output is not None
    assert output.headers[-2:] == DECISION.headers
    limit = next(one for one in range(10_000, 20_000) if not too_large(OutRecord(*output), one))
    assert published(limit + spare) is not None
    assert published(limit - 1 - spare) is None
