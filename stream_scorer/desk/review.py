"""Desk of scores in review: the job that accepts or discards them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.desk.discard import Discard
from stream_scorer.core.desk.expression import REVIEW_NAMES, Expression
from stream_scorer.core.desk.record_counts import UNKNOWN, RecordCounts, campaign_name
from stream_scorer.core.desk.record_rows import iso_time
from stream_scorer.core.desk.review import Accept, ReviewFilter, ReviewState
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
    from stream_scorer.core.desk.record_counts import GroupBy
    from stream_scorer.core.desk.review import ReviewRecord
    from stream_scorer.settings import Settings


@dataclass(frozen=True, slots=True)
class ReviewOptions(DeskOptions):
    """Options of a command that select scores in review."""

    def check(self) -> None:
        """Check what needs no cluster.

        Raises:
            UsageError: an option is malformed, or names an unknown reason.
        """
        self.check_selection(list(ReviewReason), REVIEW_NAMES)


class ReviewDesk(RecordDesk[ReviewOptions]):
    """See the module docstring; raises as `RecordDesk`."""

    def __init__(self, settings: Settings) -> None:
        topics = settings.topics
        super().__init__(settings, topics.review, topics.scores, rights=review_desk_rights(settings))
        self._decode = self._framing.reader(SchemaFile.CONTACT_SCORE).decode

    def judge(self, action: Action, options: ReviewOptions, now_ms: int) -> Accept | Discard:
        selected = self._selected(options, now_ms)
        if action is not Action.ACCEPTED:
            return Discard(lambda record: selected.matches(selected.parse(record)))
        topics = self._settings.topics
        limits = max_message_bytes(self._settings, [topics.scores])
        return Accept(
            selected,
            features=topics.features,
            scores=topics.scores,
            encode=self._framing.writer(SchemaFile.CONTACT_SCORE, (topics.scores,)).encode,
            fits=lambda output: not too_large(OutRecord(*output), limits[topics.scores]),
        )

    def counts(self, options: ReviewOptions, by: GroupBy) -> RecordCounts:
        """Count the selected scores; one with several reasons counts for the first."""
        decided = self.decided()
        counts = RecordCounts(by, list(ReviewState))
        for review in self._matching(options):
            reason = review.reasons[0] if review.reasons else UNKNOWN
            campaign = UNKNOWN if review.fields is None else campaign_name(review.fields["campaign_id"])
            counts.add(
                review.record, review.state(decided.action(review.record.source)), reason=reason, campaign=campaign
            )
        return counts

    def open(self, options: ReviewOptions, by: GroupBy) -> int:
        """Count the selected scores without a decision."""
        return self.counts(options, by).total(ReviewState.OPEN)

    def explanations(self, options: ReviewOptions) -> Iterator[dict[str, Any]]:
        """Yield a row for each selected score: why it is in review, and how to decide."""
        decided = self.decided()
        for review in self._matching(options):
            yield self._explanation(review, decided)

    def _explanation(self, review: ReviewRecord, decided: DecidedRecords) -> dict[str, Any]:
        place = review.record.source
        fields = review.fields or {}
        problem = review.acceptance_problem
        state = review.state(decided.action(place))
        verb = "accept" if problem is None else "discard"
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
            "remedy": f"can only be discarded: {problem}"
            if problem
            else "a person decides: accept publishes the score",
            "command": f"stream-scorer review {verb} --place {place} --note …",
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

    def _matching(self, options: ReviewOptions) -> Iterator[ReviewRecord]:
        now_ms = current_ms()
        selected, left = self._selected(options, now_ms), options.limit
        for record in self.scan(options, now_ms).records():
            if left == 0:
                return
            review = selected.parse(record)
            if selected.matches(review):
                left = None if left is None else left - 1
                yield review

    def _selected(self, options: ReviewOptions, now_ms: int) -> ReviewFilter:
        expression = None if options.where is None else Expression(options.where, REVIEW_NAMES)
        return ReviewFilter(options.records(now_ms), frozenset(options.reasons), expression, self._decode)
