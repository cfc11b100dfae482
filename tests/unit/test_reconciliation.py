"""Reconciliation: no finding without a fault; every planted fault is found at its location, and nothing else."""

from __future__ import annotations

import dataclasses
import io
import itertools
from typing import Any

import pytest
from reconciliation_harness import (
    CODECS,
    TOPICS,
    Output,
    Retry,
    chained,
    event,
    input_content,
    judged,
    make_judge,
    output_content,
    source,
)
from rich.console import Console

from stream_scorer.cli.reconcile import print_report
from stream_scorer.core.audit.hash_chain import ChainVerifier
from stream_scorer.core.reconciliation.log_gaps import LogGaps
from stream_scorer.core.reconciliation.outcome_values import Content, payload_digest
from stream_scorer.core.reconciliation.score_report import Finding, FindingKind, Findings, PartitionReport, Report
from stream_scorer.core.reconciliation.scores import CommittedRange, Kind, RecordLocation
from stream_scorer.core.records import Partition


def judged_simply(outputs: list[Any], audits: list[bytes] | None = None, **options: Any) -> Report:
    """Five inputs, 0 to 4, of one partition, all committed."""
    audits = chained(event(outputs)) if audits is None else audits
    return judged({0: range(5)}, outputs, audits, spans={0: CommittedRange(0, 5)}, **options)


FIVE = [Output(source(offset)) for offset in range(5)]


def only(report: Report, kind: FindingKind) -> Finding:
    """Return the only finding."""
    assert report.counts == {kind: 1}
    assert not report.is_balanced
    [finding] = report.findings
    assert finding.kind is kind
    return finding


