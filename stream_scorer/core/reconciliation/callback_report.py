"""Report of a reconciliation of scores and receipts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from stream_scorer.core.reconciliation.score_report import Judgement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.reconciliation.score_report import Finding, FindingKind


@dataclass(frozen=True, slots=True)
class CallbackCounts:
    """Sums over all partitions of the scores topic, of scores unless stated otherwise.

    Attributes:
        scores: read_committed records in ``[start, committed)`` of the callback worker's group.
        called: those of them at or over the threshold.
        delivered: those of ``called`` with a receipt ``DELIVERED``.
        refused: the same, ``REFUSED``.
        gave_up: the same, ``GAVE_UP``.
        expired: the same, ``EXPIRED``.
        waiting: those of ``called`` whose callback waits for delivery, in a retry topic or before it.
        unusable: those of ``scores`` that are no valid score, with their record on the rejected callbacks topic.
        missing: those of ``called`` with neither receipt nor callback, unusable ones without their record on the
            rejected callbacks topic, and callbacks refused or given up without theirs.
        receipt_not_judged: those of ``called`` without both, whose receipt may be deleted.
        rejection_not_judged: unusable scores, and callbacks refused or given up, whose record on the rejected
            callbacks topic may be deleted.
        threshold_not_judged: those of ``called`` without both, for which the threshold may have been higher.
        callbacks: callbacks with these scores.
        redeliveries: deliveries of callbacks by an operator's decision;
            ``delivered`` and the others count the plan's deliveries.
        redelivery_not_judged: those of them whose receipt or decision may be deleted.
        unplanned: records at or above ``committed``.
    """

    scores: int = 0
    called: int = 0
    delivered: int = 0
    refused: int = 0
    gave_up: int = 0
    expired: int = 0
    waiting: int = 0
    unusable: int = 0
    missing: int = 0
    receipt_not_judged: int = 0
    rejection_not_judged: int = 0
    threshold_not_judged: int = 0
    callbacks: int = 0
    redeliveries: int = 0
    redelivery_not_judged: int = 0
    unplanned: int = 0


@dataclass(frozen=True, slots=True)
class CallbackReport:
    """The result of reconciling scores with receipts.

    Attributes:
        topic: the scores topic.
        group_id: the group that plans callbacks.
        threshold: the lowest score that causes a callback.
        counts: the sums.
        violations: number of findings of each kind; none: every high score has exactly one receipt, or waits.
        findings: the first of each kind.
        before: callbacks for scores below the group's start: another group's callbacks, not judged.
        below: callbacks for scores below the present threshold: planned with another one, not judged.
        foreign: unrelated records: no callback, no receipt, or for no partition of the topic; not judged.
        notes: the limits of the report, one sentence each.
        unknown_starts: partitions whose commit has no start offset of the group: not judged.
    """

    topic: str
    group_id: str
    threshold: float
    counts: CallbackCounts
    violations: Mapping[FindingKind, int]
    findings: tuple[Finding, ...]
    before: int
    below: int
    foreign: int
    notes: tuple[str, ...] = ()
    unknown_starts: tuple[int, ...] = ()

    @property
    def judgement(self) -> Judgement:
        """Whether scores and receipts match; not judged: there is no finding, but some scores could not be judged."""
        if self.violations:
            return Judgement.BROKEN
        counts = self.counts
        gaps = (
            counts.receipt_not_judged,
            counts.rejection_not_judged,
            counts.threshold_not_judged,
            counts.redelivery_not_judged,
            self.unknown_starts,
        )
        return Judgement.NOT_JUDGED if any(gaps) else Judgement.HOLDS

    @property
    def is_balanced(self) -> bool:
        """Whether every score at or over the threshold has exactly one final receipt, or waits."""
        return self.judgement is Judgement.HOLDS

    @property
    def equation(self) -> str:
        """``312 scores ≥ 0.75 = 300 delivered + 2 refused + 1 given up + 0 expired + 9 waiting``, or ``≠``.

        With ``+ 7 not judged`` at its end if there are any.
        """
        of = self.counts
        open_ends = of.receipt_not_judged + of.threshold_not_judged
        ends = of.delivered + of.refused + of.gave_up + of.expired + of.waiting + open_ends
        not_judged = f" + {open_ends:,} not judged" if open_ends else ""
        return (
            f"{of.called:,} scores ≥ {self.threshold:g} {'=' if of.called == ends else '≠'} {of.delivered:,} delivered"
            f" + {of.refused:,} refused + {of.gave_up:,} given up + {of.expired:,} expired + {of.waiting:,} waiting"
            f"{not_judged}"
        )

    @property
    def verdict(self) -> str:
        """One line: that scores and receipts match, the number of findings by kind, or the scores not judged."""
        if self.judgement is Judgement.NOT_JUDGED:
            return f"callbacks of group {self.group_id} on {self.topic} could not be judged: {self._unjudged}"
        if self.is_balanced:
            return f"every score ≥ {self.threshold:g} on {self.topic} has one receipt or waits (group {self.group_id})"
        kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in self.violations.items())
        return f"scores on {self.topic} and receipts do not match for group {self.group_id}: {kinds}"

    @property
    def _unjudged(self) -> str:
        counts = self.counts
        parts = (
            (counts.receipt_not_judged, "scores whose receipt may be deleted"),
            (counts.rejection_not_judged, "unusable scores and failed callbacks whose rejected record may be deleted"),
            (counts.threshold_not_judged, "scores without a callback, for which the threshold may have been higher"),
            (counts.redelivery_not_judged, "callbacks delivered again whose receipt or decision may be deleted"),
            (len(self.unknown_starts), "partitions whose commit another program made"),
        )
        return ", ".join(f"{count:,} {what}" for count, what in parts if count) + "; no finding in the rest"

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return {
            "topic": self.topic,
            "group_id": self.group_id,
            "threshold": self.threshold,
            "judgement": self.judgement.value,
            "holds": self.is_balanced,
            "totals": _plain(self.counts),
            "counts": {kind.value: count for kind, count in self.violations.items()},
            "findings": [_plain(finding) for finding in self.findings],
            "before": self.before,
            "below": self.below,
            "foreign": self.foreign,
            "notes": list(self.notes),
            "unknown_starts": list(self.unknown_starts),
        }


def _plain(value: CallbackCounts | Finding) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}
