"""``stream-scorer reconcile`` on a real broker: topics written by the test, valid and with every fault."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from ledger_topics import Ledger, Out, outs, rejected, review

from stream_scorer import __version__
from stream_scorer.cli import main
from stream_scorer.core.reconciliation.score_report import FindingKind, Judgement
from stream_scorer.errors import BrokerRefused, BrokerUnavailable, NothingToCheck
from stream_scorer.reconciliation import reconcile
from stream_scorer.settings import Settings

if TYPE_CHECKING:
    from kafka_fixture import Broker

pytestmark = pytest.mark.kafka


@pytest.fixture
def ledger(broker: Broker) -> Ledger:
    return Ledger(broker.bootstrap_servers)


class TestHolds:
    def test_all_outcomes_in_several_transactions(self, ledger: Ledger) -> None:
        ledger.put_inputs(12)
        ledger.put_inputs(3, partition=1)
        scorer = ledger.scorer()
        scorer.publish([*outs(range(4)), review(4), rejected(5)], 6)
        scorer.publish(outs(range(6, 10)), 10)
        ledger.scorer().publish(outs(range(3), partition=1, lane=0), 3, partition=1)
        reported: list[tuple[str, int, int]] = []
        report = reconcile(ledger.settings, progress=lambda *step: reported.append(step))
        assert report.is_balanced, report.findings
        assert report.equation == "13 inputs = 11 scores + 1 review + 1 rejected"
        assert [(p.start, p.committed, p.inputs, p.waiting) for p in report.partitions] == [
            (0, 10, 10, 2),
            (0, 3, 3, 0),
        ]
        assert (report.totals.audited, report.audit_events, report.chains) == (13, 3, 2)
        assert {topic for topic, _, _ in reported} == set(ledger.settings.topics.scoring)
        assert reported[-1][1] == reported[-1][2]
        assert [done for _, done, _ in reported] == sorted(done for _, done, _ in reported)

    def test_markers_and_aborted_records_are_not_inputs(self, ledger: Ledger) -> None:
        ledger.put_inputs_in_transaction(3, commit=True)  # 0 to 2, marker 3
        ledger.put_inputs_in_transaction(2, commit=False)  # 4, 5, marker 6
        ledger.put_inputs(1)  # 7
        ledger.put_inputs_in_transaction(1, commit=True)  # 8, marker 9
        ledger.scorer().publish(outs([0, 1, 2, 7, 8]), 9)
        report = reconcile(ledger.settings)
        assert report.is_balanced, report.findings
        assert (report.totals.inputs, report.totals.waiting) == (5, 0)

    def test_an_aborted_transaction_is_ignored(self, ledger: Ledger) -> None:
        ledger.put_inputs(4)
        scorer = ledger.scorer()
        scorer.publish(outs([0, 1]), 2)
        aborted = ledger.scorer()
        aborted.begin(outs([2, 3]), 4)
        aborted.abort()
        scorer.publish(outs([2]), 3)
        report = reconcile(ledger.settings)
        assert report.is_balanced, report.findings
        assert (report.totals.inputs, report.totals.waiting) == (3, 1)

    def test_a_transaction_that_ends_while_it_is_waited_for(self, ledger: Ledger) -> None:
        ledger.put_inputs(4)
        ledger.scorer().publish(outs([0, 1]), 2)
        late = ledger.scorer()
        # Its offsets are pending as well: the command has to wait for them.
        late.begin(outs([2, 3]), 4)
        timer = threading.Timer(1.0, late.commit)
        timer.start()
        report = reconcile(ledger.settings)
        timer.join()
        assert report.is_balanced, report.findings
        assert report.totals.inputs == 4

    def test_one_topic_for_everything(self, broker: Broker) -> None:
        shared = Ledger(
            broker.bootstrap_servers, shared=dict.fromkeys(("scores", "review", "rejected", "audit"), "out")
        )
        shared.put_inputs(4)
        shared.scorer().publish([Out(0), review(1), rejected(2), Out(3)], 4)
        report = reconcile(shared.settings)
        assert report.is_balanced, report.findings
        assert report.equation == "4 inputs = 2 scores + 1 review + 1 rejected"
        assert report.audit_events == 1

    def test_a_group_that_began_later_beside_another(self, ledger: Ledger) -> None:
        ledger.put_inputs(8)
        other = ledger.scorer()
        other.publish([*outs(range(5)), Out(0)])  # outputs of another group, with one duplicate
        ledger.scorer().publish(outs([5, 6]), 7, start=5)
        report = reconcile(ledger.settings)
        assert report.is_balanced, report.findings
        assert (report.before, report.totals.inputs, report.totals.waiting) == (6, 2, 1)

    def test_a_foreign_commit_is_reported(self, ledger: Ledger) -> None:
        ledger.put_inputs(3)
        ledger.reset_commit(2)
        report = reconcile(ledger.settings)
        assert report.judgement is Judgement.NOT_JUDGED
        assert report.counts == {}
        assert report.totals.inputs == 0
        [note] = report.notes
        assert f"{ledger.topic('features')}/0: the commit 2 has no start offset of its group" in note


class TestRetryTopics:
    """A contact is pending if its record in a retry topic is not committed by the group."""

    def test_pending_contacts_are_counted(self, ledger: Ledger) -> None:
        topic = ledger.make_retry_topic()
        ledger.put_inputs(4)
        ledger.scorer().publish(outs([0, 1]), 4)
        ledger.put_retry(topic, 1)  # taken, and finished
        ledger.put_retry(topic, 2, group="another")
        ledger.put_retry(topic, 2)
        ledger.put_retry(topic, 3)
        ledger.reset_commit(1, "start=0", topic=topic)
        report = reconcile(ledger.settings)
        assert report.is_balanced, report.findings
        assert report.equation == "4 inputs = 2 scores + 0 review + 0 rejected + 2 deferred"

    def test_planted_faults_are_found(self, ledger: Ledger) -> None:
        topic = ledger.make_retry_topic()
        ledger.put_inputs(5)
        ledger.scorer().publish(outs([0, 1]), 4)
        for offset in (1, 2, 2, 4):  # finished, twice, not committed; 3 is nowhere
            ledger.put_retry(topic, offset)
        ledger.put_retry(topic, 3, group="another")
        report = reconcile(ledger.settings)
        features = ledger.topic("features")
        assert {(finding.kind, finding.source, finding.where) for finding in report.findings} == {
            (FindingKind.WAITING_AND_FINISHED, f"{features}/0/1", f"{topic}/0/0"),
            (FindingKind.WAITING_TWICE, f"{features}/0/2", f"{topic}/0/2"),
            (FindingKind.EARLY, f"{features}/0/4", f"{topic}/0/3"),
            (FindingKind.MISSING, f"{features}/0/3", ""),
        }


class TestViolations:
    @pytest.mark.parametrize(
        ("published", "kind"),
        [
            (outs([0, 1, 3]), FindingKind.MISSING),
            ([*outs(range(3)), Out(3, to=None)], FindingKind.MISSING),
            ([*outs(range(4)), Out(2, to="review", audited=None)], FindingKind.DOUBLED),
            ([*outs(range(4)), Out(5)], FindingKind.EARLY),
            (outs([0, 2, 1, 3]), FindingKind.OUT_OF_ORDER),
            ([*outs(range(3)), Out(3, audited=None)], FindingKind.NOT_AUDITED),
            ([*outs(range(4)), Out(3, to=None)], FindingKind.AUDITED_TWICE),
            ([*outs(range(3)), Out(3, header_batch="other")], FindingKind.WRONG_BATCH),
            ([*outs(range(3)), Out(3, audited="REJECTED")], FindingKind.WRONG_OUTCOME),
        ],
        ids=lambda value: value.value if isinstance(value, FindingKind) else "",
    )
    def test_each_planted_fault_is_found_and_nothing_else(
        self, ledger: Ledger, published: list[Out], kind: FindingKind
    ) -> None:
        ledger.put_inputs(6)
        ledger.scorer().publish(published, 4)
        report = reconcile(ledger.settings)
        assert report.counts == {kind: 1}

    def test_a_lost_and_a_duplicated_transaction_among_valid_ones(self, ledger: Ledger) -> None:
        ledger.put_inputs(40)
        scorer = ledger.scorer()
        scorer.publish(outs(range(10)), 10)
        scorer.publish([], 20)
        scorer.publish(outs(range(20, 30)), 30)
        again = ledger.scorer()
        again.publish(outs(range(20, 30)))
        counts = dict(reconcile(ledger.settings).counts)
        # The doubles carry other batch ids; whether those show depends on which partition of the audit is read first.
        assert counts.pop(FindingKind.WRONG_BATCH, 10) == 10
        assert counts.pop(FindingKind.WRONG_VALUE, 10) == 10
        assert counts == {FindingKind.MISSING: 10, FindingKind.DOUBLED: 10, FindingKind.AUDITED_TWICE: 10}

    def test_an_aborted_input_that_was_scored(self, ledger: Ledger) -> None:
        ledger.put_inputs_in_transaction(1, commit=False)  # 0, marker 1
        ledger.put_inputs(1)
        ledger.scorer().publish(outs([0, 2]), 3)
        assert reconcile(ledger.settings).counts == {FindingKind.NO_INPUT: 1}

    def test_a_spoilt_audit_event_and_a_missing_link(self, ledger: Ledger) -> None:
        ledger.put_inputs(4)
        scorer = ledger.scorer()
        scorer.publish(outs([0]), 1)
        scorer.publish(outs([1]), 2, spoil_audit=True)
        scorer.publish(outs([2]), 3)
        scorer.skip_a_link()
        scorer.publish(outs([3]), 4)
        report = reconcile(ledger.settings)
        assert report.counts == {FindingKind.BROKEN_CHAIN: 2, FindingKind.WRONG_VALUE: 1}
        broken = [finding.what for finding in report.findings if finding.kind is FindingKind.BROKEN_CHAIN]
        assert "the content does not have the hash" in broken[0]
        assert "3 was expected here" in broken[1]

    def test_invalid_scores_and_scores_of_another_input(self, ledger: Ledger) -> None:
        ledger.put_inputs(5)
        changed = [Out(1, value=b"no score at all"), rejected(2), Out(3, to="rejected", audited="REJECTED", value=b"x")]
        ledger.scorer().publish([Out(0), *changed, Out(4)], 5)
        report = reconcile(ledger.settings)
        features, scores, rejections = (ledger.topic(name) for name in ("features", "scores", "rejected"))
        assert {(finding.kind, finding.source, finding.where) for finding in report.findings} == {
            (FindingKind.UNREADABLE_VALUE, f"{features}/0/1", f"{scores}/0/1"),
            (FindingKind.WRONG_VALUE, f"{features}/0/3", f"{rejections}/0/1"),
        }


class TestDeletedRecords:
    """Records that retention or compaction may have deleted are not compared; inputs never read are a finding."""

    def test_deleted_scores_are_ignored_and_missing_ones_after_them_are_found(self, ledger: Ledger) -> None:
        ledger.put_inputs(10)
        ledger.scorer().publish([*outs(range(8)), Out(8, to=None), Out(9)], 10)
        ledger.delete_before("scores", 3)
        report = reconcile(ledger.settings)
        assert report.counts == {FindingKind.MISSING: 1}
        assert report.findings[0].source == f"{ledger.topic('features')}/0/8"
        assert report.totals.not_judged == 3
        assert (
            f"{ledger.topic('scores')}/0: records below 3 are deleted; what stood there is not judged" in report.notes
        )

    def test_inputs_that_were_deleted_before_they_were_read(self, ledger: Ledger) -> None:
        ledger.put_inputs(10)
        ledger.scorer().publish(outs(range(4)), 4)
        ledger.delete_before("features", 7)
        report = reconcile(ledger.settings)
        assert report.counts == {FindingKind.LOST: 1}
        assert report.totals.lost == 3
        assert report.findings[0].source == f"{ledger.topic('features')}/0/4"
        # The operator sets the offset after the gap and records it, as described in docs/operations.md.
        ledger.reset_commit(7, "start=0;lost=4-7")
        ledger.scorer().publish(outs(range(7, 10)))
        ledger.reset_commit(10, "start=0;lost=4-7")
        repaired = reconcile(ledger.settings)
        assert repaired.counts == {FindingKind.LOST: 1}
        assert repaired.findings == report.findings
        assert (repaired.totals.inputs, repaired.totals.scored, repaired.before) == (3, 3, 4)

    def test_a_compacted_topic_may_have_only_the_last_score_of_a_contact(self, broker: Broker) -> None:
        ledger = Ledger(broker.bootstrap_servers, configs={"scores": {"cleanup.policy": "compact"}})
        ledger.put_inputs(4)
        ledger.scorer().publish([Out(0, to=None), Out(1, to=None), Out(2), Out(3)], 4)
        report = reconcile(ledger.settings)
        assert report.judgement is Judgement.NOT_JUDGED
        assert report.totals.not_judged == 2
        assert f"{ledger.topic('scores')}: is compacted; what was removed is not judged" in report.notes

    def test_an_output_topic_that_was_created_again_has_lost_its_outcomes(self, ledger: Ledger) -> None:
        """They were not deleted by retention. Records of the present topic are compared as usual."""
        ledger.put_inputs(6)
        scorer = ledger.scorer()
        scorer.publish([*outs(range(2)), review(2)], 3)
        ledger.replace("scores")
        scorer.publish(outs(range(3, 6)), 6)
        report = reconcile(ledger.settings)
        assert report.judgement is Judgement.BROKEN
        assert report.counts == {FindingKind.MISSING: 2}
        assert [finding.source.rpartition("/")[2] for finding in report.findings] == ["0", "1"]
        assert {finding.what for finding in report.findings} == {"has no output, and is audited as SCORED"}
        assert (report.totals.not_judged, report.totals.scored) == (0, 3)

    def test_outputs_without_any_commit_of_their_partition(self, ledger: Ledger) -> None:
        ledger.put_inputs(1)
        ledger.put_inputs(1, partition=1)
        ledger.scorer().publish(outs([0]), 1)
        ledger.scorer().publish(outs([0], partition=1))
        report = reconcile(ledger.settings)
        assert report.counts == {FindingKind.EARLY: 1}
        assert report.findings[0].source.endswith("/1/0")


class TestIncompleteReports:
    def test_a_transaction_that_stays_open_is_named(self, ledger: Ledger) -> None:
        ledger.put_inputs(2)
        ledger.scorer().publish(outs([0]), 1)
        hanging = ledger.scorer()
        hanging.begin(outs([1]))
        topic = ledger.topic("scores")
        with pytest.raises(BrokerUnavailable, match=rf"^{topic}/0: a transaction is open since offset 2, .* 1 s: "):
            reconcile(ledger.settings, timeout_s=1)
        hanging.abort()
        assert reconcile(ledger.settings).is_balanced

    def test_pending_offsets_that_stay_pending(self, ledger: Ledger) -> None:
        ledger.put_inputs(2)
        hanging = ledger.scorer()
        hanging.begin(outs([0]), 1)
        with pytest.raises(BrokerUnavailable, match=f"reading the commits of group {ledger.group_id}"):
            reconcile(ledger.settings, timeout_s=1)
        hanging.abort()

    def test_a_group_without_commits(self, ledger: Ledger) -> None:
        ledger.put_inputs(1)
        with pytest.raises(
            NothingToCheck, match=f"group {ledger.group_id} has no commits on {ledger.topic('features')}"
        ):
            reconcile(ledger.settings)

    def test_a_missing_topic(self, ledger: Ledger) -> None:
        topics = ledger.settings.topics.model_copy(update={"audit": "not-there"})
        with pytest.raises(BrokerRefused, match="topic not-there is missing"):
            reconcile(ledger.settings.model_copy(update={"topics": topics}))

    def test_an_unreachable_broker(self) -> None:
        settings = Settings.model_validate({"kafka": {"bootstrap_servers": "127.0.0.1:1"}})
        with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
            reconcile(settings, timeout_s=1)


class TestCommand:
    @pytest.fixture(autouse=True)
    def _only_our_settings(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in os.environ:
            if name.startswith(("STREAM_SCORER_", "GENESYS_")):
                monkeypatch.delenv(name)
        ledger.set_environment(monkeypatch)

    def test_the_report_is_balanced(self, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
        ledger.put_inputs(1500)
        ledger.scorer().publish([*outs(range(1200)), review(1200), rejected(1201)], 1202)
        assert main(["reconcile"]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        rows = [line.split() for line in said.out.splitlines()]
        assert ["0", "0", "1,202", "1,202", "1,200", "1", "1", "1,202", "0", "0", "0", "0", "0", "298"] in rows
        assert ["all", "1,202", "1,200", "1", "1", "1,202", "0", "0", "0", "0", "0", "298"] in rows
        assert "1,202 inputs = 1,200 scores + 1 review + 1 rejected" in said.out
        origin = said.out.splitlines()[0]
        assert f", stream-scorer {__version__}, groups {ledger.group_id} and {ledger.group_id}-callbacks" in origin
        assert f"the invariant holds for group {ledger.group_id} on {ledger.topic('features')}" in said.out

    def test_the_report_has_findings(self, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
        ledger.put_inputs(50)
        ledger.scorer().publish([*outs(range(10)), Out(3, audited=None)], 50)
        assert main(["reconcile"]) == 1
        said = capsys.readouterr()
        [line] = said.err.splitlines()
        assert line.startswith("stream-scorer: the invariant does not hold for group ")
        assert line.endswith(": 40 missing, 1 doubled")
        findings = [line for line in said.out.splitlines() if line.startswith(("missing:", "doubled:"))]
        assert len(findings) == 20
        topic = ledger.topic("features")
        assert findings[0] == f"missing: {topic}/0/10: has no output, no audit entry"
        assert findings[1].startswith(f"doubled: {topic}/0/3: has one more output, after that at ")
        assert "… and 21 more" in said.out
        assert "50 inputs ≠ 11 scores + 0 review + 0 rejected" in said.out

    def test_the_report_is_incomplete(self, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
        ledger.put_inputs(6)
        ledger.scorer().publish(outs(range(6)), 6)
        ledger.delete_before("scores", 2)
        assert main(["reconcile"]) == 3
        said = capsys.readouterr()
        assert "6 inputs = 4 scores + 0 review + 0 rejected + 2 not judged" in said.out
        assert "the invariant holds" not in said.out
        [line] = said.err.splitlines()
        assert line == (
            f"stream-scorer: group {ledger.group_id} on {ledger.topic('features')} could not be judged: 2 inputs whose"
            " outcome may be deleted; no finding in the rest"
        )

    def test_no_broker(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
        assert main(["reconcile"]) == 3
        assert "127.0.0.1:1" in capsys.readouterr().err

    def test_topics_that_need_a_registry_cause_no_finding(
        self, ledger: Ledger, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ledger.put_inputs(2)
        ledger.scorer().publish(outs([0, 1], audited=None), 2)
        producer, audit = Producer({"bootstrap.servers": ledger.servers}), ledger.topic("audit")
        producer.produce(audit, b"\x00\x00\x00\x00\x07an audit event", partition=1)
        assert producer.flush(30) == 0
        assert main(["reconcile"]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        [line] = said.err.splitlines()
        assert line.startswith(
            f"stream-scorer: topic {audit} is framed for a schema registry (the record at {audit}/1/"
        )
        assert line.endswith(": set schema_registry.url as the workers have it")

    def test_json(self, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
        ledger.put_inputs(3)
        ledger.scorer().publish(outs([0, 2]), 3)
        assert main(["reconcile", "--json"]) == 1
        said = capsys.readouterr()
        assert len(said.err.splitlines()) == 1
        result = json.loads(said.out)
        assert result["holds"] is False
        assert (result["exit_code"], result["judgement"]) == (1, "broken")
        assert (result["group_id"], result["version"]) == (ledger.group_id, __version__)
        admin = AdminClient({"bootstrap.servers": ledger.servers})
        assert result["cluster_id"] == admin.list_topics(timeout=30).cluster_id
        age_s = (datetime.now(UTC) - datetime.fromisoformat(result["judged_at"])).total_seconds()
        assert 0 <= age_s < 600
        assert result["counts"] == {"missing": 1}
        assert result["totals"]["inputs"] == 3
        assert result["findings"][0]["source"] == f"{ledger.topic('features')}/0/1"
        assert result["partitions"][0]["missing"] == 1

    def test_no_commits_is_one_line(self, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["reconcile", "--json"]) == 3
        said = capsys.readouterr()
        assert said.out == ""
        [line] = said.err.splitlines()
        assert line.startswith(f"stream-scorer: group {ledger.group_id} has no commits")
