"""Report of a reconciliation of scores: counts for each partition, findings, and whether the invariant holds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_FINDINGS: Final = 20


class FindingKind(StrEnum):
    """Kind of a violation of the invariant (contract, section 1) or of the match of scores and receipts."""

    MISSING = "missing"
    DOUBLED = "doubled"
    EARLY = "early"
    OUT_OF_ORDER = "out_of_order"
    NO_INPUT = "no_input"
    NOT_AUDITED = "not_audited"
    AUDITED_TWICE = "audited_twice"
    WRONG_BATCH = "wrong_batch"
    WRONG_OUTCOME = "wrong_outcome"
    BROKEN_CHAIN = "broken_chain"
    WRONG_CONTACT = "wrong_contact"
    WRONG_VALUE = "wrong_value"
    UNREADABLE_VALUE = "unreadable_value"
    WRONG_COUNTS = "wrong_counts"
    LOST = "lost"
    WAITING_TWICE = "waiting_twice"
    WAITING_AND_FINISHED = "waiting_and_finished"
    DECIDED_TWICE = "decided_twice"
    NOT_DECIDED = "not_decided"
    NOT_PUBLISHED = "not_published"


class Judgement(StrEnum):
    """Result of a reconciliation."""

    HOLDS = "holds"
    BROKEN = "broken"
    NOT_JUDGED = "not_judged"


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation.

    Attributes:
        kind: the violated rule.
        source: ``topic/partition/offset`` of the input record; empty if there is none (a broken chain).
        what: one readable sentence.
        where: ``topic/partition/offset`` of the output or audit record that proves it; empty if there is none.
    """

    kind: FindingKind
    source: str
    what: str
    where: str = ""

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        return f"{self.kind.replace('_', ' ')}: {self.source}{': ' if self.source else ''}{self.what}{where}"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Provenance of a report: without it, an archived report proves nothing.

    Attributes:
        judged_at: when reading began, ISO 8601, UTC.
        cluster_id: the Kafka cluster's own id.
        version: of this package.
        group_id: the group whose contacts were judged.
        callbacks_group_id: the group whose callbacks were judged.
    """

    judged_at: str
    cluster_id: str
    version: str
    group_id: str
    callbacks_group_id: str

    def __str__(self) -> str:
        return (
            f"{self.judged_at}, Kafka cluster {self.cluster_id}, stream-scorer {self.version}, groups"
            f" {self.group_id} and {self.callbacks_group_id}"
        )

    def as_dict(self) -> dict[str, str]:
        """Return the provenance as plain values, for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Findings:
    """Collection of findings: counts all of them, keeps the first of each kind."""

    __slots__ = ("_counts", "_first", "_max")

    def __init__(self, max_findings: int = MAX_FINDINGS) -> None:
        """Keep ``max_findings`` of each kind."""
        self._max = max_findings
        self._counts = dict.fromkeys(FindingKind, 0)
        self._first: dict[FindingKind, list[Finding]] = {kind: [] for kind in FindingKind}

    def add(self, finding: Finding) -> None:
        """Count one finding, and keep it if it is among the first of its kind."""
        self.add_all(finding.kind, 1, (finding,))

    def add_all(self, kind: FindingKind, count: int, findings: Iterable[Finding]) -> None:
        """Count ``count`` findings of a kind; the iterable is consumed only as far as findings are kept."""
        self._counts[kind] += count
        kept = self._first[kind]
        kept.extend(islice(findings, max(self._max - len(kept), 0)))

    @property
    def counts(self) -> dict[FindingKind, int]:
        """The number of findings of each kind that occurs."""
        return {kind: count for kind, count in self._counts.items() if count}

    @property
    def first(self) -> tuple[Finding, ...]:
        """The kept findings, alternating between kinds: thousands of one kind do not hide the only one of another."""
        rounds = zip_longest(*self._first.values())
        return tuple(finding for finding in chain.from_iterable(rounds) if finding is not None)


@dataclass(frozen=True, slots=True)
class PartitionReport:
    """The counts of one input partition: records, not offsets.

    Attributes:
        partition: its number; None in the totals.
        start: the group's start offset, or the log's present start if that is later; None in the totals.
        committed: the group's committed offset, first reading; None in the totals.
        inputs: read_committed records in ``[start, committed)``.
        scored: output records of those inputs, of this kind.
        review: the same.
        rejected: the same.
        audited: audit entries of those inputs.
        deferred: those inputs that have no output and wait in a retry topic.
        missing: inputs without any output record that do not wait either.
        not_judged: inputs without an output record that retention or compaction may have removed.
        audit_not_judged: inputs with an output record, whose audit entry may have been removed likewise.
        lost: offsets that were deleted before the group read them.
        doubled: output records of a source that has one already.
        early: output records at or above the committed offset, second reading.
        out_of_order: output records behind one of a later input in the same output partition, except those of
            deferred contacts.
        waiting: records at or above ``committed``.
    """

    partition: int | None
    start: int | None
    committed: int | None
    inputs: int = 0
    scored: int = 0
    review: int = 0
    rejected: int = 0
    audited: int = 0
    deferred: int = 0
    missing: int = 0
    not_judged: int = 0
    audit_not_judged: int = 0
    lost: int = 0
    doubled: int = 0
    early: int = 0
    out_of_order: int = 0
    waiting: int = 0


