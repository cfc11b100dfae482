"""Reconciliation of callbacks: every score at or over the threshold has exactly one final receipt, or waits.

Order of the calls: the scores; the callbacks of the callbacks topic and its retry topics; the receipts and the
rejected records; finally the offsets that planner and deliverer have committed by then. A callback waits if the
deliverer has not committed its record. Scores below the first commit must have an outcome, those at or above the last
commit must have none. Scores between the two may have one.

A callback with contacts that are refused alone has several receipts, which share its sources among them.

An operator may decide to deliver a callback again. Each decision is a delivery of its own, whose records name it in a
header: the callback once more on the callbacks topic, its retries, its receipts and its rejection. So each source has
one final receipt per delivery, the plan being the first.

A score without a callback is not judged if its receipt may be deleted. Nor is it if the threshold may have been higher
when it was planned: no lower score before it in its partition has a callback. A threshold that was raised and lowered
again is not detected, so the scores in between are reported as missing.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.redelivery import RETARGETED
from stream_scorer.core.reconciliation.callback_report import CallbackCounts, CallbackReport
from stream_scorer.core.reconciliation.outcome_values import payload_digest
from stream_scorer.core.reconciliation.score_report import MAX_FINDINGS, Finding, FindingKind, Findings
from stream_scorer.core.records import Partition
from stream_scorer.errors import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.reconciliation.decisions import DecisionReconciliation
    from stream_scorer.core.reconciliation.lost_offsets import Lost
    from stream_scorer.core.reconciliation.outcome_values import Content
    from stream_scorer.core.reconciliation.record_states import CommittedRange, RecordLocation

_OUTCOMES: Final = {"DELIVERED": "delivered", "REFUSED": "refused", "GAVE_UP": "gave_up", "EXPIRED": "expired"}
# With such a receipt the callback itself is on the rejected topic.
_REJECTED: Final = frozenset({"refused", "gave_up"})
_NUMBERS: Final = ("score", "confidence_lower", "confidence_upper")
_OTHER: Final = "names another campaign, other sources, contacts or events, or has another body"


class Codecs(NamedTuple):
    """Codecs of ``ContactScore``, ``CampaignCallback`` and ``CallbackReceipt``."""

    score: Codec
    callback: Codec
    receipt: Codec


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


class _Called(NamedTuple):
    """The compared fields of a score at or over the threshold; ``written_ms``: Kafka's timestamp of its record."""

    contact_id: str
    event_id: str
    campaign_id: str | None
    score: float
    written_ms: int


class _Names(NamedTuple):
    """Digests of the common fields of one callback's records; 0: the record does not have the field.

    Attributes:
        contacts: sources with their contacts, and the campaign.
        events: the events; older receipts have none.
        body: the body; receipts have none.
    """

    contacts: int
    events: int
    body: int

    def differ(self, other: _Names) -> bool:
        """Return whether two records belong to different callbacks."""
        return any(one != another for one, another in zip(self, other, strict=True) if one and another)


@dataclass(slots=True)
class _Unusable:
    """A score that cannot be part of a callback; ``times``: number of its records on the rejected topic."""

    written_ms: int
    times: int = 0


@dataclass(slots=True)
class _Call:
    """One delivery of a callback: locations of its records and receipts.

    Attributes:
        names: of the record that was read first.
        waits: its records that the deliverer had not committed.
        receipts: their outcomes, locations, and Kafka's timestamps.
        rejections: its records on the rejected topic.
        size: number of its contacts.
        is_planned: whether the record of the callback itself was read, and not receipts only.
        parts: outcomes by source, if its receipts share the sources among them; otherwise empty. Those of the first
            receipt are left out if ``is_planned`` is False.
        decision: id of the decision to deliver it again; empty: it is the delivery that was planned.
        sources: those of the record that was read first, if there is a decision.
        written_ms: Kafka's timestamp of that record.
    """

    callback_id: str
    seen_at: RecordLocation
    names: _Names
    size: int
    is_planned: bool
    is_ours: bool = False
    waits: list[RecordLocation] = field(default_factory=list)
    receipts: list[tuple[str, RecordLocation, int]] = field(default_factory=list)
    rejections: list[RecordLocation] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)
    decision: str = ""
    sources: frozenset[str] = frozenset()
    written_ms: int = 0

    def outcome_of(self, source: str) -> str | None:
        """Return the outcome of a contact; None: it has no receipt."""
        first = self.receipts[0][0] if self.receipts else None
        if self.parts:
            return self.parts.get(source, None if self.is_planned else first)
        return first


