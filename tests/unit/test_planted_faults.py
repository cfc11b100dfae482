"""Reconciliation of contacts and outcomes: each of fifty planted faults is found, and none in valid states."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from reconciliation_harness import (
    CODECS,
    Output,
    Retry,
    audit_of,
    chained,
    entry,
    input_content,
    judged,
    make_judge,
    output_content,
    source,
)

from stream_scorer.core.reconciliation.log_gaps import LogGaps
from stream_scorer.core.reconciliation.lost_offsets import Lost, parse_lost
from stream_scorer.core.reconciliation.score_report import FindingKind, Judgement
from stream_scorer.core.reconciliation.scores import CommittedRange, Content, Kind, RecordLocation
from stream_scorer.core.records import Partition

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.reconciliation.score_report import Report

N = 12
KINDS = {5: Kind.REVIEW, 6: Kind.REVIEW, 8: Kind.REJECTED, 9: Kind.REJECTED}
BROKEN = Content(b"c", b"no contact at all")


@dataclass
class Run:
    """Twelve inputs of one partition, all committed: 5 and 6 in review, 8 and 9 rejected, 11 in a retry topic.

    Each part may be changed before the reconciliation. ``outputs`` is by input, so that a fault names its victim.
    """

    inputs: dict[int, Content] = field(default_factory=lambda: {n: input_content(source(n)) for n in range(N)})
    outputs: list[tuple[Output, Content]] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    retries: list[tuple[Retry, Content]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    gaps: LogGaps = field(default_factory=LogGaps)
    options: dict[str, Any] = field(default_factory=dict)
    committed: int = N

    def __post_init__(self) -> None:
        done = [Output(source(n), KINDS.get(n, Kind.SCORED)) for n in range(N - 1)]
        self.outputs = [(output, output_content(output)) for output in done]
        self.entries = [entry(output) for output in done]
        self.retries = [(Retry(source(N - 1)), input_content(source(N - 1)))]

    def content(self, n: int) -> Content:
        return self.outputs[n][1]

    def put(self, n: int, content: Content) -> None:
        """Replace key or value of the output of an input."""
        self.outputs[n] = (self.outputs[n][0], content)

    def score(self, n: int, **changes: Any) -> None:
        """Replace fields of the score of an input."""
        self.put(n, output_content(self.outputs[n][0], **changes))

    def audit(self, n: int, **changes: Any) -> None:
        """Replace fields of the audit entry of an input."""
        self.entries[n] |= changes

    def swap(self, one: int, other: int) -> None:
        """Exchange key and value of two outputs."""
        first, second = self.content(one), self.content(other)
        self.put(one, second._replace(reason=first.reason))
        self.put(other, first._replace(reason=second.reason))

    def report(self) -> Report:
        event = audit_of(self.entries, **self.facts)
        event["counts"] |= self.counts
        return judged(
            {0: [*self.inputs, self.committed]},
            self.outputs,
            chained(event),
            spans={0: CommittedRange(0, self.committed)},
            contents={source(n): content for n, content in self.inputs.items()},
            deferred=self.retries,
            gaps=self.gaps,
            **self.options,
        )


def swapped_values(run: Run) -> None:
    """Exchange the values only."""
    first, second = run.content(1), run.content(2)
    run.put(1, first._replace(value=second.value))
    run.put(2, second._replace(value=first.value))


def swapped_numbers(run: Run) -> None:
    first, second = run.entries[1], run.entries[2]
    names = ("score", "confidence_lower", "confidence_upper")
    for to, other in ((1, second), (2, first)):
        run.score(to, **{name: other[name] for name in names})


def bit(run: Run, n: int, at: int) -> None:
    """Flip one bit of a value."""
    value = bytearray(run.content(n).value or b"")
    value[at] ^= 1
    run.put(n, run.content(n)._replace(value=bytes(value)))


def drop(run: Run, n: int) -> None:
    del run.outputs[n]


def drop_both(run: Run, n: int) -> None:
    del run.outputs[n], run.entries[n]


def add(run: Run, output: Output) -> None:
    run.outputs.append((output, output_content(output)))


def garble_input(run: Run) -> None:
    run.inputs[3] = BROKEN


def foreign_retry(run: Run) -> None:
    run.retries[0] = (Retry(source(N - 1)), input_content(source(2)))


VALUE, UNREADABLE = FindingKind.WRONG_VALUE, FindingKind.UNREADABLE_VALUE
FAULTS: dict[str, tuple[Callable[[Run], object], FindingKind]] = {
    # swapped
    "two scores swapped": (lambda run: run.swap(1, 2), VALUE),
    "two values swapped, keys not": (swapped_values, VALUE),
    "two scores with each other's numbers": (swapped_numbers, VALUE),
    "two reviews swapped": (lambda run: run.swap(5, 6), VALUE),
    "two rejections swapped": (lambda run: run.swap(8, 9), VALUE),
    "two audit entries with each other's contact": (
        lambda run: (run.audit(1, contact_id="c-in/0/2"), run.audit(2, contact_id="c-in/0/1")),
        FindingKind.WRONG_CONTACT,
    ),
    "two audit entries with each other's source": (
        lambda run: (run.audit(1, source=source(2)), run.audit(2, source=source(1))),
        FindingKind.WRONG_CONTACT,
    ),
    # changed
    "another key": (lambda run: run.put(1, run.content(1)._replace(key=b"other")), VALUE),
    "no key": (lambda run: run.put(1, run.content(1)._replace(key=None)), VALUE),
    "another contact": (lambda run: run.score(1, contact_id="other"), VALUE),
    "another event": (lambda run: run.score(1, event_id="other"), VALUE),
    "another campaign": (lambda run: run.score(1, campaign_id="other"), VALUE),
    "no campaign": (lambda run: run.score(1, campaign_id=None), VALUE),
    "another time of the event": (lambda run: run.score(1, occurred_at=1), VALUE),
    "another attribute": (lambda run: run.score(1, attributes={"phone": "+49-2", "language": "de"}), VALUE),
    "no attributes": (lambda run: run.score(1, attributes={}), VALUE),
    "another version than the event asked for": (lambda run: run.score(1, model_version="v2"), VALUE),
    "another model": (lambda run: run.score(1, model_id="other"), VALUE),
    "another score": (lambda run: run.score(1, score=0.2501), VALUE),
    "another lower bound": (lambda run: run.score(1, confidence_lower=0.0), VALUE),
    "another upper bound": (lambda run: run.score(1, confidence_upper=1.0), VALUE),
    "another latency": (lambda run: run.score(1, latency_ms=13.0), VALUE),
    "another time of the answer": (lambda run: run.score(1, scored_at=1), VALUE),
    "other imputed features": (lambda run: run.score(1, imputed_features=[]), VALUE),
    "another batch in the value": (lambda run: run.score(1, batch_id="b-2"), VALUE),
    "other review reasons": (lambda run: run.score(5, review_reasons=["narrow_interval"]), VALUE),
    "review without reasons": (lambda run: run.score(5, review_reasons=[]), VALUE),
    "a score with review reasons": (lambda run: run.score(1, review_reasons=["narrow_interval"]), VALUE),
    "one bit of a score": (lambda run: bit(run, 1, -30), VALUE),
    "one bit of a rejection": (lambda run: bit(run, 8, -1), VALUE),
    "another key of a rejection": (lambda run: run.put(8, run.content(8)._replace(key=b"other")), VALUE),
    "a rejection without value": (lambda run: run.put(8, run.content(8)._replace(value=None)), VALUE),
    "another reason": (lambda run: run.put(8, run.content(8)._replace(reason="wrong_type")), VALUE),
    "audit: another score": (lambda run: run.audit(1, score=0.9), VALUE),
    "audit: no score": (lambda run: run.audit(1, score=None), VALUE),
    "audit: another reason": (lambda run: run.audit(8, reasons=["wrong_type"]), VALUE),
    "audit: another contact of a rejection": (lambda run: run.audit(8, contact_id="x"), FindingKind.WRONG_CONTACT),
    "audit: another model": (lambda run: run.facts.update(model_id="other"), VALUE),
    "another batch in the header": (
        lambda run: run.outputs.__setitem__(1, (replace(run.outputs[1][0], batch_id="b-2"), run.content(1))),
        FindingKind.WRONG_BATCH,
    ),
    # foreign
    "a contact's score under another source": (lambda run: run.put(1, run.content(2)), VALUE),
    "a score for an input that cannot be read": (garble_input, VALUE),
    "another contact in a retry topic": (foreign_retry, VALUE),
    # unreadable
    "no score at all": (lambda run: run.put(1, Content(b"c-in/0/1", b"no score at all")), UNREADABLE),
    "a null value": (lambda run: run.put(1, run.content(1)._replace(value=None)), UNREADABLE),
    "an input as a score": (lambda run: run.put(1, input_content(source(1))), UNREADABLE),
    "a cut score": (lambda run: run.put(5, run.content(5)._replace(value=run.content(5).value[:-3])), UNREADABLE),
    # missing and doubled
    "no output": (lambda run: drop(run, 4), FindingKind.MISSING),
    "no output, no audit entry": (lambda run: drop_both(run, 4), FindingKind.MISSING),
    "no rejection": (lambda run: drop(run, 8), FindingKind.MISSING),
    "waits nowhere": (lambda run: run.retries.clear(), FindingKind.MISSING),
    "no audit entry": (lambda run: run.entries.pop(4), FindingKind.NOT_AUDITED),
    "one more score": (lambda run: add(run, Output(source(4))), FindingKind.DOUBLED),
    "a rejection of a contact with a score": (
        lambda run: add(run, Output(source(4), Kind.REJECTED)),
        FindingKind.DOUBLED,
    ),
    "one more audit entry": (
        lambda run: run.entries.append(entry(Output(source(4)))),
        FindingKind.AUDITED_TWICE,
    ),
    "waits and has a score": (
        lambda run: run.retries.append((Retry(source(4)), input_content(source(4)))),
        FindingKind.WAITING_AND_FINISHED,
    ),
    # counts
    "one scored too many": (lambda run: run.counts.update(scored=8), FindingKind.WRONG_COUNTS),
    "one received too few": (lambda run: run.counts.update(received=10), FindingKind.WRONG_COUNTS),
    "review counted as scored": (lambda run: run.counts.update(scored=9, review=0), FindingKind.WRONG_COUNTS),
    "no rejected": (lambda run: run.counts.update(rejected=0), FindingKind.WRONG_COUNTS),
    "deleted before it was read": (lambda run: run.options.update(lost={0: [Lost(12, 15)]}), FindingKind.LOST),
}


def test_the_run_has_no_fault() -> None:
    report = Run().report()
    assert report.is_balanced, report.findings
    assert report.equation == "12 inputs = 7 scores + 2 review + 2 rejected + 1 deferred"
    assert len(FAULTS) >= 50


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    plant, kind = FAULTS[name]
    run = Run()
    plant(run)
    report = run.report()
    assert report.judgement is Judgement.BROKEN
    assert kind in report.counts, report.findings
    assert set(report.counts) <= {kind, VALUE}, report.findings


def test_no_finding_repeats_a_value() -> None:
    """Contact ids and values are personal data; sources and names of fields are not."""
    for plant, _ in FAULTS.values():
        run = Run()
        plant(run)
        for finding in run.report().findings:
            assert "c-in" not in finding.what
            assert "e-in" not in finding.what


class TestWithoutFault:
    """Valid states that differ from the usual run."""

    def test_a_truncated_rejection(self) -> None:
        run = Run()
        run.put(8, run.content(8)._replace(value=None, truncated=True))
        run.put(9, Content(None, None, run.content(9).reason, truncated=True))
        assert run.report().is_balanced

    def test_a_rejection_that_could_not_be_read(self) -> None:
        run = Run()
        run.inputs[8] = BROKEN
        run.put(8, BROKEN._replace(reason="undecodable"))
        run.audit(8, contact_id="", reasons=["undecodable"])
        assert run.report().is_balanced

    def test_a_rejected_contact_id_that_audits_cut(self) -> None:
        long = "x" * 300
        run = Run()
        run.inputs[8] = input_content(source(8), contact_id=long)
        run.put(8, run.inputs[8]._replace(reason="invalid_contact"))
        run.audit(8, contact_id="x" * 256, reasons=["invalid_contact"])
        assert run.report().is_balanced

    def test_an_event_without_version_or_campaign(self) -> None:
        run = Run()
        run.inputs[1] = input_content(source(1), model_version=None, campaign_id=None)
        run.score(1, campaign_id=None)
        assert run.report().is_balanced

    def test_an_input_whose_schema_the_registry_no_longer_has(self) -> None:
        run = Run()
        run.inputs[1] = Content(b"c", b"\x00\x00\x00\x00\x07an event")
        assert run.report().is_balanced

    def test_invalid_numbers(self) -> None:
        run = Run()
        none = {"score": float("nan"), "confidence_upper": float("inf")}
        run.score(5, **none, review_reasons=["score_out_of_range"])
        run.audit(5, **none, reasons=["score_out_of_range"])
        assert run.report().is_balanced

    def test_a_new_topic(self) -> None:
        report = judged({}, [], [], spans={0: CommittedRange(0, 0)})
        assert report.is_balanced

    def test_a_compacted_features_topic(self) -> None:
        run = Run()
        del run.inputs[2], run.inputs[8]
        run.options["compacted"] = True
        assert run.report().is_balanced

    def test_outcomes_of_a_running_worker_above_the_first_commit(self) -> None:
        run = Run()
        output = Output(source(N))
        report = judged(
            {0: range(N + 1)},
            [*run.outputs, (output, output_content(output))],
            chained(audit_of([*run.entries, entry(output)])),
            spans={0: CommittedRange(0, N)},
            committed={0: N + 1},
            deferred=run.retries,
        )
        assert report.is_balanced


SCORES, REVIEW, AUDIT = (Partition(topic, 0) for topic in ("scores", "review", "audit"))


class TestRetention:
    """Outcomes that their topic may have deleted are not compared; all others are."""

    def truncated(self, *partitions: Partition, first: int) -> Run:
        """A run whose scores below ``first`` are deleted."""
        run = Run()
        run.gaps = LogGaps(partitions)
        run.outputs = [one for one in run.outputs if one[0].kind is not Kind.SCORED or number(one) >= first]
        return run

    def test_deleted_records_are_not_compared(self) -> None:
        report = self.truncated(SCORES, first=4).report()
        assert report.judgement is Judgement.NOT_JUDGED
        assert not report.is_balanced
        assert (report.totals.not_judged, report.totals.missing, report.findings) == (4, 0, ())
        assert report.equation == "12 inputs = 3 scores + 2 review + 2 rejected + 1 deferred + 4 not judged"
        assert report.verdict == (
            "group group on in could not be judged: 4 inputs whose outcome may be deleted; no finding in the rest"
        )
        assert report.as_dict()["judgement"] == "not_judged"
        assert report.as_dict()["totals"]["not_judged"] == 4

    def test_all_of_an_output_partition(self) -> None:
        assert self.truncated(SCORES, first=99).report().totals.not_judged == 7

    def test_a_missing_score_after_an_existing_one_is_found(self) -> None:
        run = self.truncated(SCORES, first=4)
        run.outputs = [one for one in run.outputs if number(one) != 7]
        report = run.report()
        assert report.counts == {FindingKind.MISSING: 1}
        assert report.findings[0].source == source(7)
        assert report.totals.not_judged == 4

    def test_a_missing_review_is_found_where_only_scores_are_deleted(self) -> None:
        run = self.truncated(SCORES, first=4)
        run.outputs = [one for one in run.outputs if number(one) != 5]
        assert run.report().counts == {FindingKind.MISSING: 1}

    def test_a_contact_that_is_not_in_the_audit_either_is_missing(self) -> None:
        run = self.truncated(SCORES, first=4)
        run.entries = [one for one in run.entries if one["source"] != source(2)]
        report = run.report()
        assert report.counts == {FindingKind.MISSING: 1}
        assert report.totals.not_judged == 3

    def test_a_late_score_of_a_deferred_contact_is_no_lower_bound(self) -> None:
        run = self.truncated(SCORES, first=4)
        late = replace(run.outputs[0][0], source=source(0), was_deferred=True)
        run.outputs.append((late, output_content(late)))
        assert run.report().counts == {}

    def test_deleted_audits(self) -> None:
        run = Run()
        run.gaps = LogGaps([AUDIT])
        run.entries = run.entries[4:]
        report = run.report()
        assert report.judgement is Judgement.NOT_JUDGED
        assert report.totals.audit_not_judged == 4
        assert "4 inputs whose audit entry may be deleted" in report.verdict

    def test_a_missing_audit_entry_after_an_existing_one_is_found(self) -> None:
        run = Run()
        run.gaps = LogGaps([AUDIT])
        del run.entries[7]
        report = run.report()
        assert report.counts == {FindingKind.NOT_AUDITED: 1}
        assert report.totals.audit_not_judged == 0

    def test_deleted_audits_and_scores(self) -> None:
        run = self.truncated(SCORES, AUDIT, REVIEW, first=4)
        run.entries = run.entries[4:]
        report = run.report()
        assert report.counts == {}
        assert report.totals.not_judged == 4

    def test_deleted_and_still_there_on_another_partition(self) -> None:
        run = Run()
        run.gaps = LogGaps([Partition("scores", 1)])  # which never had any of these
        report = run.report()
        assert report.is_balanced


class TestCompaction:
    def test_a_compacted_score_is_not_compared(self) -> None:
        run = Run()
        run.gaps = LogGaps(compacted=["scores"])
        name = source(1)
        run.inputs[7] = input_content(name)._replace(value=input_content(source(7), contact_id=f"c-{name}").value)
        run.score(7, contact_id=f"c-{name}")
        run.audit(7, contact_id=f"c-{name}")
        del run.outputs[1]
        report = run.report()
        assert report.judgement is Judgement.NOT_JUDGED
        assert report.totals.not_judged == 1

    def test_the_last_score_of_a_contact_is_never_compacted_away(self) -> None:
        run = Run()
        run.gaps = LogGaps(compacted=["scores"])
        del run.outputs[1]
        assert run.report().counts == {FindingKind.MISSING: 1}

    def test_rejections(self) -> None:
        run = Run()
        run.gaps = LogGaps(compacted=["rejected"])
        del run.outputs[8]
        assert run.report().totals.not_judged == 1

    def test_a_compacted_audit(self) -> None:
        run = Run()
        events = [audit_of(run.entries[n : n + 1]) for n in range(N - 1)]
        judge = make_judge({0: CommittedRange(0, N)}, LogGaps(compacted=["audit"]))
        for n in range(N):
            judge.input(0, n, run.inputs[n])
        for n, (output, content) in enumerate(run.outputs):
            judge.output(output.kind, output.source, "b-1", RecordLocation(output.kind.name.lower(), 0, n), content)
        for n, value in enumerate(chained(*events)):
            if n % 3:
                judge.audit(value, RecordLocation("audit", 0, n))
        judge.deferred(source(N - 1), RecordLocation("retry-1", 0, 0), run.inputs[N - 1], still=True)
        report = judge.result({0: N})
        assert report.counts == {}
        assert report.totals.audit_not_judged == 4


def test_a_foreign_commit_is_not_compared() -> None:
    report = judged({0: range(3)}, [], [], spans={0: CommittedRange(3, 3)}, unknown_starts=[0])
    assert report.judgement is Judgement.NOT_JUDGED
    assert "1 partitions whose commit another program made" in report.verdict


def test_a_lost_range_is_named() -> None:
    report = judged({0: [9]}, [], [], spans={0: CommittedRange(9, 9)}, lost={0: [Lost(4, 9)]})
    [finding] = report.findings
    assert finding.kind is FindingKind.LOST
    assert str(finding).startswith(
        "lost: in/0/4: and what followed it below 9 was deleted before the group had read it"
    )
    assert report.totals.lost == 5


@pytest.mark.parametrize(
    ("metadata", "gaps"),
    [
        (None, []),
        ("start=0", []),
        ("start=0;lost=4-9", [(4, 9)]),
        ("lost=4-9;start=0;topic=x;lost=12-13", [(4, 9), (12, 13)]),
        ("lost=9-4;lost=4;lost=-1-4;lost=4-9x;unlost=4-9", []),
    ],
)
def test_gaps_in_commit_metadata(metadata: str | None, gaps: list[tuple[int, int]]) -> None:
    assert list(parse_lost(metadata)) == gaps


def number(one: tuple[Output, Content]) -> int:
    return int(one[0].source.rpartition("/")[2])


def test_every_codec_is_used() -> None:
    assert {codec.name for codec in CODECS} == {"ContactFeatures", "ContactScore", "BatchAudit"}
