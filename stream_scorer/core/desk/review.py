"""Scores in review: what an operator accepts goes to the scores topic, and so triggers its callback."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.decisions import DECISION_HEADER, SIZED_DECISION, Action
from stream_scorer.core.desk.record_counts import UNKNOWN, campaign_name, time_of_ms
from stream_scorer.core.desk.record_filter import RecordIds
from stream_scorer.core.desk.rejected_record import REASON_HEADER
from stream_scorer.core.desk.verdict import Decide, NotSelected, Output, Skip, SkipReason
from stream_scorer.core.retry_topics import SOURCE_HEADER, parse_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.core.desk.decisions import Decision
    from stream_scorer.core.desk.desk_filter import DeskFilter
    from stream_scorer.core.desk.verdict import Verdict
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.core.retry_topics import Source

_SCORE_FIELDS: Final = ("score", "confidence_lower", "confidence_upper")
_VALUES: Final = ("contact_id", "event_id", "campaign_id", "model_id", "model_version", *_SCORE_FIELDS)


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
    def ids(self) -> RecordIds:
        fields = self.fields
        if fields is None:
            return RecordIds()
        return RecordIds((fields["contact_id"],), (fields["event_id"],), fields["batch_id"])

    @property
    def campaign(self) -> str:
        return UNKNOWN if self.fields is None else campaign_name(self.fields["campaign_id"])

    @property
    def values(self) -> Mapping[str, Any]:
        """The values of `stream_scorer.core.desk.expression.REVIEW_NAMES`."""
        fields = self.fields
        if fields is None:
            return {}
        return {name: fields[name] for name in _VALUES} | {
            "occurred_at": time_of_ms(fields["occurred_at"]),
            "scored_at": time_of_ms(fields["scored_at"]),
            "attributes": dict(fields["attributes"]),
        }

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


def parse_review(record: SourceRecord, decode: Callable[[bytes | None], Mapping[str, Any]]) -> ReviewRecord | None:
    """Return the score in review of a record; None: it is another record of the same topic.

    Args:
        record: of the review topic.
        decode: decodes its value, or raises `UndecodableError`.
    """
    origin = next((parse_source((value or b"").decode(errors="replace")) for value in _sources(record)), None)
    try:
        review = ReviewRecord(record, origin, decode(record.value))
    except UndecodableError:
        review = ReviewRecord(record, origin, None)
    return review if review.is_in_review else None


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
        selected: DeskFilter[ReviewRecord],
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
        review = self._selected.read(record)
        if review is None:
            return NotSelected()
        if review.origin is None or review.origin.topic != self._features:
            return Skip(SkipReason.FOREIGN)
        if action is not None:
            return Skip(SkipReason.DONE_BEFORE)
        if review.fields is None:
            return Skip(SkipReason.NOT_DECIDABLE)
        if review.acceptance_problem is not None:
            return Skip(SkipReason.ONLY_DISCARDABLE)
        value = self._encode({**review.fields, "review_reasons": []})

        def publish(decision: Decision) -> Output:
            return Output(self._scores, record.key, value, [*record.headers, *decision.headers], -1)

        return Decide(publish) if self._fits(publish(SIZED_DECISION)) else Skip(SkipReason.TOO_LARGE)


def _sources(record: SourceRecord) -> list[bytes | None]:
    return [value for name, value in record.headers if name == SOURCE_HEADER]
