"""Scores in review: what an operator accepts goes to the scores topic, and so triggers its callback."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.decisions import DECISION_HEADER, Action
from stream_scorer.core.desk.record_counts import time_of_ms
from stream_scorer.core.desk.record_filter import RecordIds
from stream_scorer.core.desk.rejected_record import REASON_HEADER
from stream_scorer.core.desk.verdict import Decide, NotSelected, Output, Skip, SkipReason
from stream_scorer.core.retry_topics import SOURCE_HEADER, parse_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.core.desk.decisions import Decision
    from stream_scorer.core.desk.expression import Expression
    from stream_scorer.core.desk.record_filter import RecordFilter
    from stream_scorer.core.desk.verdict import Verdict
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.core.retry_topics import Source

_SCORE_FIELDS: Final = ("score", "confidence_lower", "confidence_upper")


class ReviewState(StrEnum):
    """State of a score in review for an operator."""

    OPEN = "open"
    ACCEPTED = "accepted"
    DISCARDED = "discarded"


class ReviewRecord(NamedTuple):
    """Score in review.

    Attributes:
        record: the record.
        origin: place of the input; None: the record is not from a scoring worker.
        fields: the fields of its ``ContactScore``; None: the value is none.
    """

    record: SourceRecord
    origin: Source | None
    fields: Mapping[str, Any] | None

    @property
    def is_in_review(self) -> bool:
        """Whether it is in review: a topic may hold other scores, rejections and audit events beside these."""
        names = {name for name, _ in self.record.headers}
        if not names.isdisjoint((DECISION_HEADER, REASON_HEADER)):
            return False
        return self.origin is not None if self.fields is None else bool(self.reasons)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Its review reasons."""
        return () if self.fields is None else tuple(self.fields["review_reasons"])

    @property
    def acceptance_problem(self) -> str | None:
        """Why the score cannot be accepted; None: it can."""
        if self.fields is None:
            return "the value is no ContactScore"
        for name in _SCORE_FIELDS:
            if not math.isfinite(self.fields[name]):
                return f"{name} is not finite"
        return None if 0 <= self.fields["score"] <= 1 else "score is not from 0 to 1"

    @staticmethod
    def state(action: str | None) -> ReviewState:
        """Return its state; ``action``: what was decided about it, None: nothing."""
        if action is None:
            return ReviewState.OPEN
        return ReviewState.ACCEPTED if action == Action.ACCEPTED else ReviewState.DISCARDED


@dataclass(frozen=True, slots=True)
class ReviewFilter:
    """Filter of scores in review; an empty part matches all.

    Attributes:
        records: the common options.
        reasons: review reasons.
        expression: an expression about the score; None: there is none.
        decode: decodes a value.
    """

    records: RecordFilter
    reasons: frozenset[str]
    expression: Expression | None
    decode: Callable[[bytes | None], Mapping[str, Any]]

    def parse(self, record: SourceRecord) -> ReviewRecord:
        """Return the score in review of a record."""
        origin = next((parse_source((value or b"").decode(errors="replace")) for value in _sources(record)), None)
        try:
            return ReviewRecord(record, origin, self.decode(record.value))
        except UndecodableError:
            return ReviewRecord(record, origin, None)

    def matches(self, review: ReviewRecord) -> bool:
        """Return whether a score is selected."""
        fields = review.fields
        if not review.is_in_review:
            return False
        if self.reasons and self.reasons.isdisjoint(review.reasons):
            return False
        ids = RecordIds()
        if fields is not None:
            ids = RecordIds((fields["contact_id"],), (fields["event_id"],), fields["batch_id"])
        if not self.records.matches(review.record, ids):
            return False
        return self.expression is None or (fields is not None and self.expression.matches(values_of(fields)))


class Accept:
    """Judge that accepts scores in review.

    Args:
        selected: the filter.
        features: name of the features topic; scores of other inputs are those of another program.
        scores: name of the scores topic.
        encode: the value of a score.
        fits: whether the scores topic accepts a record for its size.
    """

    action = Action.ACCEPTED

    def __init__(
        self,
        selected: ReviewFilter,
        *,
        features: str,
        scores: str,
        encode: Callable[[Mapping[str, Any]], bytes],
        fits: Callable[[Output], bool],
    ) -> None:
        self._selected = selected
        self._features = features
        self._scores = scores
        self._encode = encode
        self._fits = fits

    def judge(self, record: SourceRecord, action: str | None) -> Verdict:
        """Return the verdict about a record of the review topic."""
        review = self._selected.parse(record)
        if not self._selected.matches(review):
            return NotSelected()
        if review.origin is None or review.origin.topic != self._features:
            return Skip(SkipReason.FOREIGN)
        if action is not None:
            return Skip(SkipReason.DONE_BEFORE)
        if review.fields is None or review.acceptance_problem is not None:
            return Skip(SkipReason.ONLY_DISCARDABLE)
        value = self._encode({**review.fields, "review_reasons": []})
        output = Output(self._scores, record.key, value, record.headers, -1)
        if not self._fits(output):
            return Skip(SkipReason.TOO_LARGE)

        def publish(decision: Decision) -> Output:
            return output._replace(headers=[*record.headers, *decision.headers])

        return Decide(publish)


def values_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for an expression (see `stream_scorer.core.desk.expression.REVIEW_NAMES`)."""
    names = ("contact_id", "event_id", "campaign_id", "model_id", "model_version", *_SCORE_FIELDS)
    return {name: fields[name] for name in names} | {
        "occurred_at": time_of_ms(fields["occurred_at"]),
        "scored_at": time_of_ms(fields["scored_at"]),
        "attributes": dict(fields["attributes"]),
    }


def _sources(record: SourceRecord) -> list[bytes | None]:
    return [value for name, value in record.headers if name == SOURCE_HEADER]
