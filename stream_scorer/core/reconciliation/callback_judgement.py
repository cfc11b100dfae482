"""Judgement of callbacks, once all records are read: scores without a receipt, deliveries without a decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.desk.decisions import RETARGETED
from stream_scorer.core.reconciliation.callback_states import OTHER_CALLBACK, is_waiting
from stream_scorer.core.reconciliation.score_report import Finding, FindingKind
from stream_scorer.errors import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stream_scorer.core.reconciliation.callback_states import CallbackStates, CalledScore, Delivery
    from stream_scorer.core.reconciliation.decisions import DecisionReconciliation
    from stream_scorer.core.reconciliation.lost_offsets import Lost
    from stream_scorer.core.records import Partition

# With such a receipt the callback itself is on the rejected topic.
_REJECTED: Final = frozenset({"refused", "gave_up"})


class Truncated(NamedTuple):
    """Gaps of the output topics.

    Attributes:
        receipts: partitions of the receipts topic whose first records are deleted.
        rejections: the same for the rejected callbacks topic.
        compacted: the rejected callbacks topic is compacted, so any record of it may be removed.
    """

    receipts: frozenset[Partition] = frozenset()
    rejections: frozenset[Partition] = frozenset()
    compacted: bool = False


class CallbackJudgement:
    """See the module docstring.

    Args:
        states: what was read.
        decided: the decisions to deliver callbacks again.
        gone: the gaps of the output topics.
    """

    def __init__(self, states: CallbackStates, decided: DecisionReconciliation, gone: Truncated) -> None:
        self._states = states
        self._decided = decided
        self._gone = gone

    def add_findings(
        self, lost: Mapping[int, Sequence[Lost]], committed: Mapping[int, int], taken: Mapping[Partition, int]
    ) -> None:
        """Add all findings and counts.

        Args:
            lost: the offsets of each partition that were deleted before the group read them.
            committed: the planner's present commits on the scores topic.
            taken: the deliverer's present commits.
        """
        self._judge_lost(lost)
        self._judge_calls(taken)
        self._judge_scores(committed)
        self._judge_redeliveries()
        self._decided.close(self._states.findings)

    def _judge_lost(self, lost_offsets: Mapping[int, Sequence[Lost]]) -> None:
        for partition, gaps in lost_offsets.items():
            for lost in gaps:
                what = f"and what followed it below {lost.end} was deleted before the group had read it"
                self._states.findings.add(Finding(FindingKind.LOST, self._states.source((partition, lost.begin)), what))

    def _judge_calls(self, taken: Mapping[Partition, int]) -> None:
        """Find callbacks that have a receipt and still wait, or that wait twice."""
        for call in filter(lambda call: call.is_ours, self._states.deliveries):
            still = [place for place in call.waits if is_waiting(place, taken)]
            if still and call.receipts:
                what = f"callback {call.callback_id} has the receipt at {call.receipts[0][1]} and still waits"
                self._states.add(FindingKind.DOUBLED, "", what, still[0])
            elif len(still) > 1:
                what = f"callback {call.callback_id} waits twice, at {still[0]} too"
                self._states.add(FindingKind.DOUBLED, "", what, still[1])

    def _judge_scores(self, committed: Mapping[int, int]) -> None:
        judged: set[int] = set()
        self._states.counts["called"] = len(self._states.called)
        lowest: dict[int, float] = {}  # of the scores of a partition with a callback so far
        for key, called in self._states.called.items():
            number = self._states.delivery_of.get(key)
            if number is None:
                self._judge_uncalled(key, called, lowest.get(key[0]))
                continue
            lowest[key[0]] = min(called.score, lowest.get(key[0], called.score))
            judged.add(number)
            call = self._states.deliveries[number]
            if (outcome := call.outcome_of(self._states.source(key))) is not None:
                self._states.counts[outcome] += 1
            elif call.waits and not call.receipts:
                self._states.counts["waiting"] += 1
            elif self._receipt_may_be_gone(called):
                self._states.counts["receipt_not_judged"] += 1
            else:
                self._miss(key, f"its callback {call.callback_id} was taken, but has no receipt and waits nowhere")
        self._states.counts["callbacks"] = len(judged)
        for number in judged:
            self._judge_rejection(self._states.deliveries[number])
        self._judge_unusable()
        for key, number in self._states.delivery_of.items():
            if key[1] >= committed.get(key[0], 0):
                what = "is in a callback, but the group has not committed it"
                self._states.add(
                    FindingKind.EARLY, self._states.source(key), what, self._states.deliveries[number].seen_at
                )

    def _judge_uncalled(self, key: tuple[int, int], called: CalledScore, lowest: float | None) -> None:
        if self._receipt_may_be_gone(called):
            self._states.counts["receipt_not_judged"] += 1
        elif lowest is None or called.score < lowest:
            self._states.counts["threshold_not_judged"] += 1
        else:
            self._miss(key, "has neither a receipt nor a callback that waits")

    def _judge_redeliveries(self) -> None:
        """Check that each delivery by decision has its decision, the planned content, and one receipt per source."""
        for (callback_id, decision), number in self._states.numbers.items():
            call = self._states.deliveries[number]
            if not (decision and call.is_ours):
                continue
            self._states.counts["redeliveries"] += 1
            name = f"callback {call.callback_id}, delivered again by decision {printable(decision[:64])},"
            self._judge_decision(call, name)
            former_id = self._former_id(decision)
            plan = self._states.numbers.get((former_id or callback_id, ""))
            planned = call if plan is None else self._states.deliveries[plan]
            names = call.names if former_id is None else call.names._replace(body=0)
            if planned.is_planned and call.is_planned and planned.names.differ(names):
                self._states.add(
                    FindingKind.WRONG_VALUE, "", f"{name} {OTHER_CALLBACK} than at {planned.seen_at}", call.seen_at
                )
            self._judge_rejection(call)
            unfinished = sum(call.outcome_of(source) is None for source in call.sources)
            if not unfinished or (call.waits and not call.receipts):
                continue
            if self._may_be_gone(self._gone.receipts, call.written_ms):
                self._states.counts["redelivery_not_judged"] += 1
            else:
                self._states.counts["missing"] += 1
                what = f"{name} has no receipt for {unfinished} of its contacts, and waits nowhere"
                self._states.add(FindingKind.MISSING, "", what, call.seen_at)

    def _former_id(self, decision_id: str) -> str | None:
        """Return the id of the callback whose contacts a decision calls under a new one; None: the id stays."""
        decision = self._decided.find(decision_id)
        return None if decision is None else decision.changes.get(RETARGETED)

    def _judge_decision(self, call: Delivery, name: str) -> None:
        """Check that there is a decision for a delivery."""
        if self._decided.find(call.decision) is not None:
            return
        if self._decided.may_be_gone(call.written_ms):
            self._states.counts["redelivery_not_judged"] += 1
        elif not self._decided.is_published(call.seen_at):  # otherwise its record on the callbacks topic is the finding
            self._states.add(FindingKind.NOT_DECIDED, "", f"{name} has no such decision", call.seen_at)

    def _judge_rejection(self, call: Delivery) -> None:
        """Check that a callback that was refused or given up is on the rejected topic as well, for its replay."""
        refused = next((receipt for receipt in call.receipts if receipt[0] in _REJECTED), None)
        if call.rejections or refused is None:
            return
        outcome, place, written_ms = refused
        if self._rejection_may_be_gone(written_ms):
            self._states.counts["rejection_not_judged"] += 1
        else:
            what = f"callback {call.callback_id} {outcome.replace('_', ' ')}: it does not stand on the rejected topic"
            self._states.counts["missing"] += 1
            self._states.add(FindingKind.MISSING, "", what, place)

    def _judge_unusable(self) -> None:
        for key, unusable in self._states.unusable.items():
            self._states.counts["unusable"] += unusable.times > 0
            if unusable.times:
                continue
            if self._rejection_may_be_gone(unusable.written_ms):
                self._states.counts["rejection_not_judged"] += 1
            else:
                self._miss(key, "is no score, and does not stand on the rejected topic")

    def _receipt_may_be_gone(self, called: CalledScore) -> bool:
        """Return whether the receipt of a score may be deleted: it was written after the score."""
        return self._may_be_gone(self._gone.receipts, called.written_ms)

    def _rejection_may_be_gone(self, written_ms: int) -> bool:
        """Return whether a record of the rejected topic that is not older than ``written_ms`` may be removed."""
        return self._gone.compacted or self._may_be_gone(self._gone.rejections, written_ms)

    def _may_be_gone(self, truncated: Collection[Partition], written_ms: int) -> bool:
        limits = map(self._states.first_ms.get, truncated)
        return any(limit is None or written_ms <= limit for limit in limits)

    def _miss(self, key: tuple[int, int], what: str) -> None:
        self._states.counts["missing"] += 1
        self._states.findings.add(Finding(FindingKind.MISSING, self._states.source(key), what))
