"""Reconciliation of scores and receipts: no finding without a fault; every planted fault is found, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.desk.decisions import Decision
from stream_scorer.core.reconciliation.callback_judgement import Truncated
from stream_scorer.core.reconciliation.callbacks import CallbackReconciliation, Codecs
from stream_scorer.core.reconciliation.decisions import DecisionReconciliation, DecisionTopics, PublishedRecord
from stream_scorer.core.reconciliation.lost_offsets import Lost
from stream_scorer.core.reconciliation.outcome_values import Content
from stream_scorer.core.reconciliation.score_report import FindingKind, Judgement
from stream_scorer.core.reconciliation.scores import CommittedRange, RecordLocation
from stream_scorer.core.records import Partition
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.reconciliation.callback_report import CallbackReport

CODECS = Codecs(
    Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE)),
    Codec.single_object(load_schema(SchemaFile.CAMPAIGN_CALLBACK)),
    Codec.single_object(load_schema(SchemaFile.CALLBACK_RECEIPT)),
)
COMMITTED = 10
WRITTEN_MS = 1_000
REJECTIONS = Partition("rejected", 0)
NO_SCORE = Content(b"c8", None)
RETRY_TOPICS = {"callbacks": 0, "retry-1": 0, "retry-4": 0}


def score(value: float, contact_id: str, review: tuple[str, ...] = (), campaign_id: str | None = None) -> Content:
    encoded = CODECS.score.encode(
        {
            "event_id": f"e-{contact_id}",
            "contact_id": contact_id,
            "campaign_id": campaign_id,
            "model_id": "m",
            "model_version": None,
            "score": value,
            "confidence_lower": 0.1,
            "confidence_upper": 0.9,
            "latency_ms": 1.0,
            "occurred_at": 1,
            "scored_at": 2,
            "imputed_features": [],
            "batch_id": "b",
            "review_reasons": list(review),
            "attributes": {},
        }
    )
    return Content(contact_id.encode(), encoded)


def about(callback_id: str, offsets: tuple[int, ...], **more: Any) -> dict[str, Any]:
    return {
        "callback_id": callback_id,
        "threshold": 0.5,
        "campaign_id": None,
        "target": "log",
        "sources": [f"scores/0/{offset}" for offset in offsets],
        "event_ids": [f"e-c{offset}" for offset in offsets],
        "contact_ids": [f"c{offset}" for offset in offsets],
        "attempts": 1,
        **more,
    }


def decisions(expired: frozenset[int] = frozenset()) -> DecisionReconciliation:
    published, readable = {"REDELIVERED": "callbacks"}, {"callbacks": {0: (0, 20)}}
    return DecisionReconciliation(DecisionTopics("decisions", published, {"rejected": "id"}, readable, expired))


class Judge:
    """Ten scores, of which 0 to 4 are due; ``callback`` and ``receipt`` add records as the worker does."""

    def __init__(
        self,
        taken: dict[str, int] | None = None,
        gone: Truncated | None = None,
        expired: frozenset[int] = frozenset(),
        **options: Any,
    ) -> None:
        self.ends: dict[str, int] = {}
        self.decided = decisions(expired)
        self.decided.observe_decision(self._place("decisions"), 0)  # the selection of a job
        self.taken = RETRY_TOPICS | (taken or {})
        self.scores: list[Content] = []
        self.judge = CallbackReconciliation(
            "scores",
            "g",
            {0: CommittedRange(0, COMMITTED)},
            self._offsets(),
            self.decided,
            threshold=0.75,
            codecs=CODECS,
            gone=Truncated() if gone is None else gone,
            **options,
        )
        for offset in range(COMMITTED + 2):
            high = 0.75 if offset == 0 else 0.9
            content = score(high if offset < 5 else 0.74, f"c{offset}", ("narrow_interval",) if offset == 9 else ())
            self.scores.append(NO_SCORE if offset == 8 else content)
            self.judge.score(0, offset, self.scores[-1], offset)
        self.rejected("scores/0/8")

    def _offsets(self) -> dict[Partition, int]:
        return {Partition(topic, 0): offset for topic, offset in self.taken.items()}

    def _place(self, topic: str) -> RecordLocation:
        self.ends[topic] = self.ends.get(topic, -1) + 1
        return RecordLocation(topic, 0, self.ends[topic])

    def callback(
        self, callback_id: str, *offsets: int, topic: str = "callbacks", decision: str = "", **more: Any
    ) -> None:
        fields = about(callback_id, offsets, body=b"{}", planned_at=1, not_before=1) | more
        place = self._place(topic)
        if topic == "callbacks":
            self.decided.observe(place, WRITTEN_MS)
            if decision:
                self.decided.published(PublishedRecord(place, decision_id=decision, written_ms=WRITTEN_MS))
        self.judge.callback(CODECS.callback.encode(fields), place, WRITTEN_MS, decision)

    def receipt(
        self, callback_id: str, *offsets: int, outcome: str = "DELIVERED", decision: str = "", **more: Any
    ) -> None:
        fields = about(callback_id, offsets, outcome=outcome, http_status=200, finished_at=1, latency_ms=1.0) | more
        self.judge.receipt(CODECS.receipt.encode(fields), self._place("receipts"), WRITTEN_MS, decision)

    def decide(
        self,
        decision_id: str,
        result: int | None,
        place: str = "rejected/0/9",
        written_ms: int = WRITTEN_MS,
        **changes: Any,
    ) -> None:
        """A decision to deliver a callback again; ``result``: the offset of its callback."""
        result_place = None if result is None else f"callbacks/0/{result}"
        decision = Decision(decision_id, place, "id", "REDELIVERED", "j", "ada", "", WRITTEN_MS, result_place)
        self.decided.decision(decision._replace(**changes), self._place("decisions"), written_ms)

    def rejected(self, source: str, content: Content | None = None, written_ms: int = WRITTEN_MS) -> None:
        """A score on the rejected topic, as it came where ``content`` is not given."""
        given = self.scores[int(source.rpartition("/")[2])] if content is None else content
        self.judge.rejected(source, given, self._place("rejected"), written_ms)

    def refused(
        self, callback_id: str, *offsets: int, content: Content | None = None, decision: str = "", **more: Any
    ) -> None:
        """A callback on the rejected topic."""
        fields = about(callback_id, offsets, body=b"{}", planned_at=1, not_before=1, **more)
        given = Content(callback_id.encode(), CODECS.callback.encode(fields)) if content is None else content
        self.judge.rejected("callbacks/0/0", given, self._place("rejected"), WRITTEN_MS, decision)

    def result(self, committed: int = COMMITTED, **taken: int) -> CallbackReport:
        self.taken |= {topic.replace("_", "-"): offset for topic, offset in taken.items()}
        return self.judge.result({0: committed}, self._offsets())


def all_well(judge: Judge) -> None:
    judge.callback("k1", 0, 1)
    judge.callback("k2", 2)
    judge.callback("k3", 3)
    judge.callback("k2", 2, topic="retry-1")
    judge.receipt("k1", 0, 1)
    judge.receipt("k3", 3, outcome="REFUSED")
    judge.refused("k3", 3)
    judge.receipt("k4", 4, outcome="EXPIRED")


def test_a_run_without_faults_holds_and_its_sums_add_up() -> None:
    judge = Judge(taken={"callbacks": 3})
    all_well(judge)
    report = judge.result()
    assert report.is_balanced, report.findings
    counts = report.counts
    assert (counts.scores, counts.called, counts.callbacks, counts.unusable, counts.unplanned) == (10, 5, 4, 1, 2)
    assert (counts.delivered, counts.refused, counts.gave_up, counts.expired, counts.waiting) == (2, 1, 0, 1, 1)
    assert report.equation == "5 scores ≥ 0.75 = 2 delivered + 1 refused + 0 given up + 1 expired + 1 waiting"
    assert report.as_dict()["totals"]["waiting"] == 1
    assert (report.before, report.below, report.foreign) == (0, 0, 0)


def test_concurrent_commits_are_no_fault() -> None:
    """The retry was read and its receipt written between the first and the last reading of the commits."""
    judge = Judge(taken={"callbacks": 3})
    all_well(judge)
    judge.receipt("k2", 2)
    report = judge.result(retry_1=1)
    assert report.is_balanced
    assert report.counts.delivered == 3


def found(report: CallbackReport) -> dict[FindingKind, int]:
    return dict(report.violations)


class TestPlantedFaults:
    @pytest.fixture
    def judge(self) -> Judge:
        judge = Judge(taken={"callbacks": 3})
        all_well(judge)
        return judge

    def test_a_score_without_callback(self) -> None:
        judge = Judge()
        judge.receipt("k", 0, 1, 2, 3)
        report = judge.result()
        assert found(report) == {FindingKind.MISSING: 1}
        assert report.findings[0].source == "scores/0/4"
        assert "≠" in report.equation

    def test_a_committed_callback_without_a_receipt(self) -> None:
        lost = Judge(taken={"callbacks": 1})
        lost.callback("k", 0, 1, 2, 3, 4)
        report = lost.result()
        assert found(report) == {FindingKind.MISSING: 5}
        assert "was taken" in report.findings[0].what

    def test_two_receipts(self, judge: Judge) -> None:
        judge.receipt("k1", 0, 1)
        assert found(judge.result()) == {FindingKind.DOUBLED: 1}

    @pytest.mark.parametrize(
        "changes",
        [
            {"contact_ids": ["c1", "c0"]},
            {"contact_ids": ["c0"]},
            {"event_ids": ["e-c1", "e-c0"]},
            {"sources": ["scores/0/1", "scores/0/0"]},
            {"sources": ["scores/0/0"]},
            {"campaign_id": "another"},
        ],
    )
    def test_a_receipt_that_differs_from_its_callback(self, changes: dict[str, Any]) -> None:
        judge = Judge(taken={"callbacks": 1})
        judge.callback("k1", 0, 1)
        judge.receipt("k2", 2, 3, 4)
        judge.receipt("k1", 0, 1, **changes)
        report = judge.result()
        assert found(report) == {FindingKind.WRONG_VALUE: 1}
        assert report.findings[0].where == "receipts/0/1"

    def divided(self, outcomes: dict[int, str], *, rejected: bool = True, planned: bool = True) -> Judge:
        """A callback of the scores 0 to 2, with a receipt for each of these contacts."""
        judge = Judge(taken={"callbacks": 1})
        if planned:
            judge.callback("k1", 0, 1, 2)
        judge.receipt("k2", 3, 4)
        for offset, outcome in outcomes.items():
            judge.receipt("k1", offset, outcome=outcome)
        if rejected:
            judge.refused("k1", 0, 1, 2)
        return judge

    @pytest.mark.parametrize("planned", [True, False])
    def test_receipts_that_share_the_contacts_of_a_callback(self, planned: bool) -> None:
        judge = self.divided({0: "DELIVERED", 1: "REFUSED", 2: "DELIVERED"}, planned=planned)
        report = judge.result()
        assert report.is_balanced, report.findings
        assert (report.counts.delivered, report.counts.refused, report.counts.waiting) == (4, 1, 0)

    def test_a_contact_without_its_part(self) -> None:
        report = self.divided({0: "DELIVERED", 2: "REFUSED"}).result()
        assert found(report) == {FindingKind.MISSING: 1}
        assert report.findings[0].source == "scores/0/1"

    def test_a_contact_with_two_parts(self) -> None:
        judge = self.divided({0: "DELIVERED", 1: "REFUSED", 2: "DELIVERED"})
        judge.receipt("k1", 1)
        report = judge.result()
        assert found(report) == {FindingKind.DOUBLED: 1}
        assert report.findings[0].source == "scores/0/1"

    @pytest.mark.parametrize("offsets", [(1,), (0, 1, 2)])
    def test_a_part_and_a_receipt_for_all(self, offsets: tuple[int, ...]) -> None:
        judge = Judge(taken={"callbacks": 1})
        judge.callback("k1", 0, 1, 2)
        judge.receipt("k2", 3, 4)
        judge.receipt("k1", 0, 1, 2)
        judge.receipt("k1", *offsets)
        assert found(judge.result()) == {FindingKind.DOUBLED: 1}

    def test_a_part_with_a_contact_of_another_callback(self) -> None:
        judge = self.divided({0: "DELIVERED", 1: "DELIVERED", 2: "DELIVERED", 3: "DELIVERED"}, rejected=False)
        report = judge.result()
        assert found(report) == {FindingKind.WRONG_VALUE: 1}
        assert report.findings[0].source == "scores/0/3"

    def test_a_part_with_another_contact(self) -> None:
        judge = self.divided({0: "DELIVERED", 1: "DELIVERED"}, rejected=False)
        judge.receipt("k1", 2, contact_ids=["c9"])
        assert found(judge.result()) == {FindingKind.WRONG_CONTACT: 1}

    def test_a_refused_part_whose_callback_does_not_stand_on_the_rejected_topic(self) -> None:
        report = self.divided({0: "DELIVERED", 1: "REFUSED", 2: "DELIVERED"}, rejected=False).result()
        assert found(report) == {FindingKind.MISSING: 1}

    def test_a_receipt_without_events_is_that_of_an_older_writer(self) -> None:
        judge = Judge(taken={"callbacks": 1})
        judge.callback("k1", 0, 1)
        judge.receipt("k2", 2, 3, 4)
        judge.receipt("k1", 0, 1, event_ids=[])
        assert judge.result().is_balanced

    def test_a_receipt_and_still_waiting(self, judge: Judge) -> None:
        judge.receipt("k2", 2)
        assert found(judge.result()) == {FindingKind.DOUBLED: 1}

    def test_waiting_twice(self, judge: Judge) -> None:
        judge.callback("k2", 2, topic="retry-4")
        assert found(judge.result()) == {FindingKind.DOUBLED: 1}

    def test_planned_twice(self, judge: Judge) -> None:
        judge.receipt("k9", 0)
        report = judge.result()
        assert found(report) == {FindingKind.DOUBLED: 1}
        assert report.findings[0].source == "scores/0/0"

    def test_planned_before_it_was_committed(self, judge: Judge) -> None:
        judge.receipt("k9", 11)
        assert found(judge.result()) == {FindingKind.EARLY: 1}
        again = Judge(taken={"callbacks": 3})
        all_well(again)
        again.receipt("k9", 11)
        assert again.result(committed=12).is_balanced

    def test_another_contact(self) -> None:
        judge = Judge()
        judge.receipt("k", 0, 1, 2, 3, 4, contact_ids=["c0", "c1", "c2", "c4", "c3"])
        assert found(judge.result()) == {FindingKind.WRONG_CONTACT: 2}

    def test_a_receipt_without_a_committed_score(self) -> None:
        judge = CallbackReconciliation(
            "scores", "g", {0: CommittedRange(0, 5)}, {}, decisions(), threshold=0.75, codecs=CODECS, gone=Truncated()
        )
        judge.score(0, 0, score(0.1, "c0"), 0)
        value = CODECS.receipt.encode(
            about("k", (3,), outcome="DELIVERED", http_status=200, finished_at=1, latency_ms=1.0)
        )
        judge.receipt(value, RecordLocation("receipts", 0, 0), WRITTEN_MS)
        assert found(judge.result({0: 5}, {})) == {FindingKind.NO_INPUT: 1}

    @pytest.mark.parametrize(("times", "holds"), [(1, True), (2, False)])
    def test_a_due_score_that_fits_no_callback_is_rejected_once(self, times: int, holds: bool) -> None:
        judge = Judge()
        judge.receipt("k1", 0, 1, 2, 3)
        for _ in range(times):
            judge.rejected("scores/0/4")
        report = judge.result()
        assert report.is_balanced is holds
        assert (report.counts.called, report.counts.unusable) == (4, 2)

    @pytest.mark.parametrize(
        ("content", "holds"),
        [
            (Content(b"c8", b"another value"), False),
            (Content(b"another key", None), False),
            (Content(b"c8", None, truncated=True), True),
            (Content(None, None, truncated=True), True),
        ],
    )
    def test_another_record_on_the_rejected_topic(self, content: Content, holds: bool) -> None:
        judge = CallbackReconciliation(
            "scores", "g", {0: CommittedRange(0, 1)}, {}, decisions(), threshold=0.75, codecs=CODECS, gone=Truncated()
        )
        judge.score(0, 0, NO_SCORE, 0)
        judge.rejected("scores/0/0", content, RecordLocation("rejected", 0, 0), WRITTEN_MS)
        assert found(judge.result({0: 1}, {})) == ({} if holds else {FindingKind.WRONG_VALUE: 1})

    def test_a_score_in_a_callback_that_stands_on_the_rejected_topic(self, judge: Judge) -> None:
        judge.rejected("scores/0/1")
        report = judge.result()
        assert found(report) == {FindingKind.DOUBLED: 1}
        assert report.findings[0].source == "scores/0/1"

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
    def test_a_score_without_a_valid_number_must_be_rejected(self, number: float) -> None:
        judge = CallbackReconciliation(
            "scores", "g", {0: CommittedRange(0, 1)}, {}, decisions(), threshold=0.75, codecs=CODECS, gone=Truncated()
        )
        judge.score(0, 0, score(number, "c"), 0)
        assert found(judge.result({0: 1}, {})) == {FindingKind.MISSING: 1}

    @pytest.mark.parametrize("outcome", ["REFUSED", "GAVE_UP"])
    def test_a_refused_callback_that_does_not_stand_on_the_rejected_topic(self, outcome: str) -> None:
        judge = Judge()
        judge.receipt("k", 0, 1, 2, 3, 4, outcome=outcome)
        report = judge.result()
        assert found(report) == {FindingKind.MISSING: 1}
        assert report.findings[0].where == "receipts/0/0"

    @pytest.mark.parametrize(
        ("changes", "kind"),
        [
            ({"body": b"{ }"}, FindingKind.WRONG_VALUE),
            ({"campaign_id": "another"}, FindingKind.WRONG_VALUE),
            ({"contact_ids": ["c5"]}, FindingKind.WRONG_VALUE),
            ({}, FindingKind.DOUBLED),
        ],
    )
    def test_another_callback_on_the_rejected_topic(self, changes: dict[str, Any], kind: FindingKind) -> None:
        judge = Judge(taken={"callbacks": 2})
        judge.callback("k", 0, 1, 2, 3)
        judge.callback("k4", 4)
        judge.receipt("k", 0, 1, 2, 3)
        judge.receipt("k4", 4, outcome="REFUSED")
        fields = about("k4", (4,), body=b"{}", planned_at=1, not_before=1) | changes
        if kind is FindingKind.DOUBLED:
            judge.refused("k4", 4)
        judge.refused("k4", content=Content(b"k4", CODECS.callback.encode(fields)))
        assert found(judge.result()) == {kind: 1}

    def test_a_callback_too_large_for_the_rejected_topic(self) -> None:
        judge = Judge()
        judge.receipt("k", 0, 1, 2, 3, 4, outcome="REFUSED")
        judge.refused("k", content=Content(b"k", None, truncated=True))
        assert judge.result().is_balanced

    @pytest.mark.parametrize("changes", [{"body": b"{ }"}, {"campaign_id": "another"}])
    def test_a_retry_that_differs_from_what_was_planned(self, judge: Judge, changes: dict[str, Any]) -> None:
        judge.callback("k3", 3, topic="retry-1", **changes)
        report = judge.result(retry_1=2)
        assert found(report)[FindingKind.WRONG_VALUE] == 1

    def test_a_callback_of_another_campaign_than_its_score(self) -> None:
        judge = Judge()
        judge.receipt("k", 0, 1, 2, 3, 4, campaign_id="another")
        assert found(judge.result()) == {FindingKind.WRONG_VALUE: 5}

    def test_an_unusable_score_that_is_nowhere_and_one_that_stands_twice(self, judge: Judge) -> None:
        judge.rejected("scores/0/8")
        assert found(judge.result()) == {FindingKind.DOUBLED: 1}
        silent = CallbackReconciliation(
            "scores", "g", {0: CommittedRange(0, 1)}, {}, decisions(), threshold=0.75, codecs=CODECS, gone=Truncated()
        )
        silent.score(0, 0, Content(None, b"no score"), 0)
        assert found(silent.result({0: 1}, {})) == {FindingKind.MISSING: 1}


class TestRetentionAndThresholds:
    """Records that retention may have deleted, and plans with another threshold."""

    def test_a_threshold_that_was_lowered(self) -> None:
        """Scores 1 to 4 (0.9) were planned with 0.95: none of them is due, and no lower one was delivered."""
        judge = Judge()
        judge.judge.score(0, COMMITTED, score(0.99, "late"), 0)
        report = judge.result()
        assert report.judgement is Judgement.NOT_JUDGED
        assert report.violations == {}
        assert report.counts.threshold_not_judged == 5
        assert report.equation.endswith("+ 0 waiting + 5 not judged")
        assert "the threshold may have been higher" in report.verdict

    def test_a_threshold_that_was_lowered_in_the_middle(self) -> None:
        judge = Judge()
        judge.receipt("k", 3, 4)
        report = judge.result()
        assert report.violations == {}
        assert (report.counts.threshold_not_judged, report.counts.delivered) == (3, 2)

    def test_a_score_after_a_lower_delivered_one_is_missing(self) -> None:
        judge = Judge()
        judge.receipt("k", 1, 2)
        report = judge.result()
        assert report.violations == {FindingKind.MISSING: 2}
        assert [finding.source for finding in report.findings] == ["scores/0/3", "scores/0/4"]
        assert report.counts.threshold_not_judged == 1

    def test_deleted_receipts(self) -> None:
        """The first remaining receipt is newer than all scores: their receipts may be deleted."""
        judge = Judge(gone=Truncated(frozenset({Partition("receipts", 0)})))
        judge.receipt("k", 0, 1)
        report = judge.result()
        assert report.violations == {}
        assert report.counts.receipt_not_judged == 3
        assert "3 scores whose receipt may be deleted" in report.verdict

    def test_no_receipt_is_left(self) -> None:
        report = Judge(gone=Truncated(frozenset({Partition("receipts", 0)}))).result()
        assert report.judgement is Judgement.NOT_JUDGED
        assert report.counts.receipt_not_judged == 5

    def test_a_score_that_is_newer_than_the_first_receipt_left_is_missing(self) -> None:
        judge = Judge(gone=Truncated(frozenset({Partition("receipts", 0)})))
        fields = about("k", (0, 1), outcome="DELIVERED", http_status=200, finished_at=1, latency_ms=1.0)
        judge.judge.receipt(
            CODECS.receipt.encode(fields), RecordLocation("receipts", 0, 0), 2
        )  # score 2 was written at 2
        report = judge.result()
        assert report.violations == {FindingKind.MISSING: 2}
        assert report.counts.receipt_not_judged == 1

    def test_a_callback_that_was_taken_and_whose_receipt_may_be_deleted(self) -> None:
        judge = Judge(taken={"callbacks": 1}, gone=Truncated(frozenset({Partition("receipts", 0)})))
        judge.callback("k", 0, 1, 2, 3, 4)
        assert judge.result().counts.receipt_not_judged == 5

    @pytest.mark.parametrize("gone", [Truncated(rejections=frozenset({REJECTIONS})), Truncated(compacted=True)])
    def test_deleted_rejections(self, gone: Truncated) -> None:
        judge = CallbackReconciliation(
            "scores", "g", {0: CommittedRange(0, 1)}, {}, decisions(), threshold=0.75, codecs=CODECS, gone=gone
        )
        judge.score(0, 0, Content(None, b"no score"), 0)
        report = judge.result({0: 1}, {})
        assert report.judgement is Judgement.NOT_JUDGED
        assert report.counts.rejection_not_judged == 1

    def test_the_rejection_of_a_callback_that_may_be_deleted(self) -> None:
        judge = Judge(gone=Truncated(rejections=frozenset({REJECTIONS})))
        judge.receipt("k", 0, 1, 2, 3, 4, outcome="REFUSED")
        report = judge.result()
        assert report.judgement is Judgement.NOT_JUDGED
        assert report.counts.rejection_not_judged == 1

    def test_a_rejection_that_is_newer_than_the_first_one_left_is_missing(self) -> None:
        judge = Judge(gone=Truncated(rejections=frozenset({REJECTIONS})))
        fields = about("k", (0, 1, 2, 3, 4), outcome="REFUSED", http_status=400, finished_at=1, latency_ms=1.0)
        judge.judge.receipt(CODECS.receipt.encode(fields), RecordLocation("receipts", 0, 0), WRITTEN_MS + 1)
        assert judge.result().violations == {FindingKind.MISSING: 1}

    @pytest.mark.parametrize("compacted", [True, False])
    def test_a_score_that_was_compacted_away_after_it_was_called(self, compacted: bool) -> None:
        judge = CallbackReconciliation(
            "scores",
            "g",
            {0: CommittedRange(0, 2)},
            {},
            decisions(),
            threshold=0.75,
            codecs=CODECS,
            gone=Truncated(),
            compacted=compacted,
        )
        judge.score(0, 1, score(0.9, "c1"), 1)
        fields = about("k", (0, 1), outcome="DELIVERED", http_status=200, finished_at=1, latency_ms=1.0)
        judge.receipt(CODECS.receipt.encode(fields), RecordLocation("receipts", 0, 0), WRITTEN_MS)
        report = judge.result({0: 2}, {})
        assert found(report) == ({} if compacted else {FindingKind.NO_INPUT: 1})
        assert report.counts.delivered == 1

    def test_a_foreign_commit(self) -> None:
        judge = Judge(unknown_starts=[0])
        judge.receipt("k", 0, 1, 2, 3, 4)
        assert judge.result().judgement is Judgement.NOT_JUDGED


class TestNewTopic:
    """A recreated topic: the same locations had other scores before."""

    def judge(self) -> Judge:
        """The scores of the present topic are delivered; the group has accepted it at 500."""
        judge = Judge(since_ms={0: 500}, gone=Truncated())
        judge.receipt("k", 0, 1, 2, 3, 4)
        return judge

    def about_former(self, outcome: str = "DELIVERED") -> bytes:
        fields = about("former", (0, 1), contact_ids=["x", "y"], event_ids=["e-x", "e-y"])
        return CODECS.receipt.encode(fields | {"outcome": outcome, "http_status": 1, "finished_at": 1, "latency_ms": 1})

    def test_receipts_of_the_former_topic(self) -> None:
        judge = self.judge()
        judge.judge.receipt(self.about_former(), RecordLocation("receipts", 1, 0), 499)
        report = judge.result()
        assert report.is_balanced, report.findings
        assert report.before == 2

    def test_a_callback_of_the_former_topic_that_is_delivered_later(self) -> None:
        """It was pending in a retry topic, where its record was written again since then."""
        judge = self.judge()
        fields = about("former", (0,), contact_ids=["x"], event_ids=["e-x"], body=b"{}", planned_at=499, not_before=1)
        judge.judge.callback(CODECS.callback.encode(fields), RecordLocation("retry-1", 0, 0), 900)
        receipt = fields | {"outcome": "DELIVERED", "http_status": 200, "finished_at": 1, "latency_ms": 1}
        judge.judge.receipt(CODECS.receipt.encode(receipt), RecordLocation("receipts", 1, 0), 900)
        report = judge.result(retry_1=1)
        assert report.is_balanced, report.findings
        assert (report.before, report.counts.delivered) == (1, 5)

    def test_rejected_scores_of_the_former_topic(self) -> None:
        judge = self.judge()
        judge.rejected("scores/0/8", Content(b"x", b"no score either"), written_ms=499)
        assert judge.result().is_balanced

    def test_a_fault_of_the_present_topic(self) -> None:
        judge = self.judge()
        judge.judge.receipt(self.about_former(), RecordLocation("receipts", 1, 0), 500)
        assert found(judge.result()) == {FindingKind.DOUBLED: 2, FindingKind.WRONG_CONTACT: 2}


def test_scores_that_were_deleted_before_the_planner_read_them() -> None:
    judge = Judge(lost={0: [Lost(COMMITTED, COMMITTED + 3)]})
    judge.receipt("k", 0, 1, 2, 3, 4)
    report = judge.result()
    assert report.violations == {FindingKind.LOST: 1}
    assert report.findings[0].source == f"scores/0/{COMMITTED}"


def test_another_event_in_a_receipt() -> None:
    judge = Judge()
    judge.receipt("k", 0, 1, 2, 3, 4, event_ids=["e-c0", "e-c1", "e-c2", "e-c4", "e-c3"])
    assert found(judge.result()) == {FindingKind.WRONG_VALUE: 2}


@pytest.mark.parametrize("junk", [None, b"", b"junk", CODECS.score.encode])
def test_foreign_records_are_counted_and_not_compared(junk: Any) -> None:
    judge = Judge(taken={"callbacks": 3})
    all_well(judge)
    judge.receipt("k9", 6)  # below the threshold
    value = score(0.9, "c").value if callable(junk) else junk
    judge.judge.callback(value, RecordLocation("callbacks", 0, 99), WRITTEN_MS)
    judge.judge.receipt(value, RecordLocation("receipts", 0, 99), WRITTEN_MS)
    fields = about("other", (), sources=["other/0/1", "scores/7/1", "scores/0/x", "scores/0"], contact_ids=["c"] * 4)
    receipt = fields | {"outcome": "DELIVERED", "http_status": 200, "finished_at": 1, "latency_ms": 1.0}
    judge.judge.receipt(CODECS.receipt.encode(receipt), RecordLocation("receipts", 0, 100), WRITTEN_MS)
    report = judge.result()
    assert report.is_balanced
    assert (report.below, report.foreign) == (1, 6)


def test_foreign_duplicate_receipts_are_one_note() -> None:
    judge = Judge(taken={"callbacks": 3})
    all_well(judge)
    for _ in range(2):
        judge.receipt("foreign\r\nline", sources=["elsewhere/0/1"], contact_ids=["c"])
    assert judge.result().is_balanced
    for _ in range(2):
        judge.receipt("ours\r\nnot", 0)
    assert all("\n" not in str(finding) for finding in judge.result().findings)


# --- redelivered callbacks


def redelivered(judge: Judge) -> None:
    """Return a valid run in which k3, which was rejected, was redelivered."""
    all_well(judge)
    judge.receipt("k2", 2)
    judge.callback("k3", 3, decision="d1")
    judge.receipt("k3", 3, decision="d1")
    judge.decide("d1", 3)


TAKEN = {"callbacks": 9, "retry-1": 9}


def test_a_callback_delivered_again_has_one_more_receipt() -> None:
    judge = Judge(taken=TAKEN)
    redelivered(judge)
    report = judge.result()
    assert report.is_balanced, report.findings
    counts = report.counts
    assert (counts.delivered, counts.refused, counts.redeliveries, counts.callbacks) == (3, 1, 1, 4)


def test_a_redelivery_that_is_rejected_again_or_pending_is_valid() -> None:
    judge = Judge(taken=TAKEN | {"retry-1": 1})
    redelivered(judge)
    judge.callback("k3", 3, decision="d2")
    judge.receipt("k3", 3, decision="d2", outcome="REFUSED")
    judge.refused("k3", 3, decision="d2")
    judge.decide("d2", 4, place="rejected/0/10")
    judge.callback("k3", 3, decision="d3")
    judge.callback("k3", 3, decision="d3", topic="retry-1")
    judge.decide("d3", 5, place="rejected/0/11")
    report = judge.result()
    assert report.is_balanced, report.findings
    assert report.counts.redeliveries == 3


def test_parts_of_a_redelivery_share_its_sources() -> None:
    judge = Judge(taken=TAKEN)
    redelivered(judge)
    judge.callback("k1", 0, 1, decision="d2")
    judge.receipt("k1", 0, decision="d2")
    judge.receipt("k1", 1, decision="d2", outcome="REFUSED")
    judge.refused("k1", 0, 1, decision="d2")
    judge.decide("d2", 4, place="rejected/0/10")
    report = judge.result()
    assert report.is_balanced, report.findings


def call(method: str, *arguments: Any, **named: Any) -> Callable[[Judge], None]:
    """Return a deferred call of a method of the harness."""

    def make(judge: Judge) -> None:
        getattr(judge, method)(*arguments, **named)

    return make


PLANTED: dict[str, tuple[tuple[Callable[[Judge], None], ...], FindingKind, str]] = {
    "without its decision": (
        (call("callback", "k1", 0, 1, decision="d2"), call("receipt", "k1", 0, 1, decision="d2")),
        FindingKind.NOT_DECIDED,
        "no decision names it",
    ),
    "a receipt without a decision": (
        (call("receipt", "k1", 0, 1, decision="d2"),),
        FindingKind.NOT_DECIDED,
        "has no such decision",
    ),
    "a decision without its callback": (
        (call("decide", "d2", 4, place="rejected/0/10"),),
        FindingKind.NOT_PUBLISHED,
        "what it published at callbacks/0/4 is not there",
    ),
    "a decision without a place": (
        (call("decide", "d2", None, place="rejected/0/10"),),
        FindingKind.NOT_PUBLISHED,
        "names no record",
    ),
    "a receipt too many": (
        (call("receipt", "k3", 3, decision="d1"),),
        FindingKind.DOUBLED,
        "has one more receipt",
    ),
    "a second receipt of the plan": (
        (call("receipt", "k3", 3),),
        FindingKind.DOUBLED,
        "has one more receipt",
    ),
    "two callbacks of one decision": (
        (call("callback", "k3", 3, decision="d1"),),
        FindingKind.NOT_DECIDED,
        "no decision names it",
    ),
    "decided twice": (
        (
            call("callback", "k3", 3, decision="d2"),
            call("receipt", "k3", 3, decision="d2"),
            call("decide", "d2", 4),
        ),
        FindingKind.DECIDED_TWICE,
        "has one more decision",
    ),
    "no receipt": (
        (call("callback", "k1", 0, 1, decision="d2"), call("decide", "d2", 4, place="rejected/0/10")),
        FindingKind.MISSING,
        "has no receipt for 2 of its contacts",
    ),
    "another body": (
        (
            call("callback", "k1", 0, 1, decision="d2", body=b"other"),
            call("receipt", "k1", 0, 1, decision="d2"),
            call("decide", "d2", 4, place="rejected/0/10"),
        ),
        FindingKind.WRONG_VALUE,
        "has another body",
    ),
    "refused again, and not on the rejected topic": (
        (
            call("callback", "k1", 0, 1, decision="d2"),
            call("receipt", "k1", 0, 1, decision="d2", outcome="REFUSED"),
            call("decide", "d2", 4, place="rejected/0/10"),
        ),
        FindingKind.MISSING,
        "does not stand on the rejected topic",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_of_a_redelivery_is_found(name: str) -> None:
    plant, kind, words = PLANTED[name]
    judge = Judge(taken=TAKEN)
    redelivered(judge)
    for step in plant:
        step(judge)
    report = judge.result()
    assert [one.kind for one in report.findings] == [kind], report.findings
    assert words in report.findings[0].what


def retargeted(*offsets: int) -> CallbackReport:
    judge = Judge(taken=TAKEN)
    redelivered(judge)
    judge.callback("new", *offsets, decision="d2", body=b"new")
    judge.receipt("new", *offsets, decision="d2")
    judge.decide("d2", 4, place="rejected/0/10", changes={"retargeted": "k3"})
    return judge.result()


def test_a_new_body_under_a_new_id_has_the_same_contacts() -> None:
    report = retargeted(3)
    assert report.is_balanced, report.findings
    assert report.counts.redeliveries == 2
    other = retargeted(4)
    assert [one.kind for one in other.findings] == [FindingKind.WRONG_VALUE]


@pytest.mark.parametrize(
    "changes",
    [{"result_place": "callbacks/0/20"}, {"written_ms": 1}, {"action": "DISCARDED"}],
)
def test_a_decision_whose_callback_is_not_read_is_no_fault(changes: dict[str, Any]) -> None:
    judge = Judge(taken=TAKEN)
    redelivered(judge)
    judge.decide("d2", 4, **{"place": "rejected/0/10", **changes})
    assert judge.result().is_balanced


def test_locations_of_a_former_rejected_topic_can_be_decided_again() -> None:
    judge = Judge(taken=TAKEN)
    redelivered(judge)
    judge.callback("k3", 3, decision="d2")
    judge.receipt("k3", 3, decision="d2")
    judge.decide("d2", 4, topic_id="former")
    assert judge.result().is_balanced


def test_a_redelivery_whose_decision_may_be_deleted_is_not_compared() -> None:
    judge = Judge(taken=TAKEN, expired=frozenset({1}))
    all_well(judge)
    judge.receipt("k2", 2)
    judge.callback("k3", 3, decision="d1")
    judge.receipt("k3", 3, decision="d1")
    report = judge.result()
    assert report.judgement is Judgement.NOT_JUDGED
    assert report.counts.redelivery_not_judged == 1
    [note] = report.notes
    assert note.startswith("decisions: the decisions that published 1 records are not there (retention deleted them)")
