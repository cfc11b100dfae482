"""The judge of the campaign side: every score at or over the threshold has exactly one final receipt, or waits.

Fed in this order: the scores; the callbacks of the callbacks topic and its retry tiers; the receipts and the rejected
records; at last the offsets that planner and deliverer have committed then. A callback waits where the deliverer has
not committed its record. What was committed before everything was read bounds what must be there, what is committed at
the end bounds what may be there; a record between the two may be either.

A score without a callback is not judged where its receipt may be deleted, or where the threshold may have been higher
when it was planned: no lower score of its partition before it was called. A threshold that was raised and lowered again
shows by neither, so the scores in between are missing.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.reconciliation.callback_report import CallbackCounts, CallbackReport
from stream_scorer.core.reconciliation.score_report import MAX_FINDINGS, Finding, FindingKind, Findings
from stream_scorer.core.records import Partition

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.reconciliation.lost_offsets import Lost
    from stream_scorer.core.reconciliation.record_states import CommittedRange, RecordLocation

_OUTCOMES: Final = {"DELIVERED": "delivered", "REFUSED": "refused", "GAVE_UP": "gave_up", "EXPIRED": "expired"}


class Codecs(NamedTuple):
    """Of ``ContactScore``, ``CampaignCallback`` and ``CallbackReceipt``."""

    score: Codec
    callback: Codec
    receipt: Codec


class Truncated(NamedTuple):
    """What the output topics no longer hold.

    Attributes:
        receipts: partitions of the receipts topic whose first records are deleted.
        rejections: whether a record of the rejected callbacks topic may be deleted, or removed by compaction.
    """

    receipts: frozenset[Partition] = frozenset()
    rejections: bool = False


class _Called(NamedTuple):
    """A score that calls, as far as it is compared with its callback; ``written_ms``: Kafka's time of its record."""

    contact_id: str
    event_id: str
    score: float
    written_ms: int


@dataclass(slots=True)
class _Call:
    """One callback: where its records and its receipts stand.

    Attributes:
        names: digests of the sources with their contacts, and of their events, in the record that was seen first; 0:
            the record has no events.
        waits: where the deliverer had not committed it.
    """

    callback_id: str
    seen_at: RecordLocation
    names: tuple[int, int]
    is_ours: bool = False
    waits: list[RecordLocation] = field(default_factory=list)
    receipts: list[tuple[str, RecordLocation]] = field(default_factory=list)


