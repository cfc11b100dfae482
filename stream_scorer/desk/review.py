"""Desk of scores in review: the job that accepts or discards them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_scorer.core.desk.expression import REVIEW_NAMES
from stream_scorer.core.desk.record_rows import iso_time
from stream_scorer.core.desk.review import Accept, ReviewRecord, ReviewState, parse_review
from stream_scorer.core.scoring.types import ReviewReason
from stream_scorer.desk.record_desk import DeskOptions, RecordDesk, current_ms
from stream_scorer.kafka.admin.acls import review_desk_rights
from stream_scorer.kafka.admin.topic_limits import max_message_bytes
from stream_scorer.kafka.producer.dead_letter import too_large
from stream_scorer.kafka.producer.records import OutRecord
from stream_scorer.schema_files import SchemaFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.core.desk.decisions import DecidedRecords
    from stream_scorer.core.desk.desk_filter import DeskFilter
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.settings import Settings


@dataclass(frozen=True, slots=True)
class ReviewOptions(DeskOptions):
    """Options of a command that select scores in review."""

    known_reasons = tuple(ReviewReason)
    names = REVIEW_NAMES


class ReviewDesk(RecordDesk[ReviewOptions, ReviewRecord]):
    """See the module docstring; raises as `RecordDesk`."""

    states = ReviewState

    def __init__(self, settings: Settings) -> None:
        topics = settings.topics
        super().__init__(settings, topics.review, topics.scores, rights=review_desk_rights(settings))
        self._decode = self._framing.reader(SchemaFile.CONTACT_SCORE).decode

    def parse(self, record: SourceRecord) -> ReviewRecord | None:
        return parse_review(record, self._decode)

    def state(self, found: ReviewRecord, action: str | None, options: ReviewOptions) -> ReviewState:  # noqa: ARG002
        return found.state(action)

    def publishing_judge(self, selected: DeskFilter[ReviewRecord], options: ReviewOptions) -> Accept:  # noqa: ARG002
        topics = self._settings.topics
        limits = max_message_bytes(self._settings, [topics.scores])
        return Accept(
            selected,
            features=topics.features,
            scores=topics.scores,
            encode=self._framing.writer(SchemaFile.CONTACT_SCORE, (topics.scores,)).encode,
            fits=lambda output: not too_large(OutRecord(*output), limits[topics.scores]),
        )

    def explanations(self, options: ReviewOptions) -> Iterator[dict[str, Any]]:
        """Yield a row for each selected score: why it is in review, and how to decide."""
        decided = self.decided()
        for review in self.matching(options, current_ms()):
            yield self._explanation(review, decided)

    def _explanation(self, review: ReviewRecord, decided: DecidedRecords) -> dict[str, Any]:
        place = review.record.source
        fields = review.fields or {}
        problem = review.acceptance_problem
        state = review.state(decided.action(place))
        verb = "accept" if problem is None else "discard"
        remedy = f"can only be discarded: {problem}" if problem else "a person decides: accept publishes the score"
        if state is not ReviewState.OPEN:
            remedy = f"it was {state}"
        return {
            "place": place,
            "state": str(state),
            "source": "" if review.origin is None else "/".join(map(str, review.origin)),
            "contact_id": fields.get("contact_id"),
            "event_id": fields.get("event_id"),
            "campaign_id": fields.get("campaign_id"),
            "score": fields.get("score"),
            "confidence_lower": fields.get("confidence_lower"),
            "confidence_upper": fields.get("confidence_upper"),
            "interval_width": round(fields["confidence_upper"] - fields["confidence_lower"], 6) if fields else None,
            "model_version": fields.get("model_version"),
            "imputed_features": list(fields.get("imputed_features", ())),
            "scored_at": None if not fields else iso_time(fields["scored_at"]),
            "review_reasons": {reason: self._rule(reason) for reason in review.reasons},
            "acceptable": problem is None,
            "remedy": remedy,
            "command": f"stream-scorer review {verb} --place {place} --note …" if state is ReviewState.OPEN else "",
        }

    def _rule(self, reason: str) -> str:
        limits = self._settings.verification
        rules = {
            ReviewReason.NARROW_INTERVAL: f"the interval is narrower than {limits.min_interval_width}",
            ReviewReason.WIDE_INTERVAL: f"the interval is wider than {limits.max_interval_width}",
            ReviewReason.SCORE_OUT_OF_RANGE: "score or bounds are not from 0 to 1",
            ReviewReason.INTERVAL_INCONSISTENT: "the score is not within its bounds",
        }
        return rules.get(ReviewReason(reason), "") if reason in set(ReviewReason) else ""