class CallbackReconciliation:
    """See the module docstring. Do not use it after `result`.

    Args:
        topic: the scores topic.
        group_id: the group that plans callbacks.
        spans: that group's committed range on each partition of the scores topic.
        taken: the deliverer's commits on the callbacks topic and the retry topics before any record was read; a
            partition without a commit is left out.
        decided: the decisions to deliver callbacks again; complete before `result`.
        threshold: the lowest score that causes a callback.
        codecs: of the records.
        gone: the gaps of the output topics.
        lost: the offsets of each partition that were deleted before the group read them.
        unknown_starts: partitions whose commit has no start offset of the group.
        since_ms: for partitions of a topic that was created again, the time behind the outputs of the former (Unix ms):
            callbacks planned before belong to the former topic, and count as from before the start.
        compacted: the topic is compacted, so a score may be removed although it was called.
        max_findings: how many findings of each kind are kept; all are counted.
    """

    def __init__(
        self,
        topic: str,
        group_id: str,
        spans: Mapping[int, CommittedRange],
        taken: Mapping[Partition, int],
        decided: DecisionReconciliation,
        *,
        threshold: float,
        codecs: Codecs,
        gone: Truncated,
        lost: Mapping[int, Sequence[Lost]] | None = None,
        unknown_starts: Collection[int] = (),
        since_ms: Mapping[int, int] | None = None,
        compacted: bool = False,
        max_findings: int = MAX_FINDINGS,
    ) -> None:
        self._topic = topic
        self._group_id = group_id
        self._spans = spans
        self._taken = taken
        self._decided = decided
        self._threshold = threshold
        self._codecs = codecs
        self._gone = gone
        self._lost = dict(lost or {})
        self._unknown_starts = tuple(sorted(unknown_starts))
        self._since_ms = dict(since_ms or {})
        self._compacted = compacted
        # By truncated partition of the receipts and the rejected topic, Kafka's timestamp of the first record left.
        self._first_ms: dict[Partition, int] = {}
        self._findings = Findings(max_findings)
        self._counts: Counter[str] = Counter()
        # Of every score that was read, in order.
        self._offsets = {partition: array("q") for partition in spans}
        # By partition and offset of a score at or over the threshold: its content, and then its callback.
        self._called: dict[tuple[int, int], _Called] = {}
        self._call_of: dict[tuple[int, int], int] = {}
        self._unusable: dict[tuple[int, int], _Unusable] = {}
        # Digests of key and value of the scores in both.
        self._payloads: dict[tuple[int, int], int] = {}
        self._calls: list[_Call] = []
        # By callback id and decision.
        self._numbers: dict[tuple[str, str], int] = {}

    # --- input

    def score(self, partition: int, offset: int, content: Content, written_ms: int) -> None:
        """Add a record of the scores topic, read as read_committed; ``written_ms``: its Kafka timestamp."""
        span = self._spans[partition]
        if offset >= span.committed:
            self._counts["unplanned"] += 1
        elif offset >= span.start:
            self._counts["scores"] += 1
            self._offsets[partition].append(offset)
            self._examine((partition, offset), content, written_ms)

    def _examine(self, key: tuple[int, int], content: Content, written_ms: int) -> None:
        try:
            fields = self._codecs.score.decode(content.value)
        except UndecodableError:
            fields = None
        if fields is None or not (
            fields["review_reasons"] or all(map(math.isfinite, map(fields.__getitem__, _NUMBERS)))
        ):
            self._unusable[key] = _Unusable(written_ms)
        elif fields["score"] >= self._threshold and not fields["review_reasons"]:
            names = (fields["contact_id"], fields["event_id"], fields["campaign_id"])
            self._called[key] = _Called(*names, fields["score"], written_ms)
        else:
            return
        self._payloads[key] = payload_digest(content)

    def callback(self, value: bytes | None, place: RecordLocation, written_ms: int, decision: str = "") -> None:
        """Add a record of the callbacks topic or of a retry topic.

        Args:
            value: its value.
            place: its location.
            written_ms: its Kafka timestamp.
            decision: its header ``stream-scorer-decision``; empty: it has none.
        """
        try:
            fields = self._codecs.callback.decode(value)
        except UndecodableError:
            self._counts["foreign"] += 1
            return
        planned_ms = min(written_ms, fields["planned_at"])
        call = self._call(fields, place, planned_ms, is_planned=True, decision=decision)
        if _waits(place, self._taken):
            call.waits.append(place)

    def receipt(self, value: bytes | None, place: RecordLocation, written_ms: int, decision: str = "") -> None:
        """Add a record of the receipts topic; the arguments are those of `callback`."""
        self._first_ms.setdefault(Partition(place.topic, place.partition), written_ms)
        try:
            fields = self._codecs.receipt.decode(value)
        except UndecodableError:
            self._counts["foreign"] += 1
            return
        outcome = _OUTCOMES[fields["outcome"]]
        number = self._numbers.get((fields["callback_id"], decision))
        if number is not None and self._is_part(self._calls[number], fields):
            self._part(number, fields, place, written_ms)
            return
        call = self._call(fields, place, written_ms, is_planned=False, decision=decision)
        if call.receipts and call.is_ours:
            self._once_more(call, fields, place)
        call.receipts.append((outcome, place, written_ms))

    def _once_more(self, call: _Call, fields: Mapping[str, Any], place: RecordLocation) -> None:
        what = f"callback {call.callback_id} has one more receipt, after that at {call.receipts[0][1]}"
        self._add(FindingKind.DOUBLED, fields["sources"][0] if fields["sources"] else "", what, place)

    def _is_part(self, call: _Call, fields: Mapping[str, Any]) -> bool:
        """Return whether a receipt is about some contacts of a callback only."""
        if len(fields["contact_ids"]) != len(fields["sources"]):
            return False
        if call.is_planned:
            return 0 < len(fields["sources"]) < call.size
        return bool(call.receipts) and call.names.contacts != _digests(fields).contacts

    def _part(self, number: int, fields: Mapping[str, Any], place: RecordLocation, written_ms: int) -> None:
        """Add a receipt about some contacts of a callback."""
        call = self._calls[number]
        outcome = _OUTCOMES[fields["outcome"]]
        if call.receipts and not call.parts and call.is_planned:
            self._once_more(call, fields, place)
            return
        events = chain(fields["event_ids"], repeat(""))
        for source, *ids in zip(fields["sources"], fields["contact_ids"], events, strict=False):
            names = (*ids, fields["campaign_id"])
            key = self._place_of(source)
            was_entered = not call.is_planned and (
                source in call.sources if call.decision else key is not None and self._call_of.get(key) == number
            )
            if source in call.parts or was_entered:
                self._once_more(call, fields, place)
            elif call.decision:
                if call.is_planned and source not in call.sources:
                    what = f"is in a receipt of callback {call.callback_id}, and not in that callback"
                    self._add(FindingKind.WRONG_VALUE, source, what, place)
            elif not call.is_planned:
                self._enter(source, names, number, place, written_ms)
            elif key is not None and key in self._called:
                if self._call_of.get(key) == number:
                    self._compare(source, self._called[key], names, place)
                else:
                    what = f"is in a receipt of callback {call.callback_id}, and not in that callback"
                    self._add(FindingKind.WRONG_VALUE, source, what, place)
            call.parts[source] = outcome
        call.receipts.append((outcome, place, written_ms))

    def rejected(
        self, source: str, content: Content, place: RecordLocation, written_ms: int, decision: str = ""
    ) -> None:
        """Add a record of the rejected callbacks topic.

        Args:
            source: its header ``stream-scorer-source``.
            content: its key and value.
            place: its location.
            written_ms: its Kafka timestamp.
            decision: its header ``stream-scorer-decision``; empty: it has none.
        """
        self._first_ms.setdefault(Partition(place.topic, place.partition), written_ms)
        found = self._place_of(source)
        if found is None:
            self._rejected_callback(content, place, decision)
            return
        if written_ms < self._since_ms.get(found[0], 0):
            return
        if found in self._call_of and found in self._called:
            what = f"is in callback {self._calls[self._call_of[found]].callback_id}, and stands on the rejected topic"
            self._add(FindingKind.DOUBLED, source, what, place)
            return
        if found in self._called:
            # A score over the threshold that fits no callback: too large, or with an invalid contact id.
            self._unusable[found] = _Unusable(self._called.pop(found).written_ms)
        unusable = self._unusable.get(found)
        if unusable is None:
            return
        unusable.times += 1
        if unusable.times > 1:
            self._add(FindingKind.DOUBLED, source, "stands on the rejected topic twice", place)
        if not content.truncated and payload_digest(content) != self._payloads[found]:
            what = "key and value on the rejected topic are not those of the score"
            self._add(FindingKind.WRONG_VALUE, source, what, place)

    def _rejected_callback(self, content: Content, place: RecordLocation, decision: str) -> None:
        fields = None
        callback_id = (content.key or b"").decode(errors="replace")
        if not content.truncated:
            try:
                fields = self._codecs.callback.decode(content.value)
            except UndecodableError:
                return  # a record of the callbacks topic that was no callback
            callback_id = fields["callback_id"]
        number = self._numbers.get((callback_id, decision))
        if number is None or not self._calls[number].is_ours:
            return
        call = self._calls[number]
        if call.rejections:
            what = f"callback {call.callback_id} stands on the rejected topic once more, after {call.rejections[0]}"
            self._add(FindingKind.DOUBLED, "", what, place)
        call.rejections.append(place)
        # Without its own record, a single receipt may be about some of its contacts only.
        is_known = call.is_planned or (not call.parts and fields is not None and len(fields["sources"]) == call.size)
        if fields is not None and is_known and call.names.differ(_digests(fields)):
            what = f"callback {call.callback_id} {_OTHER} than at {call.seen_at}"
            self._add(FindingKind.WRONG_VALUE, "", what, place)

    # --- result

    def result(
        self, committed: Mapping[int, int], taken: Mapping[Partition, int], notes: Sequence[str] = ()
    ) -> CallbackReport:
        """Return the report.

        Args:
            committed: the planner's present commits on the scores topic.
            taken: the deliverer's present commits.
            notes: the limits of the report.
        """
        self._judge_lost()
        self._judge_calls(taken)
        self._judge_scores(committed)
        self._judge_redeliveries()
        self._decided.close(self._findings)
        counts = {name: self._counts[name] for name in CallbackCounts.__dataclass_fields__}
        return CallbackReport(
            topic=self._topic,
            group_id=self._group_id,
            threshold=self._threshold,
            counts=CallbackCounts(**counts),
            violations=self._findings.counts,
            findings=self._findings.first,
            before=self._counts["before"],
            below=self._counts["below"],
            foreign=self._counts["foreign"],
            notes=(*notes, *self._decided.notes()),
            unknown_starts=self._unknown_starts,
        )

    def _judge_lost(self) -> None:
        for partition, gaps in self._lost.items():
            for lost in gaps:
                what = f"and what followed it below {lost.end} was deleted before the group had read it"
                self._findings.add(Finding(FindingKind.LOST, self._source((partition, lost.begin)), what))

    def _judge_calls(self, taken: Mapping[Partition, int]) -> None:
        """Find callbacks that have a receipt and still wait, or that wait twice."""
        for call in filter(lambda call: call.is_ours, self._calls):
            still = [place for place in call.waits if _waits(place, taken)]
            if still and call.receipts:
                what = f"callback {call.callback_id} has the receipt at {call.receipts[0][1]} and still waits"
                self._add(FindingKind.DOUBLED, "", what, still[0])
            elif len(still) > 1:
                what = f"callback {call.callback_id} waits twice, at {still[0]} too"
                self._add(FindingKind.DOUBLED, "", what, still[1])

    def _judge_scores(self, committed: Mapping[int, int]) -> None:
        judged: set[int] = set()
        self._counts["called"] = len(self._called)
        lowest: dict[int, float] = {}  # of the scores of a partition with a callback so far
        for key, called in self._called.items():
            number = self._call_of.get(key)
            if number is None:
                self._judge_uncalled(key, called, lowest.get(key[0]))
                continue
            lowest[key[0]] = min(called.score, lowest.get(key[0], called.score))
            judged.add(number)
            call = self._calls[number]
            if (outcome := call.outcome_of(self._source(key))) is not None:
                self._counts[outcome] += 1
            elif call.waits and not call.receipts:
                self._counts["waiting"] += 1
            elif self._receipt_may_be_gone(called):
                self._counts["receipt_not_judged"] += 1
            else:
                self._miss(key, f"its callback {call.callback_id} was taken, but has no receipt and waits nowhere")
        self._counts["callbacks"] = len(judged)
        for number in judged:
            self._judge_rejection(self._calls[number])
        self._judge_unusable()
        for key, number in self._call_of.items():
            if key[1] >= committed.get(key[0], 0):
                what = "is in a callback, but the group has not committed it"
                self._add(FindingKind.EARLY, self._source(key), what, self._calls[number].seen_at)

    def _judge_uncalled(self, key: tuple[int, int], called: _Called, lowest: float | None) -> None:
        if self._receipt_may_be_gone(called):
            self._counts["receipt_not_judged"] += 1
        elif lowest is None or called.score < lowest:
            self._counts["threshold_not_judged"] += 1
        else:
            self._miss(key, "has neither a receipt nor a callback that waits")

    def _judge_redeliveries(self) -> None:
        """Check that each delivery by decision has its decision, the planned content, and one receipt per source."""
        for (callback_id, decision), number in self._numbers.items():
            call = self._calls[number]
            if not (decision and call.is_ours):
                continue
            self._counts["redeliveries"] += 1
            name = f"callback {call.callback_id}, delivered again by decision {printable(decision[:64])},"
            self._judge_decision(call, name)
            former_id = self._former_id(decision)
            plan = self._numbers.get((former_id or callback_id, ""))
            planned = call if plan is None else self._calls[plan]
            names = call.names if former_id is None else call.names._replace(body=0)
            if planned.is_planned and call.is_planned and planned.names.differ(names):
                self._add(FindingKind.WRONG_VALUE, "", f"{name} {_OTHER} than at {planned.seen_at}", call.seen_at)
            self._judge_rejection(call)
            unfinished = sum(call.outcome_of(source) is None for source in call.sources)
            if not unfinished or (call.waits and not call.receipts):
                continue
            if self._may_be_gone(self._gone.receipts, call.written_ms):
                self._counts["redelivery_not_judged"] += 1
            else:
                self._counts["missing"] += 1
                what = f"{name} has no receipt for {unfinished} of its contacts, and waits nowhere"
                self._add(FindingKind.MISSING, "", what, call.seen_at)

    def _former_id(self, decision_id: str) -> str | None:
        """Return the id of the callback whose contacts a decision calls under a new one; None: the id stays."""
        decision = self._decided.find(decision_id)
        return None if decision is None else decision.changes.get(RETARGETED)

    def _judge_decision(self, call: _Call, name: str) -> None:
        """Check that there is a decision for a delivery."""
        if self._decided.find(call.decision) is not None:
            return
        if self._decided.may_be_gone(call.written_ms):
            self._counts["redelivery_not_judged"] += 1
        elif not self._decided.is_published(call.seen_at):  # otherwise its record on the callbacks topic is the finding
            self._add(FindingKind.NOT_DECIDED, "", f"{name} has no such decision", call.seen_at)

    def _judge_rejection(self, call: _Call) -> None:
        """Check that a callback that was refused or given up is on the rejected topic as well, for its replay."""
        refused = next((receipt for receipt in call.receipts if receipt[0] in _REJECTED), None)
        if call.rejections or refused is None:
            return
        outcome, place, written_ms = refused
        if self._rejection_may_be_gone(written_ms):
            self._counts["rejection_not_judged"] += 1
        else:
            what = f"callback {call.callback_id} {outcome.replace('_', ' ')}: it does not stand on the rejected topic"
            self._counts["missing"] += 1
            self._add(FindingKind.MISSING, "", what, place)

    def _judge_unusable(self) -> None:
        for key, unusable in self._unusable.items():
            self._counts["unusable"] += unusable.times > 0
            if unusable.times:
                continue
            if self._rejection_may_be_gone(unusable.written_ms):
                self._counts["rejection_not_judged"] += 1
            else:
                self._miss(key, "is no score, and does not stand on the rejected topic")

    def _receipt_may_be_gone(self, called: _Called) -> bool:
        """Return whether the receipt of a score may be deleted: it was written after the score."""
        return self._may_be_gone(self._gone.receipts, called.written_ms)

    def _rejection_may_be_gone(self, written_ms: int) -> bool:
        """Return whether a record of the rejected topic that is not older than ``written_ms`` may be removed."""
        return self._gone.compacted or self._may_be_gone(self._gone.rejections, written_ms)

    def _may_be_gone(self, truncated: Collection[Partition], written_ms: int) -> bool:
        limits = map(self._first_ms.get, truncated)
        return any(limit is None or written_ms <= limit for limit in limits)

    # --- private

    def _call(
        self, fields: dict[str, Any], place: RecordLocation, planned_ms: int, *, is_planned: bool, decision: str
    ) -> _Call:
        """Return the callback of a record; add its sources the first time, then compare them.

        It was planned at ``planned_ms`` at the latest.
        """
        names = _digests(fields)
        number = self._numbers.get((fields["callback_id"], decision))
        if number is not None:
            known = self._calls[number]
            if known.names.differ(names) and (known.is_ours or any(map(self._place_of, fields["sources"]))):
                what = f"callback {known.callback_id} {_OTHER} than at {known.seen_at}"
                self._add(FindingKind.WRONG_VALUE, fields["sources"][0] if fields["sources"] else "", what, place)
            return known
        number = self._numbers[fields["callback_id"], decision] = len(self._calls)
        # It is untrusted, and part of a one-line message.
        name = printable(fields["callback_id"][:64])
        call = _Call(name, place, names, size=len(fields["sources"]), is_planned=is_planned)
        self._calls.append(call)
        if decision:
            call.decision, call.written_ms = decision, planned_ms
            call.sources = frozenset(fields["sources"])
            call.is_ours = any(self._place_of(source) is not None for source in call.sources)
            return call
        events = chain(fields["event_ids"], repeat(""))
        for source, *ids in zip(fields["sources"], fields["contact_ids"], events, strict=False):
            self._enter(source, (*ids, fields["campaign_id"]), number, place, planned_ms)
        return call

    def _enter(
        self, source: str, ids: tuple[str, str, str | None], number: int, place: RecordLocation, planned_ms: int
    ) -> None:
        key = self._place_of(source)
        if key is None:
            self._counts["foreign"] += 1
            return
        span = self._spans[key[0]]
        self._calls[number].is_ours = True
        if key[1] < span.start or planned_ms < self._since_ms.get(key[0], 0):
            self._counts["before"] += 1
            return
        if key not in self._called and key[1] < span.committed:
            if self._was_read(key):
                self._counts["below"] += 1
            elif not self._compacted:
                self._add(FindingKind.NO_INPUT, source, "is in a callback, but no reader finds this score", place)
            return
        other = self._call_of.setdefault(key, number)
        if other != number:
            what = f"is in callback {self._calls[number].callback_id} and in {self._calls[other].callback_id}"
            self._add(FindingKind.DOUBLED, source, what, place)
        called = self._called.get(key)
        if called is not None:
            self._compare(source, called, ids, place)

    def _compare(self, source: str, called: _Called, ids: tuple[str, str, str | None], place: RecordLocation) -> None:
        if called.contact_id != ids[0]:
            self._add(FindingKind.WRONG_CONTACT, source, "its callback names another contact", place)
        elif called.event_id != ids[1]:
            self._add(FindingKind.WRONG_VALUE, source, "its callback names another event", place)
        elif called.campaign_id != ids[2]:
            self._add(FindingKind.WRONG_VALUE, source, "its callback names another campaign", place)

    def _place_of(self, source: str) -> tuple[int, int] | None:
        """Return partition and offset of a source; None: it is not one of the topic."""
        topic, _, rest = source.rpartition("/")[0].rpartition("/")
        offset = source.rpartition("/")[2]
        if topic != self._topic or not (rest.isdecimal() and offset.isdecimal() and source.isascii()):
            return None
        return (int(rest), int(offset)) if int(rest) in self._spans else None

    def _was_read(self, key: tuple[int, int]) -> bool:
        offsets = self._offsets[key[0]]
        index = bisect_left(offsets, key[1])
        return index < len(offsets) and offsets[index] == key[1]

    def _source(self, key: tuple[int, int]) -> str:
        return f"{self._topic}/{key[0]}/{key[1]}"

    def _miss(self, key: tuple[int, int], what: str) -> None:
        self._counts["missing"] += 1
        self._findings.add(Finding(FindingKind.MISSING, self._source(key), what))

    def _add(self, kind: FindingKind, source: str, what: str, place: RecordLocation) -> None:
        self._findings.add(Finding(kind, source, what, str(place)))


def _digests(fields: Mapping[str, Any]) -> _Names:
    contacts = tuple(fields["sources"]), tuple(fields["contact_ids"]), fields["campaign_id"]
    events = tuple(fields["event_ids"])
    return _Names(hash(contacts), hash(events) if events else 0, hash(fields["body"]) if "body" in fields else 0)


def _waits(place: RecordLocation, taken: Mapping[Partition, int]) -> bool:
    """Return whether the deliverer had not committed the record when ``taken`` was read."""
    return place.offset >= taken.get(Partition(place.topic, place.partition), 0)