class TestHolds:
    def test_every_outcome_counts_once(self) -> None:
        outputs = [
            Output(source(10), Kind.SCORED),
            Output(source(11), Kind.REVIEW),
            Output(source(12), Kind.REJECTED),
            Output(source(0, 1), Kind.SCORED),
        ]
        report = judged(
            {0: range(10, 15), 1: range(1)},
            outputs,
            chained(event(outputs[:2]), event(outputs[2:])),
            spans={0: CommittedRange(10, 13), 1: CommittedRange(0, 1)},
        )
        assert report.is_balanced
        assert report.findings == ()
        first = report.partitions[0]
        assert (first.start, first.committed, first.inputs, first.audited, first.waiting) == (10, 13, 3, 3, 2)
        assert (first.scored, first.review, first.rejected) == (1, 1, 1)
        assert (report.audit_events, report.chains) == (2, 1)
        assert report.equation == "4 inputs = 2 scores + 1 review + 1 rejected"
        assert report.verdict == "the invariant holds for group group on in"

    def test_empty_topics(self) -> None:
        assert judged({}, [], [], spans={0: CommittedRange(0, 0)}).is_balanced

    def test_only_committed_records_are_inputs(self) -> None:
        # Markers, aborted and compacted records leave gaps of any size.
        offsets = [0, 1, 7, 8, 1_000_000_000, 2_000_000_000]
        outputs = [Output(source(offset)) for offset in offsets]
        report = judged({0: offsets}, outputs, chained(event(outputs)), spans={0: CommittedRange(0, 2_000_000_002)})
        assert report.is_balanced
        assert report.totals.inputs == 6

    def test_a_log_that_begins_with_a_gap(self) -> None:
        outputs = [Output(source(offset)) for offset in (4, 6)]
        assert judged({0: [4, 6]}, outputs, chained(event(outputs)), spans={0: CommittedRange(2, 9)}).is_balanced

    def test_outputs_committed_between_the_readings_are_optional(self) -> None:
        inputs, spans = {0: range(9)}, {0: CommittedRange(0, 5)}
        six = [*FIVE, Output(source(5))]
        for outputs in (FIVE, six, [*six, Output(source(6))]):
            assert judged(inputs, outputs, chained(event(outputs)), spans=spans, committed={0: 7}).is_balanced
        # Their audit is on another topic, whose end was read at another time.
        assert judged(inputs, six, chained(event(FIVE)), spans=spans, committed={0: 7}).is_balanced
        assert judged(inputs, FIVE, chained(event(six)), spans=spans, committed={0: 7}).is_balanced

    def test_outputs_written_before_a_new_topic_was_accepted_belong_to_the_former_one(self) -> None:
        judge = make_judge({0: CommittedRange(0, 5)}, since_ms={0: 1_000})
        for offset in range(5):
            judge.input(0, offset, input_content(source(offset)))
        places = itertools.count()
        for written_ms in (999, 1_000):
            for output in FIVE:
                place = RecordLocation("scores", 0, next(places))
                content = output_content(output)
                judge.output(output.kind, output.source, output.batch_id, place, content, written_ms=written_ms)
        for written_ms, value in zip((999, 1_000), chained(event(FIVE), event(FIVE)), strict=True):
            judge.audit(value, RecordLocation("audit", 0, next(places)), written_ms=written_ms)
        judge.deferred(source(2), RecordLocation("retry-1", 0, 0), input_content(source(2)), still=True, written_ms=999)
        report = judge.result({0: 5})
        assert report.is_balanced, report.findings
        assert (report.before, report.totals.scored, report.totals.deferred) == (5, 5, 0)

    def test_an_output_topic_may_mix_input_partitions(self) -> None:
        outputs = [
            Output(source(0, 1), lane=0),
            Output(source(0, 0), lane=0),
            Output(source(2, 1), lane=0),
            Output(source(1, 1), lane=1),
            Output(source(1, 0), lane=0),
        ]
        spans = {0: CommittedRange(0, 2), 1: CommittedRange(0, 3)}
        assert judged({0: range(2), 1: range(3)}, outputs, chained(event(outputs)), spans=spans).is_balanced

    def test_records_of_other_groups_are_counted_separately(self) -> None:
        mine = [Output(source(5))]
        others = [
            *(Output(text) for text in (source(4), source(3), source(4))),
            *(Output(text) for text in (source(5, 7), source(5, topic="other"), "", "in/0", "in/0/x", "in/0/5/6")),
            Output(f"in/0/{'9' * 5000}"),
        ]
        report = judged(
            {0: range(3, 6)}, [*others, *mine], chained(event([*others, *mine])), spans={0: CommittedRange(5, 6)}
        )
        assert report.is_balanced
        assert (report.before, report.foreign) == (3, 7)
        assert (report.totals.inputs, report.totals.audited) == (1, 1)

    def test_the_commits_decide_on_each_partition(self) -> None:
        report = judged({0: range(2), 1: range(3)}, [], [], spans={0: CommittedRange(0, 0), 1: CommittedRange(3, 3)})
        assert report.is_balanced
        assert [partition.waiting for partition in report.partitions] == [2, 0]


