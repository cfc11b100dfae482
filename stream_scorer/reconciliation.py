"""Proves the invariant of the contract (section 1) on live topics; `stream_scorer.core.reconciling` is the judge.

Nothing is taken from the worker but the names of the contract, since it is the worker that is judged. In this order:

1. The commits. They are read as stable, so each one's transaction is decided.
2. How far the output topics go now. The records of those transactions were written before they were committed, so they
   are below these ends; once every transaction below them is decided, all of them are visible.
3. The inputs, the outputs and the audit, read_committed, to those ends.
4. The commits again. Whatever was read as output is committed by now, unless it should not have been visible.

So the workers may go on meanwhile: only records between the two readings may be either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from stream_scorer.core.avro import Codec, UndecodableError
from stream_scorer.core.reconciling import Kind, Place, Reconciliation, Span
from stream_scorer.errors import CheckFailed
from stream_scorer.kafka.reading import Extent, LogReader
from stream_scorer.kafka.topics import check_topics
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_scorer.core.findings import Report
    from stream_scorer.kafka.reading import Commit, Record
    from stream_scorer.settings import Settings

_SOURCE: Final = "stream-scorer-source"
_BATCH: Final = "stream-scorer-batch"
_REASON: Final = "stream-scorer-error-reason"


class Progress(Protocol):
    """Told how far it is."""

    def __call__(self, doing: str, done: int, total: int) -> None:
        """``done`` of about ``total`` offsets are read; ``doing`` names the topic."""


def reconcile(settings: Settings, *, progress: Progress | None = None, timeout_s: float = 60.0) -> Report:
    """Read commits, inputs, outputs and audit, and return what they come to; the report says whether it holds.

    Args:
        settings: the worker's.
        progress: told after every batch.
        timeout_s: how long anything may go without progress: a broker that is away, an open transaction.

    Raises:
        SettingsError: a setting asks for what this version cannot do.
        CheckFailed: there is nothing to judge: the group has no commits, or was set back meanwhile.
        BrokerError: Kafka cannot be reached, a topic is missing, or a transaction stays open.
    """
    settings.require_supported()
    topic, group_id = settings.topics.features, settings.kafka.group_id
    partitions = check_topics(settings, settings.topics.scoring)
    log = LogReader(settings, group_id, timeout_s=timeout_s)
    first = log.commits(topic, partitions[topic])
    if not first:
        raise CheckFailed(
            f"group {group_id} has no commits on {topic}, so there is nothing to reconcile: has `stream-scorer run`"
            " been started, and is this its kafka.group_id?"
        )
    outputs = {name: log.extents(name, partitions[name]) for name in settings.topics.scoring[1:]}
    for name, extents in outputs.items():
        log.wait_until_decided(name, extents)
    inputs = log.stable_extents(topic, partitions[topic])
    spans = {number: _span(first.get(number), extent) for number, extent in inputs.items()}
    judge = Reconciliation(
        topic,
        group_id,
        spans,
        Codec.single_object(load_schema(SchemaFile.BATCH_AUDIT)),
        truncated_audits=[number for number, extent in outputs[settings.topics.audit].items() if extent.begin > 0],
        compacted=log.is_compacted(topic),
    )
    read = {number: Extent(spans[number].start, max(spans[number].start, inputs[number].end)) for number in inputs}
    reading = _Reading(log, {topic: read, **outputs}, progress)
    for partition, offset, _ in reading.records(topic):
        judge.input(partition, offset)
    _read_outputs(settings, reading, judge)
    second = log.commits(topic, partitions[topic])
    _check_not_set_back(group_id, topic, first, second)
    committed = {number: commit.offset for number, commit in second.items()}
    return judge.result(committed, _notes(settings, first, inputs, outputs))


class _Reading:
    """Reads topic after topic and tells how far it is."""

    def __init__(self, log: LogReader, topics: Mapping[str, Mapping[int, Extent]], progress: Progress | None) -> None:
        self._log = log
        self._topics = topics
        self._progress = progress
        self._total = sum(extent.end - extent.begin for extents in topics.values() for extent in extents.values())
        self._done = 0

    def records(self, topic: str) -> Iterator[Record]:
        extents = self._topics[topic]
        before = self._done
        for batch in self._log.read(topic, extents):
            yield from batch
            self._done += len(batch)
            self._tell(topic)
        # Markers and gaps are passed as well.
        self._done = before + sum(extent.end - extent.begin for extent in extents.values())
        self._tell(topic)

    def _tell(self, topic: str) -> None:
        if self._progress is not None:
            self._progress(topic, self._done, self._total)


def _read_outputs(settings: Settings, reading: _Reading, judge: Reconciliation) -> None:
    """Read each topic once, whatever it is used for."""
    topics = settings.topics
    kinds = {Kind.SCORED: topics.scores, Kind.REVIEW: topics.review, Kind.REJECTED: topics.rejected}
    for name in topics.scoring[1:]:
        kind_of = _classifier([kind for kind, topic in kinds.items() if topic == name])
        for record in reading.records(name):
            place = Place(name, record.partition, record.offset)
            source, batch_id = _names(record)
            if source is not None and kind_of is not None:
                judge.output(kind_of(record), source, batch_id, place)
            elif name == topics.audit:
                judge.audit(record.value, place)
            else:
                judge.foreign()


def _names(record: Record) -> tuple[str | None, str]:
    """The source and the batch that a record's headers name."""
    source, batch_id = None, ""
    for name, value in record.headers:
        if name == _SOURCE and source is None:
            source = _text(value)
        elif name == _BATCH and not batch_id:
            batch_id = _text(value)
            if source is not None:
                break
    return source, batch_id


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


