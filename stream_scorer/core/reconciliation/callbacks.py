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
from bisect import bisect_left
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.reconciliation.callback_judgement import CallbackJudgement
from stream_scorer.core.reconciliation.callback_report import CallbackCounts, CallbackReport
from stream_scorer.core.reconciliation.callback_states import (
    OTHER_CALLBACK,
    CallbackStates,
    CalledScore,
    Delivery,
    UnusableScore,
    digests_of,
    is_waiting,
)
from stream_scorer.core.reconciliation.outcome_values import payload_digest
from stream_scorer.core.reconciliation.score_report import MAX_FINDINGS, FindingKind
from stream_scorer.core.records import Partition
from stream_scorer.errors import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.reconciliation.callback_judgement import Truncated
    from stream_scorer.core.reconciliation.decisions import DecisionReconciliation
    from stream_scorer.core.reconciliation.lost_offsets import Lost
    from stream_scorer.core.reconciliation.outcome_values import Content
    from stream_scorer.core.reconciliation.record_states import CommittedRange, RecordLocation

_OUTCOMES: Final = {"DELIVERED": "delivered", "REFUSED": "refused", "GAVE_UP": "gave_up", "EXPIRED": "expired"}
_NUMBERS: Final = ("score", "confidence_lower", "confidence_upper")