class CallbackReconciliation:
    """See the module's text. Not to be used after `result`.

    Args:
        topic: the scores topic.
        group_id: the group that plans callbacks.
        spans: for each partition of the scores topic where that group stands.
        taken: for each partition of the callbacks topic and the retry tiers, what the deliverer had committed before
            anything was read; a partition without a commit is left out.
        threshold: scores from here on call.
        codecs: of the records.
        gone: what the output topics no longer hold.
        lost: for each partition that has any, the offsets that were deleted before the group had read them.
        unknown_starts: partitions whose commit does not give where the group began.
        max_findings: how many findings of each kind are kept; all are counted.
    """

    def __init__(
        self,
        topic: str,
        group_id: str,
        spans: Mapping[int, CommittedRange],
        taken: Mapping[Partition, int],
        *,
        threshold: float,
        codecs: Codecs,
        gone: Truncated,
        lost: Mapping[int, Sequence[Lost]] | None = None,
        unknown_starts: Collection[int] = (),
        max_findings: int = MAX_FINDINGS,
    ) -> None:
        self._topic = topic
        self._group_id = group_id
        self._spans = spans
        self._taken = taken
        self._threshold = threshold
        self._codecs = codecs
        self._gone = gone
        self._lost = dict(lost or {})
        self._unknown_starts = tuple(sorted(unknown_starts))
        # By truncated partition of the receipts topic, Kafka's time of the first receipt that is left.
        self._first_ms: dict[Partition, int] = {}
        self._findings = Findings(max_findings)
        self._counts: Counter[str] = Counter()
        # Of every score that was read, in order.
        self._offsets = {partition: array("q") for partition in spans}
        # By partition and offset of a score that calls: its content, and then the callback that it is in.
        self._called: dict[tuple[int, int], _Called] = {}
        self._call_of: dict[tuple[int, int], int] = {}
        self._unusable: dict[tuple[int, int], int] = {}
        self._calls: list[_Call] = []
        self._numbers: dict[str, int] = {}

    # --- what was read

    def score(self, partition: int, offset: int, value: bytes | None, written_ms: int) -> None:
        """A record of the scores topic, as a read_committed reader finds it; ``written_ms``: Kafka's time of it."""
        span = self._spans[partition]
        if offset >= span.committed:
            self._counts["unplanned"] += 1
        elif offset >= span.start:
            self._counts["scores"] += 1
            self._offsets[partition].append(offset)
            try:
                fields = self._codecs.score.decode(value)
            except UndecodableError:
                self._unusable[partition, offset] = 0
                return
            if fields["score"] >= self._threshold and not fields["review_reasons"]:
                self._called[partition, offset] = _Called(
                    fields["contact_id"], fields["event_id"], fields["score"], written_ms
                )

    def callback(self, value: bytes | None, place: RecordLocation) -> None:
        """A record of the callbacks topic or of a retry tier."""
        try:
            fields = self._codecs.callback.decode(value)
        except UndecodableError:
            self._counts["foreign"] += 1
            return
        call = self._call(fields, place)
        if _waits(place, self._taken):
            call.waits.append(place)

    def receipt(self, value: bytes | None, place: RecordLocation, written_ms: int) -> None:
        """A record of the receipts topic; ``written_ms``: Kafka's time of it."""
        partition = Partition(place.topic, place.partition)
        if partition in self._gone.receipts:
            self._first_ms.setdefault(partition, written_ms)
        try:
            fields = self._codecs.receipt.decode(value)
        except UndecodableError:
            self._counts["foreign"] += 1
            return
        call = self._call(fields, place)
        if call.receipts and call.is_ours:
            what = f"callback {call.callback_id} has one more receipt, after that at {call.receipts[0][1]}"
            self._add(FindingKind.DOUBLED, fields["sources"][0] if fields["sources"] else "", what, place)
        call.receipts.append((_OUTCOMES[fields["outcome"]], place))

    def rejected(self, source: str, place: RecordLocation) -> None:
        """A record of the rejected callbacks topic, by its header ``stream-scorer-source``."""
        found = self._place_of(source)
        if found in self._called and found not in self._call_of:
            # A score that calls, and cannot stand in a callback: too large for one, or its contact id is none.
            del self._called[found]
            self._unusable[found] = 0
        if found in self._unusable:
            self._unusable[found] += 1
            if self._unusable[found] > 1:
                self._add(FindingKind.DOUBLED, source, "stands on the rejected topic twice", place)

    # --- what it comes to

    def result(
        self, committed: Mapping[int, int], taken: Mapping[Partition, int], notes: Sequence[str] = ()
    ) -> CallbackReport:
        """Judge.

        Args:
            committed: the planner's committed offsets on the scores topic now.
            taken: the deliverer's, as at the beginning, now.
            notes: what limits the statement.
        """
        self._judge_lost()
        self._judge_calls(taken)
        self._judge_scores(committed)
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
            notes=tuple(notes),
            unknown_starts=self._unknown_starts,
        )

    def _judge_lost(self) -> None:
        for partition, gaps in self._lost.items():
            for lost in gaps:
                what = f"and what followed it below {lost.end} was deleted before the group had read it"
                self._findings.add(Finding(FindingKind.LOST, self._source((partition, lost.begin)), what))

    def _judge_calls(self, taken: Mapping[Partition, int]) -> None:
        """A callback that has ended must not wait as well, nor wait twice."""
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
        lowest: dict[int, float] = {}  # of the scores of a partition that were called so far
        for key, called in self._called.items():
            number = self._call_of.get(key)
            if number is None:
                self._judge_uncalled(key, called, lowest.get(key[0]))
                continue
            lowest[key[0]] = min(called.score, lowest.get(key[0], called.score))
            judged.add(number)
            call = self._calls[number]
            if call.receipts:
                self._counts[call.receipts[0][0]] += 1
            elif call.waits:
                self._counts["waiting"] += 1
            elif self._receipt_may_be_gone(called):
                self._counts["receipt_not_judged"] += 1
            else:
                self._miss(key, f"its callback {call.callback_id} was taken, but has no receipt and waits nowhere")
        self._counts["callbacks"] = len(judged)
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

    def _judge_unusable(self) -> None:
        for key, times in self._unusable.items():
            self._counts["unusable"] += times > 0
            if times:
                continue
            if self._gone.rejections:
                self._counts["rejection_not_judged"] += 1
            else:
                self._miss(key, "is no score, and does not stand on the rejected topic")

    def _receipt_may_be_gone(self, called: _Called) -> bool:
        """Whether the receipt of a score may be deleted: it was written after the score, and is no longer read."""
        limits = (self._first_ms.get(partition) for partition in self._gone.receipts)
        return any(limit is None or called.written_ms <= limit for limit in limits)

    # --- private

    def _call(self, fields: dict[str, Any], place: RecordLocation) -> _Call:
        """The callback of a record; its sources are entered when it is seen for the first time, then compared."""
        names = _digests(fields)
        number = self._numbers.get(fields["callback_id"])
        if number is not None:
            known = self._calls[number]
            # A record of an older writer has no events.
            differ = known.names[0] != names[0] or (all((known.names[1], names[1])) and known.names[1] != names[1])
            if differ and (known.is_ours or any(map(self._place_of, fields["sources"]))):
                what = f"callback {known.callback_id} names other sources, contacts or events than at {known.seen_at}"
                self._add(FindingKind.WRONG_VALUE, fields["sources"][0] if fields["sources"] else "", what, place)
            return known
        number = self._numbers[fields["callback_id"]] = len(self._calls)
        # Anyone may have written it, and it is shown in a line.
        shown = "".join(sign if sign.isprintable() else "?" for sign in fields["callback_id"][:64])
        call = _Call(shown, place, names)
        self._calls.append(call)
        pairs = zip(fields["contact_ids"], chain(fields["event_ids"], repeat("")), strict=False)
        for source, ids in zip(fields["sources"], pairs, strict=False):
            self._enter(source, ids, number, place)
        return call

    def _enter(self, source: str, ids: tuple[str, str], number: int, place: RecordLocation) -> None:
        key = self._place_of(source)
        if key is None:
            self._counts["foreign"] += 1
            return
        span = self._spans[key[0]]
        self._calls[number].is_ours = True
        if key[1] < span.start:
            self._counts["before"] += 1
            return
        if key not in self._called and key[1] < span.committed:
            if self._was_read(key):
                self._counts["below"] += 1
            else:
                self._add(FindingKind.NO_INPUT, source, "is in a callback, but no reader finds this score", place)
            return
        other = self._call_of.setdefault(key, number)
        if other != number:
            what = f"is in callback {self._calls[number].callback_id} and in {self._calls[other].callback_id}"
            self._add(FindingKind.DOUBLED, source, what, place)
        called = self._called.get(key)
        if called is not None and called.contact_id != ids[0]:
            self._add(FindingKind.WRONG_CONTACT, source, "its callback names another contact", place)
        elif called is not None and called.event_id != ids[1]:
            self._add(FindingKind.WRONG_VALUE, source, "its callback names another event", place)

    def _place_of(self, source: str) -> tuple[int, int] | None:
        """Partition and offset of a source, if it is one of the topic."""
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


def _digests(fields: Mapping[str, Any]) -> tuple[int, int]:
    """Return the digests of a record's sources with their contacts, and of its events; 0: it has none."""
    events = tuple(fields["event_ids"])
    return hash((tuple(fields["sources"]), tuple(fields["contact_ids"]))), hash(events) if events else 0


def _waits(place: RecordLocation, taken: Mapping[Partition, int]) -> bool:
    """Whether the deliverer had not committed the record when ``taken`` was read."""
    return place.offset >= taken.get(Partition(place.topic, place.partition), 0)