def _classifier(kinds: list[Kind]) -> Callable[[Record], Kind] | None:
    """What a record of a topic with these uses is; None: it has no output records."""
    if len(kinds) <= 1:
        return (lambda _: kinds[0]) if kinds else None
    codec = Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE))

    def by_content(record: Record) -> Kind:
        if any(name == _REASON for name, _ in record.headers):
            return Kind.REJECTED
        try:
            return Kind.REVIEW if codec.decode(record.value)["review_reasons"] else Kind.SCORED
        except UndecodableError:
            return Kind.SCORED  # and the audit knows better if it was none

    return by_content


def _span(commit: Commit | None, extent: Extent) -> Span:
    """What is to be judged on a partition: what its log no longer holds is not.

    A commit that does not say where its group began is not the worker's (an operator's reset); a worker that finds it
    begins there.
    """
    if commit is None:
        return Span(extent.begin, extent.begin)
    start = max(commit.offset if commit.start is None else commit.start, extent.begin)
    return Span(start, max(start, commit.offset))


def _check_not_set_back(group_id: str, topic: str, first: Mapping[int, Commit], second: Mapping[int, Commit]) -> None:
    for number, commit in first.items():
        again = second.get(number)
        if again is None or again.offset < commit.offset:
            raise CheckFailed(
                f"{topic}/{number}: group {group_id} had committed {commit.offset}, and then"
                f" {'nothing' if again is None else again.offset}: it was set back meanwhile, run this again"
            )


def _notes(
    settings: Settings,
    commits: Mapping[int, Commit],
    inputs: Mapping[int, Extent],
    outputs: Mapping[str, Mapping[int, Extent]],
) -> tuple[str, ...]:
    topic = settings.topics.features
    notes = []
    for number, commit in commits.items():
        begin = inputs[number].begin
        if commit.start is None:
            notes.append(
                f"{topic}/{number}: the commit {commit.offset} does not say where its group began, so it is not the"
                " worker's: nothing below it was checked"
            )
        elif commit.start < begin:
            notes.append(
                f"{topic}/{number}: the group began at {commit.start}, and the log holds only what is from {begin} on:"
                " nothing below that was checked"
            )
    for name, extents in outputs.items():
        for number, extent in extents.items():
            if extent.begin > 0:
                notes.append(
                    f"{name}/{number}: records below {extent.begin} are deleted; what stood there counts as missing"
                )
    return tuple(notes)