class Codecs(NamedTuple):
    """Codecs of ``ContactScore``, ``CampaignCallback`` and ``CallbackReceipt``."""

    score: Codec
    callback: Codec
    receipt: Codec


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
        self._states = CallbackStates(topic, spans, max_findings)

    # --- input

    def score(self, partition: int, offset: int, content: Content, written_ms: int) -> None:
        """Add a record of the scores topic, read as read_committed; ``written_ms``: its Kafka timestamp."""
        span = self._spans[partition]
        if offset >= span.committed:
            self._states.counts["unplanned"] += 1
        elif offset >= span.start:
            self._states.counts["scores"] += 1
            self._states.offsets[partition].append(offset)
            self._examine((partition, offset), content, written_ms)

    def _examine(self, key: tuple[int, int], content: Content, written_ms: int) -> None:
        try:
            fields = self._codecs.score.decode(content.value)
        except UndecodableError:
            fields = None
        if fields is None or not (
            fields["review_reasons"] or all(map(math.isfinite, map(fields.__getitem__, _NUMBERS)))
        ):
            self._states.unusable[key] = UnusableScore(written_ms)
        elif fields["score"] >= self._threshold and not fields["review_reasons"]:
            names = (fields["contact_id"], fields["event_id"], fields["campaign_id"])
            self._states.called[key] = CalledScore(*names, fields["score"], written_ms)
        else:
            return
        self._states.payloads[key] = payload_digest(content)

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
            self._states.counts["foreign"] += 1
            return
        planned_ms = min(written_ms, fields["planned_at"])
        call = self._call(fields, place, planned_ms, is_planned=True, decision=decision)
        if is_waiting(place, self._taken):
            call.waits.append(place)

    def receipt(self, value: bytes | None, place: RecordLocation, written_ms: int, decision: str = "") -> None:
        """Add a record of the receipts topic; the arguments are those of `callback`."""
        self._states.first_ms.setdefault(Partition(place.topic, place.partition), written_ms)
        try:
            fields = self._codecs.receipt.decode(value)
        except UndecodableError:
            self._states.counts["foreign"] += 1
            return
        outcome = _OUTCOMES[fields["outcome"]]
        number = self._states.numbers.get((fields["callback_id"], decision))
        if number is not None and self._is_part(self._states.deliveries[number], fields):
            self._part(number, fields, place, written_ms)
            return
        call = self._call(fields, place, written_ms, is_planned=False, decision=decision)
        if call.receipts and call.is_ours:
            self._once_more(call, fields, place)
        call.receipts.append((outcome, place, written_ms))

    def _once_more(self, call: Delivery, fields: Mapping[str, Any], place: RecordLocation) -> None:
        what = f"callback {call.callback_id} has one more receipt, after that at {call.receipts[0][1]}"
        self._states.add(FindingKind.DOUBLED, fields["sources"][0] if fields["sources"] else "", what, place)

    def _is_part(self, call: Delivery, fields: Mapping[str, Any]) -> bool:
        """Return whether a receipt is about some contacts of a callback only."""
        if len(fields["contact_ids"]) != len(fields["sources"]):
            return False
        if call.is_planned:
            return 0 < len(fields["sources"]) < call.size
        return bool(call.receipts) and call.names.contacts != digests_of(fields).contacts

    def _part(self, number: int, fields: Mapping[str, Any], place: RecordLocation, written_ms: int) -> None:
        """Add a receipt about some contacts of a callback."""
        call = self._states.deliveries[number]
        outcome = _OUTCOMES[fields["outcome"]]
        if call.receipts and not call.parts and call.is_planned:
            self._once_more(call, fields, place)
            return
        events = chain(fields["event_ids"], repeat(""))
        for source, *ids in zip(fields["sources"], fields["contact_ids"], events, strict=False):
            names = (*ids, fields["campaign_id"])
            key = self._place_of(source)
            was_entered = not call.is_planned and (
                source in call.sources
                if call.decision
                else key is not None and self._states.delivery_of.get(key) == number
            )
            if source in call.parts or was_entered:
                self._once_more(call, fields, place)
            elif call.decision:
                if call.is_planned and source not in call.sources:
                    what = f"is in a receipt of callback {call.callback_id}, and not in that callback"
                    self._states.add(FindingKind.WRONG_VALUE, source, what, place)
            elif not call.is_planned:
                self._enter(source, names, number, place, written_ms)
            elif key is not None and key in self._states.called:
                if self._states.delivery_of.get(key) == number:
                    self._compare(source, self._states.called[key], names, place)
                else:
                    what = f"is in a receipt of callback {call.callback_id}, and not in that callback"
                    self._states.add(FindingKind.WRONG_VALUE, source, what, place)
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
        self._states.first_ms.setdefault(Partition(place.topic, place.partition), written_ms)
        found = self._place_of(source)
        if found is None:
            self._rejected_callback(content, place, decision)
            return
        if written_ms < self._since_ms.get(found[0], 0):
            return
        if found in self._states.delivery_of and found in self._states.called:
            delivery = self._states.deliveries[self._states.delivery_of[found]]
            what = f"is in callback {delivery.callback_id}, and stands on the rejected topic"
            self._states.add(FindingKind.DOUBLED, source, what, place)
            return
        if found in self._states.called:
            # A score over the threshold that fits no callback: too large, or with an invalid contact id.
            self._states.unusable[found] = UnusableScore(self._states.called.pop(found).written_ms)
        unusable = self._states.unusable.get(found)
        if unusable is None:
            return
        unusable.times += 1
        if unusable.times > 1:
            self._states.add(FindingKind.DOUBLED, source, "stands on the rejected topic twice", place)
        if not content.truncated and payload_digest(content) != self._states.payloads[found]:
            what = "key and value on the rejected topic are not those of the score"
            self._states.add(FindingKind.WRONG_VALUE, source, what, place)

    def _rejected_callback(self, content: Content, place: RecordLocation, decision: str) -> None:
        fields = None
        callback_id = (content.key or b"").decode(errors="replace")
        if not content.truncated:
            try:
                fields = self._codecs.callback.decode(content.value)
            except UndecodableError:
                return  # a record of the callbacks topic that was no callback
            callback_id = fields["callback_id"]
        number = self._states.numbers.get((callback_id, decision))
        if number is None or not self._states.deliveries[number].is_ours:
            return
        call = self._states.deliveries[number]
        if call.rejections:
            what = f"callback {call.callback_id} stands on the rejected topic once more, after {call.rejections[0]}"
            self._states.add(FindingKind.DOUBLED, "", what, place)
        call.rejections.append(place)
        # Without its own record, a single receipt may be about some of its contacts only.
        is_known = call.is_planned or (not call.parts and fields is not None and len(fields["sources"]) == call.size)
        if fields is not None and is_known and call.names.differ(digests_of(fields)):
            what = f"callback {call.callback_id} {OTHER_CALLBACK} than at {call.seen_at}"
            self._states.add(FindingKind.WRONG_VALUE, "", what, place)

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
        judgement = CallbackJudgement(self._states, self._decided, self._gone)
        judgement.add_findings(self._lost, committed, taken)
        counts = {name: self._states.counts[name] for name in CallbackCounts.__dataclass_fields__}
        return CallbackReport(
            topic=self._topic,
            group_id=self._group_id,
            threshold=self._threshold,
            counts=CallbackCounts(**counts),
            violations=self._states.findings.counts,
            findings=self._states.findings.first,
            before=self._states.counts["before"],
            below=self._states.counts["below"],
            foreign=self._states.counts["foreign"],
            notes=(*notes, *self._decided.notes()),
            unknown_starts=self._unknown_starts,
        )

    # --- private

    def _call(
        self, fields: dict[str, Any], place: RecordLocation, planned_ms: int, *, is_planned: bool, decision: str
    ) -> Delivery:
        """Return the callback of a record; add its sources the first time, then compare them.

        It was planned at ``planned_ms`` at the latest.
        """
        names = digests_of(fields)
        number = self._states.numbers.get((fields["callback_id"], decision))
        if number is not None:
            known = self._states.deliveries[number]
            if known.names.differ(names) and (known.is_ours or any(map(self._place_of, fields["sources"]))):
                what = f"callback {known.callback_id} {OTHER_CALLBACK} than at {known.seen_at}"
                self._states.add(
                    FindingKind.WRONG_VALUE, fields["sources"][0] if fields["sources"] else "", what, place
                )
            return known
        number = self._states.numbers[fields["callback_id"], decision] = len(self._states.deliveries)
        # It is untrusted, and part of a one-line message.
        name = printable(fields["callback_id"][:64])
        call = Delivery(name, place, names, size=len(fields["sources"]), is_planned=is_planned)
        self._states.deliveries.append(call)
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
            self._states.counts["foreign"] += 1
            return
        span = self._spans[key[0]]
        self._states.deliveries[number].is_ours = True
        if key[1] < span.start or planned_ms < self._since_ms.get(key[0], 0):
            self._states.counts["before"] += 1
            return
        if key not in self._states.called and key[1] < span.committed:
            if self._was_read(key):
                self._states.counts["below"] += 1
            elif not self._compacted:
                self._states.add(
                    FindingKind.NO_INPUT, source, "is in a callback, but no reader finds this score", place
                )
            return
        other = self._states.delivery_of.setdefault(key, number)
        if other != number:
            deliveries = self._states.deliveries
            what = f"is in callback {deliveries[number].callback_id} and in {deliveries[other].callback_id}"
            self._states.add(FindingKind.DOUBLED, source, what, place)
        called = self._states.called.get(key)
        if called is not None:
            self._compare(source, called, ids, place)

    def _compare(
        self, source: str, called: CalledScore, ids: tuple[str, str, str | None], place: RecordLocation
    ) -> None:
        if called.contact_id != ids[0]:
            self._states.add(FindingKind.WRONG_CONTACT, source, "its callback names another contact", place)
        elif called.event_id != ids[1]:
            self._states.add(FindingKind.WRONG_VALUE, source, "its callback names another event", place)
        elif called.campaign_id != ids[2]:
            self._states.add(FindingKind.WRONG_VALUE, source, "its callback names another campaign", place)

    def _place_of(self, source: str) -> tuple[int, int] | None:
        """Return partition and offset of a source; None: it is not one of the topic."""
        topic, _, rest = source.rpartition("/")[0].rpartition("/")
        offset = source.rpartition("/")[2]
        if topic != self._topic or not (rest.isdecimal() and offset.isdecimal() and source.isascii()):
            return None
        return (int(rest), int(offset)) if int(rest) in self._spans else None

    def _was_read(self, key: tuple[int, int]) -> bool:
        offsets = self._states.offsets[key[0]]
        index = bisect_left(offsets, key[1])
        return index < len(offsets) and offsets[index] == key[1]