_COUNTS: Final = tuple(field.name for field in fields(PartitionReport))[3:]


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a reconciliation.

    Attributes:
        topic: the features topic.
        group_id: the group whose commits were read.
        partitions: one for each input partition, in order.
        counts: number of findings of each kind; none: the invariant holds.
        findings: the first of each kind.
        before: output records of sources below the group's start: another group's outputs, not judged.
        foreign: unrelated output records, without a source on the topic: not judged.
        audit_events: number of verified audit events.
        chains: number of their hash chains.
        notes: the limits of the report, one sentence each.
        unknown_starts: partitions whose commit has no start offset of the group: not judged.
    """

    topic: str
    group_id: str
    partitions: tuple[PartitionReport, ...]
    counts: Mapping[FindingKind, int]
    findings: tuple[Finding, ...]
    before: int
    foreign: int
    audit_events: int
    chains: int
    notes: tuple[str, ...] = ()
    unknown_starts: tuple[int, ...] = ()

    @property
    def judgement(self) -> Judgement:
        """Whether the invariant holds; not judged: there is no finding, but some inputs could not be judged."""
        if self.counts:
            return Judgement.BROKEN
        totals = self.totals
        gaps = totals.not_judged or totals.audit_not_judged or self.unknown_starts
        return Judgement.NOT_JUDGED if gaps else Judgement.HOLDS

    @property
    def is_balanced(self) -> bool:
        """Whether the invariant holds for every readable input."""
        return self.judgement is Judgement.HOLDS

    @property
    def totals(self) -> PartitionReport:
        """The sums over all partitions."""
        sums = {name: sum(getattr(partition, name) for partition in self.partitions) for name in _COUNTS}
        return PartitionReport(None, None, None, **sums)

    @property
    def equation(self) -> str:
        """``20,000 inputs = 19,211 scores + 430 review + 359 rejected``; ``≠`` if the sums differ.

        With ``+ 12 deferred`` and ``+ 7 not judged`` at its end if there are any.
        """
        totals = self.totals
        done = totals.scored + totals.review + totals.rejected + totals.deferred + totals.not_judged
        deferred = f" + {totals.deferred:,} deferred" if totals.deferred else ""
        not_judged = f" + {totals.not_judged:,} not judged" if totals.not_judged else ""
        return (
            f"{totals.inputs:,} inputs {'=' if totals.inputs == done else '≠'} {totals.scored:,} scores"
            f" + {totals.review:,} review + {totals.rejected:,} rejected{deferred}{not_judged}"
        )

    @property
    def verdict(self) -> str:
        """One line: that the invariant holds, the number of findings by kind, or the inputs not judged."""
        match self.judgement:
            case Judgement.HOLDS:
                return f"the invariant holds for group {self.group_id} on {self.topic}"
            case Judgement.NOT_JUDGED:
                return f"group {self.group_id} on {self.topic} could not be judged: {self._unjudged}"
        kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in self.counts.items())
        return f"the invariant does not hold for group {self.group_id} on {self.topic}: {kinds}"

    @property
    def _unjudged(self) -> str:
        totals = self.totals
        parts = (
            (totals.not_judged, "inputs whose outcome may be deleted"),
            (totals.audit_not_judged, "inputs whose audit entry may be deleted"),
            (len(self.unknown_starts), "partitions whose commit another program made"),
        )
        return ", ".join(f"{count:,} {what}" for count, what in parts if count) + "; no finding in the rest"

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return {
            "topic": self.topic,
            "group_id": self.group_id,
            "judgement": self.judgement.value,
            "holds": self.is_balanced,
            "totals": {name: getattr(self.totals, name) for name in _COUNTS},
            "partitions": [_plain(partition) for partition in self.partitions],
            "counts": {kind.value: count for kind, count in self.counts.items()},
            "findings": [_plain(finding) for finding in self.findings],
            "before": self.before,
            "foreign": self.foreign,
            "audit_events": self.audit_events,
            "chains": self.chains,
            "notes": list(self.notes),
            "unknown_starts": list(self.unknown_starts),
        }


def _plain(value: PartitionReport | Finding) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}
