"""The judge of scores and receipts: a run without faults holds; every kind of planted fault is found, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.core.avro import Codec
from stream_scorer.core.callback_reconciling import CallbackReconciliation, Codecs
from stream_scorer.core.events import Partition
from stream_scorer.core.findings import FindingKind
from stream_scorer.core.reconciling import Place, Span
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from stream_scorer.core.callback_findings import CallbackReport

CODECS = Codecs(
    Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE)),
    Codec.single_object(load_schema(SchemaFile.CAMPAIGN_CALLBACK)),
    Codec.single_object(load_schema(SchemaFile.CALLBACK_RECEIPT)),
)
COMMITTED = 10
TIERS = {"callbacks": 0, "retry-1": 0, "retry-4": 0}


def score(value: float, contact_id: str, review: tuple[str, ...] = ()) -> bytes:
    return CODECS.score.encode(
        {
            "event_id": f"e-{contact_id}",
            "contact_id": contact_id,
            "campaign_id": None,
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
        }
    )


def about(callback_id: str, offsets: tuple[int, ...], **more: Any) -> dict[str, Any]:
    return {
        "callback_id": callback_id,
        "campaign_id": None,
        "target": "log",
        "sources": [f"scores/0/{offset}" for offset in offsets],
        "event_ids": [f"e-c{offset}" for offset in offsets],
        "contact_ids": [f"c{offset}" for offset in offsets],
        "attempts": 1,
        **more,
    }


class Judge:
    """Ten scores, of which 0 to 4 call; ``callback`` and ``receipt`` put records where the worker would."""

    def __init__(self, taken: dict[str, int] | None = None) -> None:
        self.taken = TIERS | (taken or {})
        self.ends: dict[str, int] = {}
        self.judge = CallbackReconciliation(
            "scores", "g", {0: Span(0, COMMITTED)}, self._offsets(), threshold=0.75, codecs=CODECS
        )
        for offset in range(COMMITTED + 2):
            high = 0.75 if offset == 0 else 0.9
            value = score(high if offset < 5 else 0.74, f"c{offset}", ("narrow_interval",) if offset == 9 else ())
            self.judge.score(0, offset, None if offset == 8 else value)
        self.rejected("scores/0/8")

    def _offsets(self) -> dict[Partition, int]:
        return {Partition(topic, 0): offset for topic, offset in self.taken.items()}

    def _place(self, topic: str) -> Place:
        self.ends[topic] = self.ends.get(topic, -1) + 1
        return Place(topic, 0, self.ends[topic])

    def callback(self, callback_id: str, *offsets: int, topic: str = "callbacks") -> None:
        fields = about(callback_id, offsets, body=b"{}", planned_at=1, not_before=1)
        self.judge.callback(CODECS.callback.encode(fields), self._place(topic))

    def receipt(self, callback_id: str, *offsets: int, outcome: str = "DELIVERED", **more: Any) -> None:
        fields = about(callback_id, offsets, outcome=outcome, http_status=200, finished_at=1, latency_ms=1.0) | more
        self.judge.receipt(CODECS.receipt.encode(fields), self._place("receipts"))

    def rejected(self, source: str) -> None:
        self.judge.rejected(source, self._place("rejected"))

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
    judge.receipt("k4", 4, outcome="EXPIRED")


def test_a_run_without_faults_holds_and_its_sums_add_up() -> None:
    judge = Judge(taken={"callbacks": 3})
    all_well(judge)
    report = judge.result()
    assert report.holds, report.findings
    counts = report.counts
    assert (counts.scores, counts.called, counts.callbacks, counts.unusable, counts.unplanned) == (10, 5, 4, 1, 2)
    assert (counts.delivered, counts.refused, counts.gave_up, counts.expired, counts.waiting) == (2, 1, 0, 1, 1)
    assert report.equation == "5 scores ≥ 0.75 = 2 delivered + 1 refused + 0 given up + 1 expired + 1 waiting"
    assert report.as_dict()["totals"]["waiting"] == 1
    assert (report.before, report.below, report.foreign) == (0, 0, 0)


def test_what_goes_on_meanwhile_is_no_fault() -> None:
    """The retry was taken, and its receipt written, between the first reading of the commits and the last."""
    judge = Judge(taken={"callbacks": 3})
    all_well(judge)
    judge.receipt("k2", 2)
    report = judge.result(retry_1=1)
    assert report.holds
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

    def test_a_callback_that_was_taken_and_left_no_receipt(self) -> None:
        lost = Judge(taken={"callbacks": 1})
        lost.callback("k", 0, 1, 2, 3, 4)
        report = lost.result()
        assert found(report) == {FindingKind.MISSING: 5}
        assert "was taken" in report.findings[0].what

    def test_two_receipts(self, judge: Judge) -> None:
        judge.receipt("k1", 0, 1)
        assert found(judge.result()) == {FindingKind.DOUBLED: 1}

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
        assert again.result(committed=12).holds

    def test_another_contact(self) -> None:
        judge = Judge()
        judge.receipt("k", 0, 1, 2, 3, 4, contact_ids=["c0", "c1", "c2", "c4", "c3"])
        assert found(judge.result()) == {FindingKind.WRONG_CONTACT: 2}

    def test_a_score_that_no_reader_finds(self) -> None:
        judge = CallbackReconciliation("scores", "g", {0: Span(0, 5)}, {}, threshold=0.75, codecs=CODECS)
        judge.score(0, 0, score(0.1, "c0"))
        value = CODECS.receipt.encode(
            about("k", (3,), outcome="DELIVERED", http_status=200, finished_at=1, latency_ms=1.0)
        )
        judge.receipt(value, Place("receipts", 0, 0))
        assert found(judge.result({0: 5}, {})) == {FindingKind.NO_INPUT: 1}

    @pytest.mark.parametrize(("times", "holds"), [(1, True), (2, False)])
    def test_a_score_that_calls_and_cannot_stand_in_a_callback_is_rejected_once(self, times: int, holds: bool) -> None:
        judge = Judge()
        judge.receipt("k1", 0, 1, 2, 3)
        for _ in range(times):
            judge.rejected("scores/0/4")
        report = judge.result()
        assert report.holds is holds
        assert (report.counts.called, report.counts.unusable) == (4, 2)

    def test_an_unusable_score_that_is_nowhere_and_one_that_stands_twice(self, judge: Judge) -> None:
        judge.rejected("scores/0/8")
        assert found(judge.result()) == {FindingKind.DOUBLED: 1}
        silent = CallbackReconciliation("scores", "g", {0: Span(0, 1)}, {}, threshold=0.75, codecs=CODECS)
        silent.score(0, 0, b"no score")
        assert found(silent.result({0: 1}, {})) == {FindingKind.MISSING: 1}


@pytest.mark.parametrize("junk", [None, b"", b"junk", CODECS.score.encode])
def test_what_is_not_ours_is_counted_and_not_judged(junk: Any) -> None:
    judge = Judge(taken={"callbacks": 3})
    all_well(judge)
    judge.receipt("k9", 6)  # below the threshold
    value = score(0.9, "c") if callable(junk) else junk
    judge.judge.callback(value, Place("callbacks", 0, 99))
    judge.judge.receipt(value, Place("receipts", 0, 99))
    fields = about("other", (), sources=["other/0/1", "scores/7/1", "scores/0/x", "scores/0"], contact_ids=["c"] * 4)
    receipt = fields | {"outcome": "DELIVERED", "http_status": 200, "finished_at": 1, "latency_ms": 1.0}
    judge.judge.receipt(CODECS.receipt.encode(receipt), Place("receipts", 0, 100))
    report = judge.result()
    assert report.holds
    assert (report.below, report.foreign) == (1, 6)


def test_what_others_receipt_twice_is_not_judged_and_shown_in_one_line() -> None:
    judge = Judge(taken={"callbacks": 3})
    all_well(judge)
    for _ in range(2):
        judge.receipt("foreign\r\nline", sources=["elsewhere/0/1"], contact_ids=["c"])
    assert judge.result().holds
    for _ in range(2):
        judge.receipt("ours\r\nnot", 0)
    assert all("\n" not in str(finding) for finding in judge.result().findings)
