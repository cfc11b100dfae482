"""Reconciliation of scores: reads live topics for `core.reconciliation.scores`, which checks the contract's section 1.

It uses nothing of the worker's code except the names of the contract, because it checks the worker. In this order:

1. The offsets of the features topic: if its log begins above a commit that is read later, records were never read. Then
   the commits, on the features topic first and then on the retry topics. They are read as stable, so each one's
   transaction is decided.
2. The ends of the output and retry topics. The records of those transactions were written before their commits, so they
   are below these ends. Once every transaction below them is decided, all of them are visible.
3. The inputs, the outputs and the audit, read_committed, up to those ends. Then the commits on the retry topics again,
   and the records that were not committed at first: a contact finished in the meantime is committed by now.
4. The commits on the features topic again. Every output that was read is committed by now, unless it should not have
   been visible.

So the workers may run in the meantime: only records between the two readings may be in either state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.decisions import DECISION_HEADER, Action
from stream_scorer.core.reconciliation.decisions import PublishedRecord
from stream_scorer.core.reconciliation.scores import Codecs, Content, Kind, Outputs, Reconciliation, RecordLocation
from stream_scorer.core.records import Partition
from stream_scorer.core.retry_topics import DEFERRED_HEADER, GROUP_HEADER, SOURCE_HEADER
from stream_scorer.errors import NothingToCheck
from stream_scorer.kafka.admin.acls import reconciling_rights
from stream_scorer.kafka.admin.topics import check_topics, existing_topics
from stream_scorer.kafka.consumer.log_reader import LogReader, OffsetRange
from stream_scorer.kafka.registry.serde import make_blocking_serde
from stream_scorer.reconciliation.decisions import DecisionReading, replayed_record
from stream_scorer.reconciliation.group_input import GroupInput, ReconciledGroup
from stream_scorer.reconciliation.topic_reader import Queues, Reading, RegistryCheck, gap_notes, gaps_of
from stream_scorer.schema_files import SchemaFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.core.reconciliation.decisions import DecisionReconciliation
    from stream_scorer.core.reconciliation.log_gaps import LogGaps
    from stream_scorer.core.reconciliation.record_states import CommittedRange
    from stream_scorer.core.reconciliation.score_report import Report
    from stream_scorer.kafka.consumer.log_reader import Record
    from stream_scorer.kafka.registry.serde import Serde
    from stream_scorer.reconciliation.topic_reader import Progress
    from stream_scorer.settings import Settings

_BATCH: Final = "stream-scorer-batch"
_REASON: Final = "stream-scorer-error-reason"
_TRUNCATED: Final = "stream-scorer-error-truncated"
# The worker's own limit.
_MAX_RECORD_BYTES: Final = 4 * 1024 * 1024


def reconcile(settings: Settings, *, progress: Progress | None = None, timeout_s: float = 60.0) -> Report:
    """Read commits, inputs, outputs and audit, and return the report on them.

    Args:
        settings: those of the worker.
        progress: called after every batch.
        timeout_s: longest time without progress: a broker that is down, an open transaction.

    Raises:
        SettingsError: ``schema_registry.properties`` cannot work, or the topics need a registry and none is set.
        RegistryError: an audit event's schema cannot be fetched.
        NothingToCheck: the group has no commits.
        CheckFailed: the features topic was created again.
        NotJudged: the group's offsets were reset to earlier ones in the meantime.
        BrokerError: Kafka cannot be reached, a topic is missing, or a transaction stays open.
    """
    framing = make_blocking_serde(settings)
    topic, group_id = settings.topics.features, settings.kafka.group_id
    partitions = check_topics(settings, settings.topics.scoring, rights=reconciling_rights(settings))
    retries = check_topics(settings, existing_topics(settings, settings.topics.contact_retries()))
    log = LogReader(settings, group_id, timeout_s=timeout_s)
    group_input = GroupInput(log, group_id, topic, partitions[topic])
    if not group_input.has_commits:
        raise NothingToCheck(
            f"group {group_id} has no commits on {topic}, so there is nothing to reconcile: has `stream-scorer run`"
            " been started, and is this its kafka.group_id? With a topic that is deleted, Kafka drops its commits"
        )
    group_input.check_identity()
    queues = Queues(log, group_id, retries)
    taken = queues.taken()
    group = ReconciledGroup(settings, log, framing, group_input)
    ends = _read_ends(group, partitions, retries)
    waiting = {name: _from(taken, name, extents) for name, extents in ends.retries.items()}
    inputs = group_input.readable(ends.checked)
    judges = _judges(group, ends, inputs)
    reading = Reading(log, {topic: inputs, **ends.outputs, **waiting, **ends.decisions.extents}, progress)
    _read_inputs(settings, reading, judges)
    _read_outputs(settings, reading, judges, framing)
    _read_retries(reading, judges.scores, group_id, queues)
    ends.decisions.read(reading, judges.decisions)
    judges.decisions.close(judges.scores.findings)
    committed = group_input.committed_now()
    gone = (*gap_notes(ends.outputs, ends.gaps), *_deleted_retries(taken, ends.retries))
    report = judges.scores.result(committed, (*group_input.notes(), *gone, *judges.decisions.notes()))
    judges.registry.check(report)
    return report


class _Ends(NamedTuple):
    """The ends of all topics, in the order in which they were read.

    Attributes:
        outputs: the offsets of the output topics and the audit topic.
        retries: the offsets of the retry topics.
        checked: the group's committed range on each partition of the features topic.
        decisions: the decisions topic with its ends.
        gaps: the deleted and compacted records of ``outputs``.
    """

    outputs: Mapping[str, Mapping[int, OffsetRange]]
    retries: Mapping[str, Mapping[int, OffsetRange]]
    checked: Mapping[int, CommittedRange]
    decisions: DecisionReading
    gaps: LogGaps


def _read_ends(group: ReconciledGroup, partitions: Mapping[str, int], retries: Mapping[str, int]) -> _Ends:
    """Read the ends of all topics, once the transactions below them have ended; the numbers are those of partitions."""
    settings, log = group.settings, group.log
    outputs = {name: log.extents(name, partitions[name]) for name in settings.topics.scoring[1:]}
    kept = {name: log.extents(name, count) for name, count in retries.items()}
    for name, extents in (*outputs.items(), *kept.items()):
        log.wait_for_last_stable_offset(name, extents)
    checked = group.input.read_ends()
    return _Ends(outputs, kept, checked, DecisionReading(settings, log, group.framing), gaps_of(log, outputs))


class _Judges(NamedTuple):
    """What examines each record of an output topic."""

    scores: Reconciliation
    decisions: DecisionReconciliation
    registry: RegistryCheck


def _judges(group: ReconciledGroup, ends: _Ends, inputs: Mapping[int, OffsetRange]) -> _Judges:
    settings, start = group.settings, group.input.start()
    topics = settings.topics
    scores = Reconciliation(
        topics.features,
        settings.kafka.group_id,
        ends.checked,
        _codecs(group.framing),
        Outputs(_topics_of(settings), topics.audit, ends.gaps),
        lost=start.lost,
        unknown_starts=start.unknown_starts,
        compacted=group.log.is_compacted(topics.features),
        since_ms=start.since_ms,
    )
    decisions = ends.decisions.reconciliation(
        {Action.REPLAYED: topics.features, Action.ACCEPTED: topics.scores},
        [topics.rejected, topics.review],
        {topics.features: inputs, **ends.outputs},
        {Partition(topics.features, number): at_ms for number, at_ms in start.since_ms.items()},
    )
    return _Judges(scores, decisions, RegistryCheck(settings))


def _codecs(framing: Serde) -> Codecs:
    return Codecs(
        framing.reader(SchemaFile.CONTACT_FEATURES, max_bytes=_MAX_RECORD_BYTES),
        framing.reader(SchemaFile.CONTACT_SCORE),
        framing.reader(SchemaFile.BATCH_AUDIT),
    )


def _topics_of(settings: Settings) -> dict[Kind, str]:
    topics = settings.topics
    return {Kind.SCORED: topics.scores, Kind.REVIEW: topics.review, Kind.REJECTED: topics.rejected}


def _read_inputs(settings: Settings, reading: Reading, judges: _Judges) -> None:
    topic = settings.topics.features
    for record in reading.records(topic):
        judges.scores.input(record.partition, record.offset, _content(record))
        judges.decisions.observe(RecordLocation(topic, record.partition, record.offset), record.timestamp_ms)
        if record.headers and (marked := replayed_record(topic, settings.topics.rejected, record)) is not None:
            judges.decisions.published(marked)


def _read_outputs(
    settings: Settings,
    reading: Reading,
    judges: _Judges,
    framing: Serde,
) -> None:
    """Read each topic once, even if it has several uses."""
    judge, decided, wanted = judges
    topics = settings.topics
    for name in topics.scoring[1:]:
        kind_of = _classifier([kind for kind, topic in _topics_of(settings).items() if topic == name], framing)
        for record in reading.records(name):
            place = RecordLocation(name, record.partition, record.offset)
            names = _names(record)
            if name == topics.scores:
                decided.observe(place, record.timestamp_ms)
            if names.source is not None and names.decision_id and name == topics.scores:
                wanted.observe(record, name)
                published = PublishedRecord(place, decision_id=names.decision_id, written_ms=record.timestamp_ms)
                decided.published(published)
                judge.accepted(names.source, place, _content(record), written_ms=record.timestamp_ms)
            elif names.source is not None and kind_of is not None:
                if names.reason is None:
                    wanted.observe(record, name)
                content = Content(record.key, record.value, names.reason or "", names.truncated)
                if names.reason is not None and decided.is_replayed(place):
                    decided.rejection(place, judge.replayable(names.source, content, written_ms=record.timestamp_ms))
                judge.output(
                    kind_of(record),
                    names.source,
                    names.batch_id,
                    place,
                    content,
                    was_deferred=names.was_deferred,
                    written_ms=record.timestamp_ms,
                )
            elif name == topics.audit:
                wanted.observe(record, name)
                judge.audit(record.value, place, written_ms=record.timestamp_ms)
            else:
                judge.foreign()


def _read_retries(reading: Reading, judge: Reconciliation, group_id: str, queues: Queues) -> None:
    """Read the contacts of this group that waited when the first commits were read."""
    taken = queues.taken()
    for name in queues.partitions:
        for record in reading.records(name):
            source, group = "", None
            for header, value in record.headers:
                if header == SOURCE_HEADER and not source:
                    source = _text(value)
                elif header == GROUP_HEADER and group is None:
                    group = _text(value)
            if group == group_id:
                still = record.offset >= taken.get(Partition(name, record.partition), 0)
                place = RecordLocation(name, record.partition, record.offset)
                judge.deferred(source, place, _content(record), still=still, written_ms=record.timestamp_ms)


def _from(taken: Mapping[Partition, int], name: str, extents: Mapping[int, OffsetRange]) -> dict[int, OffsetRange]:
    """Return the offset ranges from the commits on: records before them are finished."""
    return {
        number: OffsetRange(min(max(extent.begin, taken.get(Partition(name, number), 0)), extent.end), extent.end)
        for number, extent in extents.items()
    }


def _deleted_retries(taken: Mapping[Partition, int], kept: Mapping[str, Mapping[int, OffsetRange]]) -> list[str]:
    """Return notes on retry topics whose uncommitted records are deleted."""
    return [
        f"{name}/{number}: records below {extent.begin} are deleted, and the group had committed {offset}; the contacts"
        " that waited there count as missing"
        for name, extents in kept.items()
        for number, extent in extents.items()
        if (offset := taken.get(Partition(name, number), extent.begin)) < extent.begin
    ]


class _Names(NamedTuple):
    """Headers of an output record; ``source`` and ``reason``: None if absent."""

    source: str | None
    batch_id: str
    was_deferred: bool
    reason: str | None
    truncated: bool
    decision_id: str


def _names(record: Record) -> _Names:
    source, batch_id, was_deferred, reason, truncated, decision_id = None, "", False, None, False, ""
    for name, value in record.headers:
        if name == SOURCE_HEADER and source is None:
            source = _text(value)
        elif name == _BATCH and not batch_id:
            batch_id = _text(value)
        elif name == DEFERRED_HEADER:
            was_deferred = True
        elif name == _REASON and reason is None:
            reason = _text(value)
        elif name == _TRUNCATED:
            truncated = True
        elif name == DECISION_HEADER:
            decision_id = _text(value)
    return _Names(source, batch_id, was_deferred, reason, truncated, decision_id)


def _content(record: Record) -> Content:
    return Content(record.key, record.value)


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


def _classifier(kinds: list[Kind], framing: Serde) -> Callable[[Record], Kind] | None:
    """Return a classifier for the records of a topic with these uses; None: it has no output records."""
    if len(kinds) <= 1:
        return (lambda _: kinds[0]) if kinds else None
    codec = framing.reader(SchemaFile.CONTACT_SCORE)

    def by_content(record: Record) -> Kind:
        if any(name == _REASON for name, _ in record.headers):
            return Kind.REJECTED
        try:
            return Kind.REVIEW if codec.decode(record.value)["review_reasons"] else Kind.SCORED
        except UndecodableError:
            return Kind.SCORED  # the audit decides if it is none

    return by_content