class TestViolations:
    def test_lost(self) -> None:
        outputs = FIVE[:2] + FIVE[3:]
        report = judged_simply(outputs)
        finding = only(report, FindingKind.MISSING)
        assert (finding.source, finding.what) == ("in/0/2", "has no output, no audit entry")
        assert report.totals.missing == 1
        assert report.totals.audited == 4
        assert report.equation == "5 inputs ≠ 4 scores + 0 review + 0 rejected"
        assert report.verdict == "the invariant does not hold for group group on in: 1 missing"

    def test_lost_although_audited(self) -> None:
        finding = only(judged_simply(FIVE[:4], chained(event(FIVE))), FindingKind.MISSING)
        assert (finding.source, finding.what) == ("in/0/4", "has no output, and is audited as SCORED")

    @pytest.mark.parametrize("kind", list(Kind))
    def test_doubled_on_whatever_topic(self, kind: Kind) -> None:
        outputs = [*FIVE, dataclasses.replace(FIVE[1], kind=kind)]
        report = judged_simply(outputs, chained(event(FIVE)))
        finding = only(report, FindingKind.DOUBLED)
        assert (finding.source, finding.where) == ("in/0/1", f"{TOPICS[kind]}/0/105")
        assert finding.what == "has one more output, after that at scores/0/101"
        assert report.totals.doubled == 1
        assert "≠" in report.equation

    def test_early(self) -> None:
        outputs = [*FIVE, Output(source(5)), Output(source(7))]
        report = judged(
            {0: range(9)}, outputs, chained(event(outputs)), spans={0: CommittedRange(0, 5)}, committed={0: 6}
        )
        finding = only(report, FindingKind.EARLY)
        assert (finding.source, finding.where) == ("in/0/7", "scores/0/106")
        assert finding.what == "has an output, although only what is below 6 is committed"
        assert (report.totals.early, report.totals.waiting) == (1, 4)

    def test_early_in_the_audit_alone(self) -> None:
        report = judged_simply(FIVE, chained(event([*FIVE, Output(source(9))])))
        assert only(report, FindingKind.EARLY).what.startswith("has an audit entry, although only what is below 5")
        assert report.totals.early == 0

    def test_early_on_a_partition_without_commits(self) -> None:
        outputs = [Output(source(0, 1))]
        report = judged({1: range(1)}, outputs, chained(event(outputs)), spans={1: CommittedRange(0, 0)}, committed={})
        assert only(report, FindingKind.EARLY).source == "in/1/0"

    def test_doubled_above_the_first_commit(self) -> None:
        outputs = [*FIVE, Output(source(5)), Output(source(5))]
        report = judged(
            {0: range(6)}, outputs, chained(event(outputs[:-1])), spans={0: CommittedRange(0, 5)}, committed={0: 6}
        )
        assert only(report, FindingKind.DOUBLED).source == "in/0/5"

    def test_reordered(self) -> None:
        outputs = [FIVE[0], FIVE[2], FIVE[1], FIVE[3], FIVE[4]]
        report = judged_simply(outputs)
        finding = only(report, FindingKind.OUT_OF_ORDER)
        assert (finding.source, finding.where) == ("in/0/1", "scores/0/102")
        assert finding.what == "comes after the output of in/0/2"
        assert report.totals.out_of_order == 1

    def test_no_audit_entry(self) -> None:
        report = judged_simply(FIVE, chained(event(FIVE[1:])))
        finding = only(report, FindingKind.NOT_AUDITED)
        assert (finding.source, finding.where) == ("in/0/0", "scores/0/100")
        assert report.totals.audited == 4

    def test_two_audit_entries(self) -> None:
        report = judged_simply(FIVE, chained(event(FIVE), event(FIVE[3:4], "b-2")))
        finding = only(report, FindingKind.AUDITED_TWICE)
        assert (finding.source, finding.where) == ("in/0/3", "audit/0/1")
        assert report.totals.audited == 6

    def test_wrong_batch_id(self) -> None:
        outputs = [*FIVE[:4], (dataclasses.replace(FIVE[4], batch_id="b-2"), output_content(FIVE[4]))]
        finding = only(judged_simply(outputs, chained(event(FIVE))), FindingKind.WRONG_BATCH)
        assert (finding.source, finding.where) == ("in/0/4", "scores/0/104")
        assert "b-1" in finding.what

    def test_no_batch_id(self) -> None:
        outputs = [*FIVE[:4], (dataclasses.replace(FIVE[4], batch_id=""), output_content(FIVE[4]))]
        only(judged_simply(outputs, chained(event(FIVE))), FindingKind.WRONG_BATCH)

    def test_wrong_outcome(self) -> None:
        outputs = [*FIVE[:4], dataclasses.replace(FIVE[4], kind=Kind.REVIEW)]
        finding = only(judged_simply(outputs, chained(event(FIVE))), FindingKind.WRONG_OUTCOME)
        assert (finding.source, finding.where) == ("in/0/4", "review/0/104")
        assert finding.what == "was published as REVIEW, and audited as SCORED"

    def test_an_output_without_a_committed_input(self) -> None:
        inputs, spans = {0: [0, 1, 3, 4]}, {0: CommittedRange(0, 5)}
        finding = only(judged(inputs, FIVE, chained(event(FIVE)), spans=spans), FindingKind.NO_INPUT)
        assert (finding.source, finding.where) == ("in/0/2", "scores/0/102")
        # Compaction removes records that were scored.
        assert judged(inputs, FIVE, chained(event(FIVE)), spans=spans, compacted=True).is_balanced

    def test_the_order_of_reading_does_not_matter_to_the_comparison(self) -> None:
        judge = make_judge({0: CommittedRange(0, 1)})
        judge.input(0, 0, input_content(source(0)))
        [value] = chained(event(FIVE[:1]))
        judge.audit(value, RecordLocation("out", 0, 0))
        output = Output(source(0), Kind.REVIEW, "b-9")
        judge.output(Kind.REVIEW, source(0), "b-9", RecordLocation("out", 0, 1), output_content(output))
        assert judge.result({0: 1}).counts == {FindingKind.WRONG_BATCH: 1, FindingKind.WRONG_OUTCOME: 1}


