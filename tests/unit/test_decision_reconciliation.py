"""Reconciliation of decisions: every planted fault is found, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from stream_scorer.core.desk.decisions import Decision
from stream_scorer.core.reconciliation.decisions import DecisionReconciliation, DecisionTopics, PublishedRecord
from stream_scorer.core.reconciliation.outcome_values import Content, payload_digest
from stream_scorer.core.reconciliation.score_report import Finding, FindingKind, Findings
from stream_scorer.core.reconciliation.scores import RecordLocation

WHERE = RecordLocation("decisions", 0, 1)
NOW_MS = 1_000
FIRST_MS = 500  # of the decisions topic
EXTENTS = {0: (0, 100)}


def decision(place: str = "rejected/0/1", result: str | None = "in/0/9", action: str = "REPLAYED") -> Decision:
    return Decision("id-1", place, "t", action, "j", "ada", "", 1, result)


def record(place: str = "in/0/9", decided: str = "rejected/0/1", decision_id: str = "") -> PublishedRecord:
    topic, partition, offset = place.split("/")
    return PublishedRecord(RecordLocation(topic, int(partition), int(offset)), decided, decision_id, NOW_MS)


def judge_of(
    records: list[PublishedRecord],
    decisions: list[Decision],
    *,
    first_ms: int | None = FIRST_MS,
    expired: frozenset[int] = frozenset(),
    written_ms: int = NOW_MS,
) -> DecisionReconciliation:
    published = {"REPLAYED": "in", "ACCEPTED": "scores"}
    ids = {"rejected": "t", "review": "t"}
    judge = DecisionReconciliation(
        DecisionTopics("decisions", published, ids, {"in": EXTENTS, "scores": EXTENTS}, expired)
    )
    for topic in published.values():
        judge.observe(RecordLocation(topic, 0, 0), 100)
    for one in records:
        judge.published(one)
    if first_ms is not None:
        judge.observe_decision(WHERE, first_ms)
    for place in decisions:
        judge.decision(place, WHERE, written_ms)
    return judge


def findings_of(judge: DecisionReconciliation) -> list[Finding]:
    findings = Findings()
    judge.close(findings)
    return list(findings.first)


def found(records: list[PublishedRecord], decisions: list[Decision], **options: Any) -> list[FindingKind]:
    return [one.kind for one in findings_of(judge_of(records, decisions, **options))]


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
def test_valid_decisions_have_no_finding(records: list[PublishedRecord], decisions: list[Decision]) -> None:
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


def test_deleted_records_and_former_topics_are_no_finding() -> None:
    assert found([], [decision(result="gone/0/1")]) == []
    assert found([], [decision()], written_ms=99) == []
    assert found([], [decision(), decision()], written_ms=99) == [FindingKind.DECIDED_TWICE]
    assert found([], [decision("elsewhere/0/1")]) == []


@pytest.mark.parametrize(
    ("first_ms", "expired", "cause"),
    [
        (NOW_MS, {0}, "retention deleted them"),
        (NOW_MS + 1, set(), "the topic was deleted and created again, or is another one than before"),
        (None, set(), "the topic is empty or absent"),
        (FIRST_MS, {1}, "retention deleted them"),
    ],
)
def test_records_with_a_deleted_decision_are_a_note(first_ms: int | None, expired: set[int], cause: str) -> None:
    judge = judge_of([record(), record("in/0/10")], [], first_ms=first_ms, expired=frozenset(expired))
    assert findings_of(judge) == []
    [note] = judge.notes()
    assert note.startswith(f"decisions: the decisions that published 2 records are not there ({cause}), the first of")
    assert note.endswith("at in/0/9; what they decided counts as open, and can be decided once more")


def test_a_record_that_is_younger_than_what_retention_left_has_its_decision() -> None:
    judge = judge_of([record()], [], expired=frozenset({0}))
    assert [one.kind for one in findings_of(judge)] == [FindingKind.NOT_DECIDED]
    assert judge.notes() == []


REJECTED = Content(b"key", b"value")


@pytest.mark.parametrize(
    ("content", "changes", "parts"),
    [
        (REJECTED, {}, ""),
        (Content(b"key", b"other"), {}, "its value differs"),
        (Content(b"other", b"value"), {}, "its key differs"),
        (Content(None, None), {}, "its key and value differ"),
        (Content(b"key", b"other"), {"a": "1"}, ""),
        (Content(b"other", b"other"), {"a": "1"}, "its key differs"),
    ],
)
def test_a_replayed_contact_has_the_bytes_of_its_rejection(
    content: Content, changes: dict[str, str], parts: str
) -> None:
    judge = judge_of([record()._replace(payload=payload_digest(content))], [decision()._replace(changes=changes)])
    assert judge.is_replayed(RecordLocation("rejected", 0, 1))
    assert not judge.is_replayed(RecordLocation("rejected", 0, 2))
    judge.rejection(RecordLocation("rejected", 0, 1), payload_digest(REJECTED))
    found = findings_of(judge)
    assert [one.kind for one in found] == [FindingKind.WRONG_VALUE] * bool(parts)
    assert all(parts in one.what and (one.source, one.where) == ("rejected/0/1", "in/0/9") for one in found)


@pytest.mark.parametrize("payload", [None, 0])
def test_bytes_are_compared_only_with_a_rejection_that_was_read(payload: int | None) -> None:
    other = record()._replace(payload=payload_digest(Content(b"key", b"other")))
    judge = judge_of([other], [decision()._replace(topic_id="former" if payload == 0 else "t")])
    judge.rejection(RecordLocation("rejected", 0, 1), payload)
    assert findings_of(judge) == []
