"""Job: decides the selected records of one topic, each exactly once, however often it is killed or run again.

For each partition it opens the one producer that may decide it, which fences any other. *Then* it reads the decisions,
and *then* it decides: what another job had committed before is visible by that. Each decision stands in one transaction
with the record that it publishes. So a record is decided if and only if its decision is on the decisions topic, which
is the only state: after any failure the same steps begin again.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from stream_scorer.core.desk.decisions import Action, Decision, job_place
from stream_scorer.core.desk.selection import Selection, check_resumed, selection_of
from stream_scorer.core.desk.verdict import Decide, Skip, SkipReason
from stream_scorer.errors import BrokerUnavailable
from stream_scorer.kafka.consumer.log_reader import OffsetRange
from stream_scorer.kafka.producer.decision_writer import Decided, DecisionWriter
from stream_scorer.kafka.producer.records import OutRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_scorer.core.desk.decisions import DecidedRecords
    from stream_scorer.core.desk.verdict import Verdict
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.desk.decision_log import DecisionLog
    from stream_scorer.kafka.consumer.log_reader import LogReader

# Live readers of the published topic wait for the end of a transaction.
_MAX_RECORDS: Final = 100
_MAX_BYTES: Final = 4_000_000
_AGAIN_S: Final = 1.0
# A time below that is not waited for: it would only add the cost of waking up.
_CHECKED_S: Final = 0.1
_BURST_S: Final = 0.05


class Judge(Protocol):
    """Judge of the records of a topic."""

    action: Action

    def judge(self, record: SourceRecord, action: str | None) -> Verdict:
        """Return the verdict about a record; ``action``: what was decided about it before, None: nothing."""


class JobContext(NamedTuple):
    """Facts that every decision of a job states.

    Attributes:
        topic: the decided topic.
        topic_id: its present id; None: the brokers have none.
        job: name of the job.
        operator: who runs it.
        note: the operator's reason.
    """

    topic: str
    topic_id: str | None
    job: str
    operator: str
    note: str

    def decision(self, place: str, action: Action, changes: Mapping[str, str]) -> Decision:
        """Return a decision that is made now."""
        now_ms = time.time_ns() // 1_000_000
        return Decision(
            str(uuid.uuid4()), place, self.topic_id, action, self.job, self.operator, self.note, now_ms, changes=changes
        )


class Begun(NamedTuple):
    """Job that has begun: its fixed selection, and when it was fixed, in Unix milliseconds."""

    selection: Selection
    at_ms: int


def begin_job(
    context: JobContext,
    selection: Selection,
    *,
    decisions: DecisionLog,
    open_writer: Callable[[str], DecisionWriter],
) -> Begun:
    """Fix the selection of a job, or return the one that was fixed when it began.

    Raises:
        UsageError: a job of this name has begun with other options, or on a former topic.
        BrokerError: as `Job.run`.
    """
    place = job_place(context.topic, context.job)
    writer = open_writer(place)
    try:
        begun = decisions.read(context.topic, context.topic_id).job(context.job)
        if begun is None:
            begun = context.decision(place, Action.JOB, selection.as_changes())
            writer.commit([Decided(begun)])
            return Begun(selection, begun.decided_at_ms)
    finally:
        writer.close()
    fixed = selection_of(begun.changes)
    check_resumed(context.job, selection, fixed)
    return Begun(fixed, begun.decided_at_ms)


class JobReport(NamedTuple):
    """Result of a job: how many records were decided by this run, and how many were skipped for each reason."""

    decided: int
    skipped: Mapping[SkipReason, int]


class Job:
    """See the module docstring.

    Args:
        context: facts of all its decisions.
        judge: judges each record.
        log: reads the decided topic.
        decisions: reads the decisions.
        open_writer: opens the one writer of a partition's decisions, by the place's first parts.
        per_second: how many records are decided in a second at most.
        limit: how many records the job decides at most, earlier runs included; None: no limit.
        patience_s: how long brokers may be away before the job ends; it can be resumed.
        progress: called after each transaction with the number of records decided so far.
        checkpoint: called where the job may be interrupted; it raises what ends it. What a signal's handler raises
            within the client would be lost.
    """

    def __init__(
        self,
        context: JobContext,
        judge: Judge,
        *,
        log: LogReader,
        decisions: DecisionLog,
        open_writer: Callable[[str], DecisionWriter],
        per_second: float,
        limit: int | None,
        patience_s: float,
        progress: Callable[[int], None],
        checkpoint: Callable[[], None],
    ) -> None:
        self._context = context
        self._judge = judge
        self._log = log
        self._decisions = decisions
        self._open_writer = open_writer
        self._per_second = per_second
        self._limit = limit
        self._patience_s = patience_s
        self._progress = progress
        self._checkpoint = checkpoint
        self._decided = 0
        self._next_at = 0.0

    def run(self, selection: Selection) -> JobReport:
        """Decide the selected records.

        Raises:
            ProducerFenced: another job has taken over a partition.
            BrokerUnavailable: the brokers are away for longer than ``patience_s``.
            BrokerRefused: a right is missing, the published topic refuses a record, or the decided topic was deleted.
            NotJudged: records or decisions cannot be read.
        """
        skipped: Counter[SkipReason] = Counter()
        for number, bounds in sorted(selection.bounds.items()):
            if bounds.begin < bounds.end:
                skipped += self._decide_partition(number, OffsetRange(*bounds))
        return JobReport(self._decided, skipped)

    def _decide_partition(self, number: int, extent: OffsetRange) -> Counter[SkipReason]:
        """Decide a partition, again from its beginning after each failure of the brokers; return what was skipped."""
        doubtful: set[str] = set()
        at_first = self._decided
        give_up_at = time.monotonic() + self._patience_s
        while True:
            before = self._decided
            try:
                skipped = self._decide_once(number, extent, doubtful)
            except BrokerUnavailable:
                if self._decided > before:
                    give_up_at = time.monotonic() + self._patience_s
                if time.monotonic() > give_up_at:
                    raise
            else:
                # What an interrupted try of this run has decided is no skip.
                skipped[SkipReason.DONE_BEFORE] -= before - at_first
                return skipped
            time.sleep(_AGAIN_S)
            self._checkpoint()

    def _decide_once(self, number: int, extent: OffsetRange, doubtful: set[str]) -> Counter[SkipReason]:
        """Decide what is undecided; ``doubtful``: places of a transaction of unknown outcome, changed in place."""
        context = self._context
        writer = self._open_writer(f"{context.topic}/{number}")
        skipped: Counter[SkipReason] = Counter()
        try:
            decided = self._decisions.read(context.topic, context.topic_id)
            confirmed = sum(decided.action(place) is not None for place in doubtful)
            doubtful.clear()
            self._decided += confirmed
            skipped[SkipReason.DONE_BEFORE] -= confirmed
            left = None if self._limit is None else self._limit - decided.decided_by(context.job)
            existing = self._existing(number, extent)
            deleted = (f"{context.topic}/{number}/{offset}" for offset in range(extent.begin, existing.begin))
            skipped[SkipReason.DELETED] += sum(decided.action(place) is None for place in deleted)
            batches = self._batches(self._records(number, existing), decided, skipped)
            for batch in _limited(batches, left):
                # The places are those of the topic that had this id when the job began.
                self._log.check_identity(context.topic, context.topic_id)
                doubtful.update(one.decision.place for one in batch)
                writer.commit(batch)
                doubtful.clear()
                self._decided += len(batch)
                self._progress(self._decided)
                if writer.is_suspect:
                    raise BrokerUnavailable(f"the brokers answer late: resume the job with --job {context.job}")
                self._pace(len(batch))
        finally:
            writer.close()
        return skipped

    def _batches(
        self, records: Iterator[SourceRecord], decided: DecidedRecords, skipped: Counter[SkipReason]
    ) -> Iterator[list[Decided]]:
        """Yield the decisions of a transaction each; count what is skipped."""
        most = max(1, min(_MAX_RECORDS, int(self._per_second)))
        batch: list[Decided] = []
        size = 0
        for record in records:
            verdict = self._judge.judge(record, decided.action(record.source))
            if isinstance(verdict, Skip):
                skipped[verdict.reason] += 1
            if not isinstance(verdict, Decide):
                continue
            one = self._decide(record.source, verdict)
            batch.append(one)
            size += _size(one.output)
            if len(batch) >= most or size >= _MAX_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _decide(self, place: str, verdict: Decide) -> Decided:
        decision = self._context.decision(place, self._judge.action, verdict.changes)
        return Decided(decision, None if verdict.publish is None else OutRecord(*verdict.publish(decision)))

    def _existing(self, number: int, extent: OffsetRange) -> OffsetRange:
        """Return the offsets that retention has not deleted since the job began."""
        begin = self._log.extents(self._context.topic, number + 1)[number].begin
        return OffsetRange(min(max(extent.begin, begin), extent.end), extent.end)

    def _records(self, number: int, extent: OffsetRange) -> Iterator[SourceRecord]:
        for batch in self._log.read(self._context.topic, {number: extent}):
            self._checkpoint()
            for record in batch:
                yield record.as_source_record(self._context.topic)

    def _pace(self, records: int) -> None:
        """Wait for as long as these records take at the rate."""
        self._next_at = max(time.monotonic(), self._next_at) + records / self._per_second
        while (wait_s := self._next_at - time.monotonic() - _BURST_S) > 0:
            time.sleep(min(wait_s, _CHECKED_S))
            self._checkpoint()


def _limited(batches: Iterator[list[Decided]], limit: int | None) -> Iterator[list[Decided]]:
    """Yield batches of ``limit`` decisions in all."""
    if limit is None:
        yield from batches
        return
    left = limit
    while left > 0 and (batch := next(batches, None)) is not None:
        yield batch[:left]
        left -= len(batch)


def _size(output: OutRecord | None) -> int:
    if output is None:
        return 0
    headers = sum(len(name) + len(value or b"") for name, value in output.headers)
    return len(output.key or b"") + len(output.value or b"") + headers