class TestChains:
    THREE = chained(*(event([output]) for output in FIVE[:2]), event(FIVE[2:]))

    def test_a_changed_event(self) -> None:
        events = (event(outputs, correlation_id="before") for outputs in (FIVE[:1], FIVE[1:2], FIVE[2:]))
        first, second, third = chained(*events)
        report = judged_simply(FIVE, [first, second.replace(b"before", b"beFore"), third])
        finding = only(report, FindingKind.BROKEN_CHAIN)
        assert finding.where == "audit/0/1"
        assert finding.what == "chain chain, sequence 1: the content does not have the hash that stands in it"

    def test_a_missing_link(self) -> None:
        report = judged_simply(FIVE, [self.THREE[0], self.THREE[2]])
        assert report.counts == {FindingKind.BROKEN_CHAIN: 1, FindingKind.NOT_AUDITED: 1}
        [broken] = [finding for finding in report.findings if finding.kind is FindingKind.BROKEN_CHAIN]
        assert (broken.what, broken.where) == ("chain chain, sequence 2: 1 was expected here", "audit/0/1")

    def test_a_missing_beginning(self) -> None:
        outputs = FIVE[1:]
        inputs, spans = {0: range(1, 5)}, {0: CommittedRange(1, 5)}
        only(judged(inputs, outputs, self.THREE[1:], spans=spans), FindingKind.BROKEN_CHAIN)
        # Deleted records at the beginning of the log are no finding. A gap later on is.
        assert judged(inputs, outputs, self.THREE[1:], spans=spans, gaps=LogGaps([Partition("audit", 0)])).is_balanced
        report = judged_simply(FIVE, [self.THREE[0], self.THREE[2]], gaps=LogGaps([Partition("audit", 0)]))
        assert report.counts[FindingKind.BROKEN_CHAIN] == 1

    def test_a_forged_link(self) -> None:
        other = chained(event(FIVE[:1], "b-1"), event(FIVE[1:]), chain_id="chain")
        forged = chained(event(FIVE[:1], "b-0"), chain_id="chain")
        report = judged_simply([dataclasses.replace(FIVE[0], batch_id="b-0"), *FIVE[1:]], [forged[0], other[1]])
        what = only(report, FindingKind.BROKEN_CHAIN).what
        assert what == "chain chain, sequence 1: previous_hash is not the hash of the event before"

    def test_an_undecodable_audit_event(self) -> None:
        report = judged_simply(FIVE, [*chained(event(FIVE)), b"junk"])
        assert only(report, FindingKind.BROKEN_CHAIN).where == "audit/0/1"

    def test_chains_may_be_mixed_but_keep_to_their_partition(self) -> None:
        mixed = [*chained(event(FIVE[:1]), chain_id="a"), *chained(event(FIVE[1:]), chain_id="b")]
        assert judged_simply(FIVE, mixed).chains == 2
        judge = make_judge({0: CommittedRange(0, 0)})
        for partition, value in enumerate(self.THREE[:2]):
            judge.audit(value, RecordLocation("audit", partition, 0))
        assert judge.result({0: 5}).counts == {FindingKind.BROKEN_CHAIN: 1}

    def test_the_verifier_goes_on_after_a_break(self) -> None:
        verifier = ChainVerifier(CODECS.audit)
        assert [len(verifier.check(value)[1]) for value in (self.THREE[0], self.THREE[2], self.THREE[1])] == [0, 1, 1]
        assert verifier.chain_ids == {"chain"}


