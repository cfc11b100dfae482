"""Reconciliation of scores: every input below the commit has one output record and one audit entry, none above has any.

Instead of both, an input may wait in exactly one retry topic: there it is a record of this group that the group has not
committed. Outputs must match the input and the audit entry (`core.reconciliation.outcome_values`). If an output topic
may have deleted the outcome of an input, the input is not judged (`core.reconciliation.log_gaps`).

Order of the calls: the input records; the output records and the audit events; the records of the retry topics; finally
the offsets that are committed by then. Each partition is read in its order. Inputs below the first commit must have an
outcome, those at or above the last commit must have none. Inputs between the two may have one. A contact that waited at
first may have been finished or written again since.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.core.audit.hash_chain import ChainVerifier, counts_of
from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.reconciliation import outcome_values
from stream_scorer.core.reconciliation.outcome_values import Codecs, Content
from stream_scorer.core.reconciliation.record_states import (
    AUDIT,
    AUDIT_SHIFT,
    LATE,
    OUTPUT,
    WAITED,
    WAITS,
    CommittedRange,
    Kind,
    PackedOffsets,
    PartitionState,
    RecordLocation,
)
from stream_scorer.core.reconciliation.score_report import (
    MAX_FINDINGS,
    Finding,
    FindingKind,
    Findings,
    PartitionReport,
    Report,
)
from stream_scorer.core.scoring.contact_decoder import ContactDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from stream_scorer.core.reconciliation.log_gaps import LogGaps
    from stream_scorer.core.reconciliation.lost_offsets import Lost
    from stream_scorer.core.reconciliation.outcome_values import InputDigest, OutputDigest


__all__ = ["Codecs", "CommittedRange", "Content", "Kind", "Outputs", "Reconciliation", "RecordLocation"]

_MAX_DIGITS: Final = 18
_LATEST_MS: Final = 1 << 62


class Outputs(NamedTuple):
    """The output topics of a group.

    Attributes:
        topics: the topic of each kind of output; one topic may have several kinds.
        audit: the audit topic.
        gaps: their deleted and compacted records.
    """

    topics: Mapping[Kind, str]
    audit: str
    gaps: LogGaps


class _Stated(NamedTuple):
    """The batch of an output or an audit entry, and its word of `outcome_values`."""

    batch_id: str
    word: int


class Reconciliation:
    """See the module docstring. Do not use it after `result`."""

    def __init__(
        self,
        topic: str,
        group_id: str,
        spans: Mapping[int, CommittedRange],
        codecs: Codecs,
        outputs: Outputs,
        *,
        lost: Mapping[int, Sequence[Lost]] | None = None,
        unknown_starts: Collection[int] = (),
        compacted: bool = False,
        since_ms: Mapping[int, int] | None = None,
        max_findings: int = MAX_FINDINGS,
    ) -> None:
        """Start with the commits of the first reading.

        Args:
            topic: the features topic.
            group_id: the group that scores it.
            spans: the group's committed range on each partition of the topic.
            codecs: of the values.
            outputs: the output topics of the group.
            lost: the offsets of each partition that were deleted before the group read them.
            unknown_starts: partitions whose commit has no start offset of the group.
            compacted: the topic is compacted, so an input record may be removed although it was scored.
            since_ms: for partitions of a topic that was created again, the time behind the outputs of the former, in
                Unix milliseconds: earlier outputs belong to the former topic, and count as from before the start.
            max_findings: how many findings of each kind are kept; all are counted.
        """
        self._topic = topic
        self._group_id = group_id
        self._inputs = {number: PartitionState(f"{topic}/{number}", spans[number]) for number in sorted(spans)}
        self._by_name = {inputs.name: inputs for inputs in self._inputs.values()}
        self._codecs = codecs
        self._decoder = ContactDecoder(codecs.contact)
        self._outputs = outputs
        self._gaps = outputs.gaps
        self._has_gaps = bool(outputs.gaps)
        self._lost = dict(lost or {})
        self._unknown_starts = tuple(sorted(unknown_starts))
        self._compacted = compacted
        self._since_ms = {f"{topic}/{number}": at_ms for number, at_ms in (since_ms or {}).items()}
        self._findings = Findings(max_findings)
        self._packed_offsets = PackedOffsets()
        self._verifiers: dict[int, ChainVerifier] = {}
        self._accepted: dict[str, tuple[RecordLocation, int]] = {}
        self._before = self._foreign = self._audit_events = 0

    @property
    def findings(self) -> Findings:
        """The findings so far; others may be added before `result`."""
        return self._findings

    def input(self, partition: int, offset: int, content: Content) -> None:
        """Add a record of the features topic, read as read_committed; call it before any output."""
        inputs = self._inputs[partition]
        if offset >= inputs.committed:
            inputs.counts["waiting"] += 1
        elif offset >= inputs.start:
            inputs.add(offset, outcome_values.digest_input(self._decoder, content))

    def output(
        self,
        kind: Kind,
        source: str,
        batch_id: str,
        place: RecordLocation,
        content: Content,
        *,
        was_deferred: bool = False,
        written_ms: int = _LATEST_MS,
    ) -> None:
        """Add a record of the scores, review or rejected topic.

        Args:
            kind: its topic; by its content if one topic has several kinds.
            source: its header ``stream-scorer-source``.
            batch_id: its header ``stream-scorer-batch``; empty if it has none.
            place: its location.
            content: its key and value.
            was_deferred: it has the header ``stream-scorer-deferred``, so it need not be in input order.
            written_ms: its Kafka timestamp.
        """
        if self._has_gaps and self._gaps.is_compacted(place.topic):
            self._gaps.observe_key(place.topic, outcome_values.key_digest(content.key))
        found = self._find(source, written_ms)
        if found is None:
            self._foreign += 1
            return
        inputs, offset = found
        if offset < inputs.start:
            self._before += 1
            return
        slot = inputs.index_of(offset)
        if slot < inputs.known:
            inputs.counts[kind.name] += 1
        state = inputs.states[slot]
        if state & OUTPUT:
            inputs.counts["doubled"] += 1
            what = f"has one more output, after that at {self._place(inputs.places[slot])}"
            self._findings.add(Finding(FindingKind.DOUBLED, source, what, str(place)))
            return
        inputs.states[slot] = state | kind | (LATE if was_deferred else 0)
        packed = inputs.places[slot] = self._packed_offsets.pack(place)
        if not was_deferred:
            if self._has_gaps:
                self._gaps.observe(place, inputs.name, offset)
            later = self._packed_offsets.overtaken_by(packed, inputs, offset)
            if later is not None:
                inputs.counts["out_of_order"] += 1
                what = f"comes after the output of {inputs.source(later)}"
                self._findings.add(Finding(FindingKind.OUT_OF_ORDER, source, what, str(place)))
        digest = self._digest(kind, content, inputs.digest(slot))
        self._add_differences(digest, source, place)
        stated = _Stated(batch_id, digest.word)
        self._compare(inputs, slot, source, stated, output=kind, audit=(state & AUDIT) >> AUDIT_SHIFT)

    def accepted(self, source: str, place: RecordLocation, content: Content, *, written_ms: int = _LATEST_MS) -> None:
        """Add a record of the scores topic that a decision has published: a score that was in review.

        Args:
            source: its header ``stream-scorer-source``.
            place: its location.
            content: its key and value.
            written_ms: its Kafka timestamp.
        """
        found = self._find(source, written_ms)
        if found is None:
            self._foreign += 1
            return
        inputs, offset = found
        if offset < inputs.start:
            self._before += 1
            return
        if source in self._accepted:
            what = f"was accepted once more, after {self._accepted[source][0]}"
            self._findings.add(Finding(FindingKind.DOUBLED, source, what, str(place)))
            return
        known = inputs.digest(inputs.index_of(offset))
        digest = outcome_values.digest_score(self._codecs.score, content, known, is_review=None)
        self._add_differences(digest, source, place)
        self._accepted[source] = place, digest.word

    def replayable(self, source: str, content: Content, *, written_ms: int = _LATEST_MS) -> int | None:
        """Return the digest of key and value with which a rejected contact is replayed; None: it is not known.

        They are the rejection's own, or those of its input if the value did not fit into the rejection.
        """
        if not content.truncated:
            return outcome_values.payload_digest(content)
        found = self._find(source, written_ms)
        if found is None or found[1] < found[0].start:
            return None
        known = found[0].digest(found[0].index_of(found[1]))
        return None if known is None else known.payload

    def _close_accepted(self) -> None:
        """Compare each accepted score with the outcome of its input, which must be in review."""
        for source, (place, word) in self._accepted.items():
            found = self._find(source, _LATEST_MS)
            if found is None:
                continue
            inputs, offset = found
            slot = inputs.index_of(offset)
            output = inputs.states[slot] & OUTPUT
            if output and output != Kind.REVIEW:
                what = f"was accepted, although its outcome is {Kind(output).name}"
                self._findings.add(Finding(FindingKind.WRONG_OUTCOME, source, what, str(place)))
            elif output and outcome_values.is_other_score(inputs.values[slot], word):
                what = "score or bounds: accepted score and review are not the same"
                self._findings.add(Finding(FindingKind.WRONG_VALUE, source, what, str(place)))

    def _digest(self, kind: Kind, content: Content, known: InputDigest | None) -> OutputDigest:
        if kind is Kind.REJECTED:
            return outcome_values.digest_rejection(content, known)
        return outcome_values.digest_score(self._codecs.score, content, known, is_review=kind is Kind.REVIEW)

    def _add_differences(self, digest: OutputDigest, source: str, place: RecordLocation) -> None:
        if digest.unreadable:
            self._findings.add(Finding(FindingKind.UNREADABLE_VALUE, source, digest.unreadable, str(place)))
        for what in digest.wrong:
            self._findings.add(Finding(FindingKind.WRONG_VALUE, source, what, str(place)))

    def deferred(
        self, source: str, place: RecordLocation, content: Content, *, still: bool, written_ms: int = _LATEST_MS
    ) -> None:
        """Add a record of a retry topic that this group had not committed when the first commits were read.

        Args:
            source: its header ``stream-scorer-source``.
            place: its location.
            content: its key and value.
            still: the group has not committed it now, after the outputs were read.
            written_ms: its Kafka timestamp.
        """
        found = self._find(source, written_ms)
        if found is None or found[1] < found[0].start:
            return
        inputs, offset = found
        slot = inputs.index_of(offset)
        state = inputs.states[slot]
        inputs.states[slot] = state | (WAITED | WAITS if still else WAITED)
        if still and state & WAITS:
            what = "waits in a retry topic once more"
            self._findings.add(Finding(FindingKind.WAITING_TWICE, source, what, str(place)))
        elif still and state & (OUTPUT | AUDIT):
            what = f"waits in a retry topic, and has {_first_of(state)}"
            self._findings.add(Finding(FindingKind.WAITING_AND_FINISHED, source, what, str(place)))
        if not state & OUTPUT:
            inputs.places[slot] = self._packed_offsets.pack(place)
        known = inputs.digest(slot)
        if known is not None and outcome_values.is_other_payload(content, known):
            what = "key and value in a retry topic are not those of the input"
            self._findings.add(Finding(FindingKind.WRONG_VALUE, source, what, str(place)))

    def foreign(self) -> None:
        """Count a record on an output topic without a source."""
        self._foreign += 1

    def audit(self, value: bytes | None, place: RecordLocation, *, written_ms: int = _LATEST_MS) -> None:
        """Add a record of the audit topic: check its entries, and its link in its chain."""
        verifier = self._verifiers.get(place.partition)
        if verifier is None:
            # One per partition: a chain has one key, so its events are on one partition.
            verifier = self._verifiers[place.partition] = ChainVerifier(
                self._codecs.audit,
                beginnings_gone=self._gaps.is_truncated(place),
                links_gone=self._gaps.is_compacted(place.topic),
            )
        self._audit_events += 1
        try:
            event, broken = verifier.check(value)
        except UndecodableError as error:
            self._findings.add(Finding(FindingKind.BROKEN_CHAIN, "", str(error), str(place)))
            return
        for what in broken:
            self._findings.add(Finding(FindingKind.BROKEN_CHAIN, "", what, str(place)))
        counts = counts_of(event["contacts"])
        if event["counts"] != counts:
            names = ", ".join(name for name, count in counts.items() if event["counts"][name] != count)
            what = f"batch {event['batch_id']}: the counts are not those of the event's entries: {names}"
            self._findings.add(Finding(FindingKind.WRONG_COUNTS, "", what, str(place)))
        for entry in event["contacts"]:
            self._audit_entry(event, entry, place, written_ms)

    def _audit_entry(
        self, event: Mapping[str, Any], entry: Mapping[str, Any], place: RecordLocation, written_ms: int
    ) -> None:
        source, kind, batch_id = entry["source"], Kind[entry["outcome"]], event["batch_id"]
        found = self._find(source, written_ms)
        if found is None or found[1] < found[0].start:
            return
        inputs, offset = found
        slot = inputs.index_of(offset)
        if slot < inputs.known:
            inputs.counts["audited"] += 1
        state = inputs.states[slot]
        if state & AUDIT:
            what = f"has one more audit entry, in batch {batch_id}"
            self._findings.add(Finding(FindingKind.AUDITED_TWICE, source, what, str(place)))
            return
        inputs.states[slot] = state | kind << AUDIT_SHIFT
        if self._has_gaps and state & OUTPUT and not state & LATE:
            self._gaps.observe(place, inputs.name, offset)
        known = inputs.digest(slot)
        if known is not None and outcome_values.is_other_contact(entry, known):
            what = "its audit entry names another contact than the input"
            self._findings.add(Finding(FindingKind.WRONG_CONTACT, source, what, str(place)))
        stated = _Stated(batch_id, outcome_values.digest_entry(event, entry))
        self._compare(inputs, slot, source, stated, output=state & OUTPUT, audit=kind)

    def _compare(
        self, inputs: PartitionState, slot: int, source: str, stated: _Stated, *, output: int, audit: int
    ) -> None:
        """Compare output and audit entry when the second of them is read; ``stated``: that one's."""
        batch_id, word = stated
        batch = hash(batch_id)
        if not (output and audit):
            inputs.batches[slot] = batch
            inputs.values[slot] = word
            return
        if inputs.batches[slot] != batch:
            what = f"the output's header and the audit event name two batches, one of them is {batch_id or '(none)'}"
            where = self._place(inputs.places[slot])
            self._findings.add(Finding(FindingKind.WRONG_BATCH, source, what, where))
        if output != audit:
            what = f"was published as {Kind(output).name}, and audited as {Kind(audit).name}"
            where = self._place(inputs.places[slot])
            self._findings.add(Finding(FindingKind.WRONG_OUTCOME, source, what, where))
        elif different := outcome_values.differences(inputs.values[slot], word, rejected=output == Kind.REJECTED):
            what = f"{different}: output and audit entry are not the same"
            self._findings.add(Finding(FindingKind.WRONG_VALUE, source, what, self._place(inputs.places[slot])))

    def result(self, committed: Mapping[int, int], notes: tuple[str, ...] = ()) -> Report:
        """Return the report.

        Args:
            committed: the committed offset of each partition after all outputs were read.
            notes: the limits of the report.
        """
        self._close_accepted()
        partitions = tuple(
            self._closed(number, inputs, committed.get(number, inputs.committed))
            for number, inputs in self._inputs.items()
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
            unknown_starts=self._unknown_starts,
        )

    def _closed(self, number: int, inputs: PartitionState, committed: int) -> PartitionReport:
        self._close_lost(number, inputs)
        self._close_inputs(inputs)
        early = self._close_extra(inputs, committed)
        counts = inputs.counts
        return PartitionReport(
            partition=number,
            start=inputs.start,
            committed=inputs.committed,
            inputs=inputs.known,
            scored=counts["SCORED"],
            review=counts["REVIEW"],
            rejected=counts["REJECTED"],
            audited=counts["audited"],
            deferred=counts["deferred"],
            missing=counts["missing"],
            not_judged=counts["not_judged"],
            audit_not_judged=counts["audit_not_judged"],
            lost=counts["lost"],
            doubled=counts["doubled"],
            early=early,
            out_of_order=counts["out_of_order"],
            waiting=counts["waiting"],
        )

    def _close_lost(self, number: int, inputs: PartitionState) -> None:
        for lost in self._lost.get(number, ()):
            amount = lost.end - lost.begin
            inputs.counts["lost"] += amount
            what = (
                f"and what followed it below {lost.end} was deleted before the group had read it: {amount:,} offsets,"
                " contacts among them have no outcome"
            )
            self._findings.add(Finding(FindingKind.LOST, inputs.source(lost.begin), what))

    def _close_inputs(self, inputs: PartitionState) -> None:
        """Find the inputs without output or audit entry; single records are only examined if there are any."""
        inputs.finish()
        tally = Counter(inputs.states[: inputs.known])
        inputs.counts["deferred"] = sum(
            count for state, count in tally.items() if state & WAITED and not state & OUTPUT
        )
        missing = {state for state in tally if not state & (OUTPUT | WAITED)}
        inputs.counts["missing"], inputs.counts["not_judged"] = self._close(
            FindingKind.MISSING, inputs, missing, self._may_have_had_an_output, self._missing
        )
        silent = {state for state in tally if state & OUTPUT and not state & AUDIT}
        _, inputs.counts["audit_not_judged"] = self._close(
            FindingKind.NOT_AUDITED, inputs, silent, self._may_have_been_audited, self._silent
        )

    def _close(
        self,
        kind: FindingKind,
        inputs: PartitionState,
        states: Collection[int],
        may_be_gone: Callable[[PartitionState, int], bool],
        finding: Callable[[PartitionState, int], Finding],
    ) -> tuple[int, int]:
        """Add a finding for each input in these states; return their number, and how many could not be judged."""
        found = not_judged = 0
        if self._has_gaps:
            for slot in inputs.inputs_in(states):
                if may_be_gone(inputs, slot):
                    not_judged += 1
                else:
                    found += 1
        else:
            found = sum(inputs.states.count(state, 0, inputs.known) for state in states)
        slots = (slot for slot in inputs.inputs_in(states) if not (self._has_gaps and may_be_gone(inputs, slot)))
        self._findings.add_all(kind, found, (finding(inputs, slot) for slot in slots))
        return found, not_judged

    def _may_have_had_an_output(self, inputs: PartitionState, slot: int) -> bool:
        """Return whether the output of an input may be deleted.

        Output and audit entry are written in one transaction. So if both are absent, both must be possibly deleted.
        """
        audit = (inputs.states[slot] & AUDIT) >> AUDIT_SHIFT
        if not audit and not self._may_have_been_audited(inputs, slot):
            return False
        topics = self._outputs.topics
        among = {topics[Kind(audit)]} if audit else set(topics.values())
        # The keys of rejected records are not kept.
        rejected = audit in (0, Kind.REJECTED) and self._gaps.is_compacted(topics[Kind.REJECTED])
        return rejected or self._may_be_gone(inputs, slot, among)

    def _may_have_been_audited(self, inputs: PartitionState, slot: int) -> bool:
        audit = self._outputs.audit
        return self._gaps.is_compacted(audit) or self._may_be_gone(inputs, slot, {audit})

    def _may_be_gone(self, inputs: PartitionState, slot: int, topics: Collection[str]) -> bool:
        if inputs.offsets[slot] < self._gaps.limit(topics, inputs.name):
            return True
        return self._gaps.may_be_compacted(topics, inputs.contacts[slot])

    def _missing(self, inputs: PartitionState, slot: int) -> Finding:
        audit = (inputs.states[slot] & AUDIT) >> AUDIT_SHIFT
        what = f"has no output, and is audited as {Kind(audit).name}" if audit else "has no output, no audit entry"
        return Finding(FindingKind.MISSING, inputs.source(inputs.offsets[slot]), what)

    def _silent(self, inputs: PartitionState, slot: int) -> Finding:
        source, where = inputs.source(inputs.offsets[slot]), self._place(inputs.places[slot])
        return Finding(FindingKind.NOT_AUDITED, source, "has an output, but no audit entry", where)

    def _close_extra(self, inputs: PartitionState, committed: int) -> int:
        """Check the sources that are no input below the first commit; return the number of early output records."""
        early = 0
        for offset, slot in sorted(inputs.extra.items()):
            state = inputs.states[slot]
            what = f"has {_first_of(state)}, although"
            where = self._place(inputs.places[slot]) if state & (OUTPUT | WAITED) else ""
            if offset >= committed:
                early += bool(state & OUTPUT)
                what = f"{what} only what is below {committed} is committed"
                self._findings.add(Finding(FindingKind.EARLY, inputs.source(offset), what, where))
            elif offset < inputs.committed and not self._compacted:
                what = f"{what} no read_committed reader finds this input"
                self._findings.add(Finding(FindingKind.NO_INPUT, inputs.source(offset), what, where))
        return early

    def _find(self, source: str, written_ms: int) -> tuple[PartitionState, int] | None:
        name, _, digits = source.rpartition("/")
        inputs = self._by_name.get(name)
        if inputs is None or not digits.isdecimal() or len(digits) > _MAX_DIGITS:
            return None
        if self._since_ms and written_ms < self._since_ms.get(name, 0):
            return inputs, -1  # a position on the former topic
        return inputs, int(digits)

    def _place(self, packed: int) -> str:
        return str(self._packed_offsets.unpack(packed))


def _first_of(state: int) -> str:
    if state & OUTPUT:
        return "an output"
    return "an audit entry" if state & AUDIT else "a record in a retry topic"
