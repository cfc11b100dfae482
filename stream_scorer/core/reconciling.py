"""The judge: every input record below the commit has exactly one output record and one audit entry, none above has any.

Instead of both, an input may wait in exactly one retry topic: there it is a record of this group that the group has not
committed.

Fed in this order: the input records, each partition in its order; the output records and the audit events, each of
their partitions in its order; the records of the retry topics; at last the offsets that are committed then. What is
committed first bounds what must be there, what is committed at the end bounds what may be there; a record between the
two may be either. Likewise a contact that waited at first may have been finished or written again since.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from stream_scorer.core.avro import UndecodableError
from stream_scorer.core.findings import MAX_FINDINGS, Finding, FindingKind, Findings, PartitionReport, Report
from stream_scorer.core.hash_chain import ChainVerifier
from stream_scorer.core.reconciling_books import (
    AUDIT,
    AUDIT_SHIFT,
    OUTPUT,
    WAITED,
    WAITS,
    Book,
    Kind,
    Lanes,
    Place,
    Span,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from stream_scorer.core.avro import Codec


__all__ = ["Kind", "Place", "Reconciliation", "Span"]

_MAX_DIGITS: Final = 18
_LATEST_MS: Final = 1 << 62


class Reconciliation:
    """See the module's text. Not to be used after `result`."""

    def __init__(
        self,
        topic: str,
        group_id: str,
        spans: Mapping[int, Span],
        audit_codec: Codec,
        *,
        truncated_audits: Collection[int] = (),
        compacted: bool = False,
        since_ms: Mapping[int, int] | None = None,
        max_findings: int = MAX_FINDINGS,
    ) -> None:
        """Begin with the commits of the first reading.

        Args:
            topic: the features topic.
            group_id: the group that scores it.
            spans: for each partition of the topic where the group stands.
            audit_codec: of ``BatchAudit``.
            truncated_audits: partitions of the audit topic whose oldest records are deleted.
            compacted: the topic is compacted, so an input record may be gone although it was scored.
            since_ms: for partitions of a topic that was created again when the group accepted it, in Unix
                milliseconds: what was written before is about the former topic, and counts as from before the start.
            max_findings: how many findings of each kind are kept; all are counted.
        """
        self._topic = topic
        self._group_id = group_id
        self._books = {number: Book(f"{topic}/{number}", spans[number]) for number in sorted(spans)}
        self._by_name = {book.name: book for book in self._books.values()}
        self._codec = audit_codec
        self._truncated = frozenset(truncated_audits)
        self._compacted = compacted
        self._since_ms = {f"{topic}/{number}": at_ms for number, at_ms in (since_ms or {}).items()}
        self._findings = Findings(max_findings)
        self._lanes = Lanes()
        self._verifiers: dict[int, ChainVerifier] = {}
        self._before = self._foreign = self._audit_events = 0

    def input(self, partition: int, offset: int) -> None:
        """A record of the features topic, as a read_committed reader finds it; before any output."""
        book = self._books[partition]
        if offset >= book.committed:
            book.counts["waiting"] += 1
        elif offset >= book.start:
            book.add(offset)

    def output(
        self,
        kind: Kind,
        source: str,
        batch_id: str,
        place: Place,
        *,
        was_deferred: bool = False,
        written_ms: int = _LATEST_MS,
    ) -> None:
        """A record of the scores, review or rejected topic.

        Args:
            kind: which of them; by its content where one topic is all of them.
            source: its header ``stream-scorer-source``.
            batch_id: its header ``stream-scorer-batch``; empty where it has none.
            place: where it stands.
            was_deferred: it has the header ``stream-scorer-deferred``, so it need not stand in input order.
            written_ms: Kafka's time of the record.
        """
        found = self._find(source, written_ms)
        if found is None:
            self._foreign += 1
            return
        book, offset = found
        if offset < book.start:
            self._before += 1
            return
        slot = book.slot(offset)
        if slot < book.known:
            book.counts[kind.name] += 1
        state = book.states[slot]
        if state & OUTPUT:
            book.counts["doubled"] += 1
            what = f"has one more output, after that at {self._place(book.places[slot])}"
            self._findings.add(Finding(FindingKind.DOUBLED, source, what, str(place)))
            return
        book.states[slot] = state | kind
        packed = book.places[slot] = self._lanes.pack(place)
        later = None if was_deferred else self._lanes.overtaken_by(packed, book, offset)
        if later is not None:
            book.counts["out_of_order"] += 1
            what = f"comes after the output of {book.source(later)}"
            self._findings.add(Finding(FindingKind.OUT_OF_ORDER, source, what, str(place)))
        self._compare(book, slot, source, batch_id, output=kind, audit=(state & AUDIT) >> AUDIT_SHIFT)

    def deferred(self, source: str, place: Place, *, still: bool, written_ms: int = _LATEST_MS) -> None:
        """A record of a retry topic that this group had not committed when the first commits were read.

        Args:
            source: its header ``stream-scorer-source``.
            place: where it stands.
            still: the group has not committed it now, after the outputs were read.
            written_ms: Kafka's time of the record.
        """
        found = self._find(source, written_ms)
        if found is None or found[1] < found[0].start:
            return
        book, offset = found
        slot = book.slot(offset)
        state = book.states[slot]
        book.states[slot] = state | (WAITED | WAITS if still else WAITED)
        if still and state & WAITS:
            what = "waits in a retry topic once more"
            self._findings.add(Finding(FindingKind.WAITING_TWICE, source, what, str(place)))
        elif still and state & (OUTPUT | AUDIT):
            what = f"waits in a retry topic, and has {_first_of(state)}"
            self._findings.add(Finding(FindingKind.WAITING_AND_FINISHED, source, what, str(place)))
        if not state & OUTPUT:
            book.places[slot] = self._lanes.pack(place)

    def foreign(self) -> None:
        """A record on an output topic that names no source."""
        self._foreign += 1

    def audit(self, value: bytes | None, place: Place, *, written_ms: int = _LATEST_MS) -> None:
        """A record of the audit topic: its entries, and its link in its chain."""
        verifier = self._verifiers.get(place.partition)
        if verifier is None:
            # One for each partition: a chain has one key, so its events stand on one partition.
            gone = place.partition in self._truncated
            verifier = self._verifiers[place.partition] = ChainVerifier(self._codec, beginnings_gone=gone)
        self._audit_events += 1
        try:
            event, broken = verifier.check(value)
        except UndecodableError as error:
            self._findings.add(Finding(FindingKind.BROKEN_CHAIN, "", str(error), str(place)))
            return
        for what in broken:
            self._findings.add(Finding(FindingKind.BROKEN_CHAIN, "", what, str(place)))
        batch_id = event["batch_id"]
        for entry in event["contacts"]:
            self._audit_entry(entry["source"], Kind[entry["outcome"]], batch_id, place, written_ms)

    def _audit_entry(self, source: str, kind: Kind, batch_id: str, place: Place, written_ms: int) -> None:
        found = self._find(source, written_ms)
        if found is None or found[1] < found[0].start:
            return
        book, offset = found
        slot = book.slot(offset)
        if slot < book.known:
            book.counts["audited"] += 1
        state = book.states[slot]
        if state & AUDIT:
            what = f"has one more audit entry, in batch {batch_id}"
            self._findings.add(Finding(FindingKind.AUDITED_TWICE, source, what, str(place)))
            return
        book.states[slot] = state | kind << AUDIT_SHIFT
        self._compare(book, slot, source, batch_id, output=state & OUTPUT, audit=kind)

    def _compare(self, book: Book, slot: int, source: str, batch_id: str, *, output: int, audit: int) -> None:
        """Compare output and audit entry when the second of them is seen; ``batch_id`` is the second's."""
        batch = hash(batch_id)
        if not (output and audit):
            book.batches[slot] = batch
            return
        if book.batches[slot] != batch:
            what = f"the output's header and the audit event name two batches, one of them is {batch_id or '(none)'}"
            where = self._place(book.places[slot])
            self._findings.add(Finding(FindingKind.WRONG_BATCH, source, what, where))
        if output != audit:
            what = f"was published as {Kind(output).name}, and audited as {Kind(audit).name}"
            where = self._place(book.places[slot])
            self._findings.add(Finding(FindingKind.WRONG_OUTCOME, source, what, where))

    def result(self, committed: Mapping[int, int], notes: tuple[str, ...] = ()) -> Report:
        """Return the report.

        Args:
            committed: for each partition what is committed now that all outputs are read.
            notes: what limits the statement.
        """
        partitions = tuple(
            self._closed(number, book, committed.get(number, book.committed)) for number, book in self._books.items()
        )
        return Report(
            topic=self._topic,
            group_id=self._group_id,
            partitions=partitions,
            counts=self._findings.counts,
            findings=self._findings.first,
            before=self._before,
            foreign=self._foreign,
            audit_events=self._audit_events,
            chains=sum(len(verifier.chain_ids) for verifier in self._verifiers.values()),
            notes=notes,
        )

    def _closed(self, number: int, book: Book, committed: int) -> PartitionReport:
        self._close_inputs(book)
        early = self._close_extra(book, committed)
        counts = book.counts
        return PartitionReport(
            partition=number,
            start=book.start,
            committed=book.committed,
            inputs=book.known,
            scored=counts["SCORED"],
            review=counts["REVIEW"],
            rejected=counts["REJECTED"],
            audited=counts["audited"],
            deferred=counts["deferred"],
            missing=counts["missing"],
            doubled=counts["doubled"],
            early=early,
            out_of_order=counts["out_of_order"],
            waiting=counts["waiting"],
        )

    def _close_inputs(self, book: Book) -> None:
        """Find the inputs that lack something; where nothing lacks, no record is looked at one by one."""
        book.seal()
        tally = Counter(book.states[: book.known])
        book.counts["deferred"] = sum(count for state, count in tally.items() if state & WAITED and not state & OUTPUT)
        missing = {state for state in tally if not state & (OUTPUT | WAITED)}
        book.counts["missing"] = sum(tally[state] for state in missing)
        self._findings.add_all(FindingKind.MISSING, book.counts["missing"], self._missing(book, missing))
        silent = {state for state in tally if state & OUTPUT and not state & AUDIT}
        self._findings.add_all(
            FindingKind.NOT_AUDITED, sum(tally[state] for state in silent), self._silent(book, silent)
        )

    def _missing(self, book: Book, states: Collection[int]) -> Iterator[Finding]:
        for slot in book.inputs_in(states):
            audit = (book.states[slot] & AUDIT) >> AUDIT_SHIFT
            what = f"has no output, and is audited as {Kind(audit).name}" if audit else "has no output, no audit entry"
            yield Finding(FindingKind.MISSING, book.source(book.offsets[slot]), what)

    def _silent(self, book: Book, states: Collection[int]) -> Iterator[Finding]:
        for slot in book.inputs_in(states):
            source, where = book.source(book.offsets[slot]), self._place(book.places[slot])
            yield Finding(FindingKind.NOT_AUDITED, source, "has an output, but no audit entry", where)

    def _close_extra(self, book: Book, committed: int) -> int:
        """Judge what names no input below the first commit; return how many output records are early."""
        early = 0
        for offset, slot in sorted(book.extra.items()):
            state = book.states[slot]
            what = f"has {_first_of(state)}, although"
            where = self._place(book.places[slot]) if state & (OUTPUT | WAITED) else ""
            if offset >= committed:
                early += bool(state & OUTPUT)
                what = f"{what} only what is below {committed} is committed"
                self._findings.add(Finding(FindingKind.EARLY, book.source(offset), what, where))
            elif offset < book.committed and not self._compacted:
                what = f"{what} no read_committed reader finds this input"
                self._findings.add(Finding(FindingKind.NO_INPUT, book.source(offset), what, where))
        return early

    def _find(self, source: str, written_ms: int) -> tuple[Book, int] | None:
        name, _, digits = source.rpartition("/")
        book = self._by_name.get(name)
        if book is None or not digits.isdecimal() or len(digits) > _MAX_DIGITS:
            return None
        if self._since_ms and written_ms < self._since_ms.get(name, 0):
            return book, -1  # a place on the former topic
        return book, int(digits)

    def _place(self, packed: int) -> str:
        return str(self._lanes.unpack(packed))


def _first_of(state: int) -> str:
    if state & OUTPUT:
        return "an output"
    return "an audit entry" if state & AUDIT else "a record in a retry topic"
