"""What a reconciliation of scores and receipts comes to."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.findings import Finding, FindingKind


@dataclass(frozen=True, slots=True)
class CallbackCounts:
    """Sums over all partitions of the scores topic, of scores unless said otherwise.

    Attributes:
        scores: what a read_committed reader finds in ``[start, committed)`` of the campaign worker's group.
        called: those of them at or over the threshold.
        delivered: those of ``called`` with a receipt ``DELIVERED``.
        refused: the same, ``REFUSED``.
        gave_up: the same, ``GAVE_UP``.
        expired: the same, ``EXPIRED``.
        waiting: those of ``called`` whose callback waits to be delivered, in a retry tier or before it.
        unusable: those of ``scores`` that are none, with their record on the rejected callbacks topic.
        missing: those of ``called`` with neither receipt nor callback, and unusable ones without their record.
        callbacks: callbacks that these scores are in.
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
    callbacks: int = 0
    unplanned: int = 0


@dataclass(frozen=True, slots=True)
class CallbackReport:
    """The result of reconciling scores with receipts.

    Attributes:
        topic: the scores topic.
        group_id: the group that plans callbacks.
        threshold: scores from here on call.
        counts: the sums.
        violations: how many findings there are of each kind; none: every high score has exactly one end, or waits.
        findings: the first of each kind.
        before: callbacks about scores below the group's start: another group's work, not judged.
        below: callbacks about scores below the present threshold: planned under another one, not judged.
        foreign: records that are no callback, no receipt, or about no partition of the topic: not judged.
        notes: what limits the statement, one sentence each.
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

    @property
    def holds(self) -> bool:
        """Whether every score at or over the threshold has exactly one final receipt, or waits."""
        return not self.violations

    @property
    def equation(self) -> str:
        """``312 scores ≥ 0.75 = 300 delivered + 2 refused + 1 given up + 0 expired + 9 waiting``, or ``≠``."""
        of = self.counts
        ends = of.delivered + of.refused + of.gave_up + of.expired + of.waiting
        return (
            f"{of.called:,} scores ≥ {self.threshold:g} {'=' if of.called == ends else '≠'} {of.delivered:,} delivered"
            f" + {of.refused:,} refused + {of.gave_up:,} given up + {of.expired:,} expired + {of.waiting:,} waiting"
        )

    @property
    def verdict(self) -> str:
        """One line: that it holds, or how many findings of which kind there are."""
        if self.holds:
            return f"every score ≥ {self.threshold:g} on {self.topic} has one receipt or waits (group {self.group_id})"
        kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in self.violations.items())
        return f"scores on {self.topic} and receipts do not match for group {self.group_id}: {kinds}"

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {
            "topic": self.topic,
            "group_id": self.group_id,
            "threshold": self.threshold,
            "holds": self.holds,
            "totals": _plain(self.counts),
            "counts": {kind.value: count for kind, count in self.violations.items()},
            "findings": [_plain(finding) for finding in self.findings],
            "before": self.before,
            "below": self.below,
            "foreign": self.foreign,
            "notes": list(self.notes),
        }


def _plain(value: CallbackCounts | Finding) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}