class TestFindings:
    def test_all_findings_are_counted_and_the_first_of_each_kind_are_listed(self) -> None:
        outputs = [Output(source(offset)) for offset in range(0, 1000, 2)]
        report = judged(
            {0: range(1000)}, [*outputs, outputs[7]], chained(event(outputs)), spans={0: CommittedRange(0, 1000)}
        )
        assert report.counts == {FindingKind.MISSING: 500, FindingKind.DOUBLED: 1}
        missing = [finding.source for finding in report.findings if finding.kind is FindingKind.MISSING]
        assert missing == [source(offset) for offset in range(1, 40, 2)]
        assert report.findings[1].kind is FindingKind.DOUBLED, "hidden behind hundreds of another kind"

    def test_only_listed_findings_are_built(self) -> None:
        findings = Findings(2)
        made = itertools.count()
        endless = (Finding(FindingKind.MISSING, f"in/0/{number}", "is gone") for number in made)
        findings.add_all(FindingKind.MISSING, 10**9, endless)
        assert findings.counts == {FindingKind.MISSING: 10**9}
        assert [finding.source for finding in findings.first] == ["in/0/0", "in/0/1"]

    def test_the_report_as_text(self) -> None:
        finding = Finding(FindingKind.OUT_OF_ORDER, "in/0/1", "comes too late", "scores/0/2")
        assert str(finding) == "out of order: in/0/1: comes too late (scores/0/2)"
        assert str(Finding(FindingKind.BROKEN_CHAIN, "", "no link")) == "broken chain: no link"

    def test_the_report_as_json_values(self) -> None:
        plain = judged_simply(FIVE[:4]).as_dict()
        assert plain["holds"] is False
        assert plain["counts"] == {"missing": 1}
        assert plain["totals"]["scored"] == 4
        assert plain["partitions"][0]["committed"] == 5
        assert plain["findings"] == [
            {"kind": "missing", "source": "in/0/4", "what": "has no output, no audit entry", "where": ""}
        ]


@pytest.mark.parametrize("width", [160, 80])
def test_no_number_is_cut_on_a_narrow_terminal(width: int) -> None:
    partitions = tuple(PartitionReport(number, 0, 250_000, 250_000, scored=249_000 + number) for number in range(4))
    console = Console(width=width, record=True, file=io.StringIO())
    print_report(Report("in", "group", partitions, {}, (), 0, 0, 0, 0), console)
    shown = console.export_text()
    for number in ("250,000", "249,003", "1,000,000", "996,006"):
        assert number in shown.partition("inputs =")[0]
    assert "…" not in shown


