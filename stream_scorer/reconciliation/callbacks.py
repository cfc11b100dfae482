"""Reconciliation of callbacks: reads live topics for `core.reconciliation.callbacks`, which checks them.

The order is that of `stream_scorer.reconciliation.scores`, for the same reasons: the commits of planner and deliverer,
the ends of all topics, the topics, the commits again. So the callback workers may run in the meantime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.decisions import DECISION_HEADER, decision_of
from stream_scorer.core.reconciliation.callbacks import CallbackReconciliation, Codecs, Truncated
from stream_scorer.core.reconciliation.outcome_values import Content
from stream_scorer.core.reconciliation.redeliveries import RedeliveryTopics
from stream_scorer.core.reconciliation.scores import RecordLocation
from stream_scorer.core.records import Partition
from stream_scorer.errors import NothingToCheck
from stream_scorer.kafka.admin.acls import Permission, reconciling_callbacks_rights
from stream_scorer.kafka.admin.topics import check_topics, existing_topics
from stream_scorer.kafka.consumer.log_reader import LogReader
from stream_scorer.kafka.registry.serde import make_blocking_serde
from stream_scorer.reconciliation.group_input import GroupInput
from stream_scorer.reconciliation.topic_reader import Queues, Reading, RegistryCheck, gap_notes, gaps_of
from stream_scorer.schema_files import SchemaFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.reconciliation.callback_report import CallbackReport
    from stream_scorer.kafka.consumer.log_reader import OffsetRange, Record
    from stream_scorer.reconciliation.topic_reader import Progress
    from stream_scorer.settings import Settings

_SOURCE: Final = "stream-scorer-source"
_TRUNCATED: Final = "stream-scorer-error-truncated"
# Earlier settings may have had more retry topics than `callbacks.retry_delays_s` has now.
_MAX_LEVELS: Final = 4
_SCHEMAS: Final = (SchemaFile.CONTACT_SCORE, SchemaFile.CAMPAIGN_CALLBACK, SchemaFile.CALLBACK_RECEIPT)


def reconcile_callbacks(
    settings: Settings, *, progress: Progress | None = None, timeout_s: float = 60.0
) -> CallbackReport | None:
    """Read scores, callbacks, receipts and commits, and return the report; None: no callback worker has run.

    None is returned only if the callbacks and receipts topics are empty. If they are not, a group without commits is
    mistyped, or its commits have expired.

    The threshold is that of the present settings: scores planned with another one are counted, not checked.

    Args:
        settings: those of the callback worker.
        progress: called after every batch.
        timeout_s: longest time without progress: a broker that is down, an open transaction.

    Raises:
        SettingsError: the topics need a schema registry and none is set.
        NothingToCheck: the group has no commits, although there are callbacks or receipts.
        CheckFailed: the scores topic was created again.
        NotJudged: a group's offsets were reset to earlier ones in the meantime.
        BrokerError: Kafka cannot be reached, a topic is missing, or a transaction stays open.
    """
    framing = make_blocking_serde(settings)
    topic, group_id = settings.topics.scores, settings.callbacks_group_id
    partitions = check_topics(settings, [topic], rights=[Permission("Describe", "group", group_id)])
    log = LogReader(settings, group_id, timeout_s=timeout_s)
    group_input = GroupInput(log, group_id, topic, partitions[topic])
    if not group_input.has_commits:
        _check_none_has_run(settings, log)
        return None
    group_input.check_identity()
    rights = reconciling_callbacks_rights(settings)
    partitions |= check_topics(settings, settings.topics.campaign(levels=0), rights=rights)
    queues = _queues(settings, timeout_s)
    partitions |= queues.partitions
    taken = queues.taken()
    outputs = {name: log.extents(name, count) for name, count in partitions.items() if name != topic}
    for name, extents in outputs.items():
        log.wait_for_last_stable_offset(name, extents)
    # After the others: the decision of a callback that is visible by now is below this end.
    decisions = _decision_extents(settings, log)
    checked = group_input.read_ends()
    start = group_input.start()
    receipts, rejected = settings.topics.receipts, settings.topics.callbacks_rejected
    ends = {name: outputs[name] for name in (receipts, rejected)}
    gaps = gaps_of(log, ends)
    judge = CallbackReconciliation(
        topic,
        group_id,
        checked,
        taken,
        threshold=settings.callbacks.threshold,
        codecs=Codecs(*(framing.reader(one) for one in _SCHEMAS)),
        gone=Truncated(
            _truncated(receipts, ends),
            _truncated(rejected, ends),
            gaps.is_compacted(rejected),
            _truncated(settings.topics.decisions, decisions),
        ),
        lost=start.lost,
        unknown_starts=start.unknown_starts,
        since_ms=start.since_ms,
        compacted=log.is_compacted(topic),
        again=RedeliveryTopics(
            rejected, log.topic_id(rejected), settings.topics.callbacks, outputs[settings.topics.callbacks]
        ),
    )
    topics = {topic: group_input.readable(checked), **outputs, **decisions}
    wanted = RegistryCheck(settings)
    reading = Reading(log, topics, progress)
    _read(judge, settings, queues.partitions, reading, wanted)
    for name in decisions:
        _read_decisions(judge, settings, reading.records(name), framing.reader(SchemaFile.DECISION))
    committed = group_input.committed_now()
    notes = [*group_input.notes(), *gap_notes(ends, gaps)]
    report = judge.result(committed, queues.taken(), notes)
    wanted.check(report)
    return report


def _check_none_has_run(settings: Settings, log: LogReader) -> None:
    names = (settings.topics.receipts, settings.topics.callbacks)
    # A topic without the right to describe it counts as absent: a check of scores alone needs no right on these.
    for name, partitions in check_topics(settings, existing_topics(settings, names)).items():
        if any(extent.end > 0 for extent in log.extents(name, partitions).values()):
            raise NothingToCheck(
                f"group {settings.callbacks_group_id} has no commits on {settings.topics.scores}, and topic {name} has"
                " been written to, so callbacks cannot be judged: is this the callbacks.group_id (or kafka.group_id) of"
                " the campaign worker?"
            )


def _queues(settings: Settings, timeout_s: float) -> Queues:
    """Return the topics that the deliverer reads, with its commits."""
    group_id, topics = settings.delivery_group_id, settings.topics
    retries = existing_topics(settings, topics.retries(_MAX_LEVELS))
    log = LogReader(settings, group_id, timeout_s=timeout_s)
    return Queues(log, group_id, check_topics(settings, [topics.callbacks, *retries]))


def _decision_extents(settings: Settings, log: LogReader) -> dict[str, dict[int, OffsetRange]]:
    """Return the extents of the decisions topic; empty: it does not exist."""
    found = check_topics(settings, existing_topics(settings, [settings.topics.decisions]))
    extents = {name: log.extents(name, partitions) for name, partitions in found.items()}
    for name, ranges in extents.items():
        log.wait_for_last_stable_offset(name, ranges)
    return extents


def _truncated(topic: str, extents: Mapping[str, Mapping[int, OffsetRange]]) -> frozenset[Partition]:
    """Return the partitions of a topic whose first records are deleted."""
    return frozenset(Partition(topic, number) for number, extent in extents.get(topic, {}).items() if extent.begin > 0)


def _read(
    judge: CallbackReconciliation, settings: Settings, queues: Iterable[str], reading: Reading, wanted: RegistryCheck
) -> None:
    topics = settings.topics
    for record in reading.records(topics.scores):
        if _source(record) is not None:  # written by a scorer; other programs' records may have any framing
            wanted.observe(record, topics.scores)
        judge.score(record.partition, record.offset, Content(record.key, record.value), record.timestamp_ms)
    for name in queues:
        for record in reading.records(name):
            wanted.observe(record, name)
            place = RecordLocation(name, record.partition, record.offset)
            judge.callback(record.value, place, record.timestamp_ms, _header(record, DECISION_HEADER) or "")
    for record in reading.records(topics.receipts):
        wanted.observe(record, topics.receipts)
        place = RecordLocation(topics.receipts, record.partition, record.offset)
        judge.receipt(record.value, place, record.timestamp_ms, _header(record, DECISION_HEADER) or "")
    for record in reading.records(topics.callbacks_rejected):
        source = _source(record)
        if source is not None:
            is_truncated = any(name == _TRUNCATED for name, _ in record.headers)
            content = Content(record.key, record.value, truncated=is_truncated)
            place = RecordLocation(topics.callbacks_rejected, record.partition, record.offset)
            judge.rejected(source, content, place, record.timestamp_ms, _header(record, DECISION_HEADER) or "")


def _read_decisions(judge: CallbackReconciliation, settings: Settings, records: Iterable[Record], codec: Codec) -> None:
    """Add the decisions about rejected callbacks; their keys are the decided places."""
    decided = f"{settings.topics.callbacks_rejected}/".encode()
    for record in records:
        if record.key is None or not record.key.startswith(decided):
            continue
        try:
            decision = decision_of(codec.decode(record.value))
        except UndecodableError:
            continue
        place = RecordLocation(settings.topics.decisions, record.partition, record.offset)
        judge.decision(decision, place, record.timestamp_ms)


def _source(record: Record) -> str | None:
    """Return the source in the record's headers."""
    return _header(record, _SOURCE)


def _header(record: Record, wanted: str) -> str | None:
    return next(((value or b"").decode(errors="replace") for name, value in record.headers if name == wanted), None)
