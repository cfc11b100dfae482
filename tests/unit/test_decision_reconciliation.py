"""Reconciliation of decisions: every planted fault is found, and nothing else."""

from __future__ import annotations

import pytest

from stream_scorer.core.desk.decisions import Decision
from stream_scorer.core.reconciliation.decisions import DecisionReconciliation, PublishedRecord
from stream_scorer.core.reconciliation.score_report import FindingKind, Findings
from stream_scorer.core.reconciliation.scores import RecordLocation

WHERE = RecordLocation("decisions", 0, 1)


def decision(place: str = "rejected/0/1", result: str | None = "in/0/9", action: str = "REPLAYED") -> Decision:
    return Decision("id-1", place, "t", action, "j", "ada", "", 1, result)


def record(place: str = "in/0/9", decided: str = "rejected/0/1", decision_id: str = "") -> PublishedRecord:
    topic, partition, offset = place.split("/")
    return PublishedRecord(RecordLocation(topic, int(partition), int(offset)), decided, decision_id)


def found(
    records: list[PublishedRecord], decisions: list[Decision], *, has_all: bool = True, is_due: bool = True
) -> list[FindingKind]:
    actions = {"REPLAYED": "in", "ACCEPTED": "scores"}
    judge = DecisionReconciliation(actions, lambda topic, _, offset: topic != "gone" and offset < 100, has_all=has_all)
    for one in records:
        judge.published(one)
    for one in decisions:
        judge.decision(one, WHERE, is_due=is_due)
    findings = Findings()
    judge.close(findings)
    return [one.kind for one in findings.first]


ACCEPTED = decision("review/0/1", "scores/0/3", "ACCEPTED")


@pytest.mark.parametrize(
    ("records", "decisions"),
    [
        ([], []),
        ([record()], [decision()]),
        ([record("scores/0/3", "", "id-1")], [ACCEPTED]),
        ([], [decision(result="in/0/100")]),
        ([], [decision(action="DISCARDED")]),
        ([], [decision(action="POSTPONED")]),
        ([record(), record("in/0/10", "rejected/0/2")], [decision(), decision("rejected/0/2", "in/0/10")]),
        ([record()], [decision(), decision()._replace(topic_id="former", result_place="in/0/100")]),
    ],
)
def test_good_ones_have_no_finding(records: list[PublishedRecord], decisions: list[Decision]) -> None:
    assert found(records, decisions) == []


@pytest.mark.parametrize(
    ("records", "decisions", "kind"),
    [
        ([record()], [], FindingKind.NOT_DECIDED),
        ([], [decision()], FindingKind.NOT_PUBLISHED),
        ([], [decision(result=None)], FindingKind.NOT_PUBLISHED),
        ([record()], [decision(), decision("rejected/0/2")], FindingKind.NOT_PUBLISHED),
        ([record()], [decision(), decision(result=None)], FindingKind.DECIDED_TWICE),
        ([record()], [decision(), decision(result=None, action="DISCARDED")], FindingKind.DECIDED_TWICE),
        ([], [decision(action="DISCARDED"), decision(action="DISCARDED")], FindingKind.DECIDED_TWICE),
        ([record(decided="rejected/0/7")], [decision()], FindingKind.NOT_DECIDED),
        ([record("scores/0/3", "", "id-2")], [ACCEPTED], FindingKind.NOT_DECIDED),
        ([record("in/0/9", "", "id-1")], [decision(action="ACCEPTED")], FindingKind.NOT_DECIDED),
    ],
)
def test_each_fault_is_found(records: list[PublishedRecord], decisions: list[Decision], kind: FindingKind) -> None:
    assert found(records, decisions) == [kind]


def test_what_is_deleted_or_still_to_come_is_no_finding() -> None:
    assert found([record()], [], has_all=False) == []
    assert found([], [decision()], is_due=False) == []
    assert found([], [decision(result="gone/0/1")]) == []