class TestDeferred:
    """An input may be pending in exactly one retry topic instead of having an outcome."""

    def test_a_pending_contact_is_not_missing(self) -> None:
        report = judged_simply(FIVE[:3], deferred=[Retry(source(3)), Retry(source(4))])
        assert report.is_balanced
        assert (report.totals.deferred, report.totals.missing, report.totals.audited) == (2, 0, 3)
        assert report.equation == "5 inputs = 3 scores + 0 review + 0 rejected + 2 deferred"
        assert report.as_dict()["totals"]["deferred"] == 2
        said = io.StringIO()
        print_report(report, Console(file=said, width=200))
        assert "+ 2 deferred" in said.getvalue()

    def test_retries_taken_between_the_readings_may_be_finished_or_pending(self) -> None:
        taken = [Retry(source(offset), still=False) for offset in range(5)]
        assert judged_simply(FIVE, deferred=taken).is_balanced
        report = judged_simply(FIVE[:3], deferred=[*taken, Retry(source(4))])
        assert report.is_balanced
        assert report.totals.deferred == 2

    def test_an_audit_entry_read_before_the_output_of_a_deferred_contact(self) -> None:
        report = judged_simply(FIVE[:4], chained(event(FIVE)), deferred=[Retry(source(4), still=False)])
        assert report.is_balanced

    def test_a_contact_pending_twice(self) -> None:
        report = judged_simply(FIVE[:4], deferred=[Retry(source(4)), Retry(source(4))])
        finding = only(report, FindingKind.WAITING_TWICE)
        assert (finding.source, finding.where) == (source(4), "retry-1/0/1")

    def test_a_contact_pending_and_finished(self) -> None:
        finding = only(judged_simply(FIVE, deferred=[Retry(source(2))]), FindingKind.WAITING_AND_FINISHED)
        assert (finding.source, finding.where) == (source(2), "retry-1/0/0")
        assert finding.what == "waits in a retry topic, and has an output"

    def test_a_contact_pending_and_audited(self) -> None:
        report = judged_simply(FIVE[:4], chained(event(FIVE)), deferred=[Retry(source(4))])
        assert only(report, FindingKind.WAITING_AND_FINISHED).what.endswith("has an audit entry")

    def test_a_contact_pending_and_not_committed(self) -> None:
        finding = only(judged_simply(FIVE, deferred=[Retry(source(5))]), FindingKind.EARLY)
        assert (finding.source, finding.where) == (source(5), "retry-1/0/0")
        assert finding.what == "has a record in a retry topic, although only what is below 5 is committed"

    def test_a_pending_contact_of_an_aborted_input(self) -> None:
        report = judged(
            {0: [0]}, FIVE[:1], chained(event(FIVE[:1])), spans={0: CommittedRange(0, 3)}, deferred=[Retry(source(1))]
        )
        assert only(report, FindingKind.NO_INPUT).source == source(1)

    def test_pending_contacts_before_the_start_or_of_another_topic_are_ignored(self) -> None:
        other = [Retry(source(0)), Retry(source(0)), Retry("elsewhere/0/1"), Retry("nonsense"), Retry(source(1, 7))]
        outputs = FIVE[1:]
        report = judged(
            {0: range(1, 5)}, outputs, chained(event(outputs)), spans={0: CommittedRange(1, 5)}, deferred=other
        )
        assert report.is_balanced
        assert report.totals.deferred == 0

    def test_a_contact_neither_pending_nor_finished(self) -> None:
        report = judged_simply(FIVE[:3], deferred=[Retry(source(3))])
        assert only(report, FindingKind.MISSING).source == source(4)
        assert report.equation == "5 inputs ≠ 3 scores + 0 review + 0 rejected + 1 deferred"

    def test_outputs_of_deferred_contacts_may_be_out_of_order(self) -> None:
        late = dataclasses.replace(FIVE[1], was_deferred=True)
        assert judged_simply([FIVE[0], FIVE[2], late, FIVE[3], FIVE[4]]).is_balanced
        assert judged_simply([FIVE[0], late, FIVE[2], FIVE[4], FIVE[3]]).counts == {FindingKind.OUT_OF_ORDER: 1}


def test_a_replay_of_a_truncated_rejection_is_compared_with_its_input() -> None:
    name = source(3)
    judge = make_judge({0: CommittedRange(2, 5)})
    judge.input(0, 3, input_content(name))
    whole, truncated = payload_digest(input_content(name)), Content(b"any key", None, truncated=True)
    assert judge.replayable(name, truncated) == whole
    assert judge.replayable(name, Content(b"key", b"value")) == payload_digest(Content(b"key", b"value"))
    for unknown in (source(1), source(4), source(0, 7), "nowhere"):
        assert judge.replayable(unknown, truncated) is None
