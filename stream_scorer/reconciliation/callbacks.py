"""Reconciliation of callbacks: reads live topics for `core.reconciliation.callbacks`, which checks them.

The order is that of `stream_scorer.reconciliation.scores`, for the same reasons: the commits of planner and deliverer,
the ends of all topics, the topics, the commits again. So the callback workers may run in the meantime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.desk.decisions import DECISION_HEADER, Action
from stream_scorer.core.reconciliation.callback_judgement import Truncated
from stream_scorer.core.reconciliation.callbacks import CallbackReconciliation, Codecs
from stream_scorer.core.reconciliation.decisions import PublishedRecord
from stream_scorer.core.reconciliation.outcome_values import Content
from stream_scorer.core.reconciliation.scores import RecordLocation
from stream_scorer.core.records import Partition
from stream_scorer.errors import NothingToCheck
from stream_scorer.kafka.admin.acls import Permission, reconciling_callbacks_rights
from stream_scorer.kafka.admin.topics import check_topics, existing_topics
from stream_scorer.kafka.consumer.log_reader import LogReader
from stream_scorer.kafka.registry.serde import make_blocking_serde
from stream_scorer.reconciliation.decisions import DecisionReading
from stream_scorer.reconciliation.group_input import GroupInput, ReconciledGroup
from stream_scorer.reconciliation.topic_reader import Queues, Reading, RegistryCheck, gap_notes, gaps_of
from stream_scorer.schema_files import SchemaFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.reconciliation.callback_report import CallbackReport
    from stream_scorer.core.reconciliation.decisions import DecisionReconciliation
    from stream_scorer.core.reconciliation.log_gaps import LogGaps
    from stream_scorer.core.reconciliation.record_states import CommittedRange
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
    campaign = check_topics(settings, settings.topics.campaign(levels=0), rights=reconciling_callbacks_rights(settings))
    queues = _queues(settings, timeout_s)
    taken = queues.taken()
    group = ReconciledGroup(settings, log, framing, group_input)
    ends = _read_ends(group, {**campaign, **queues.partitions})
    decided = ends.decisions.reconciliation(
        {Action.REDELIVERED: settings.topics.callbacks}, [settings.topics.callbacks_rejected], ends.outputs
    )
    judge = _judge(group, ends, taken, decided)
    readable = {topic: group_input.readable(ends.checked), **ends.outputs, **ends.decisions.extents}
    judges = _Judges(judge, decided, RegistryCheck(settings))
    reading = Reading(log, readable, progress)
    _read_scores(settings, reading, judges)
    _read_callbacks(settings, reading, judges, queues)
    _read_receipts(settings, reading, judges)
    _read_rejected(settings, reading, judges)
    ends.decisions.read(reading, decided)
    committed = group_input.committed_now()
    report = judge.result(committed, queues.taken(), [*group_input.notes(), *gap_notes(ends.judged, ends.gaps)])
    judges.registry.check(report)
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


class _Ends(NamedTuple):
    """The ends of all topics, in the order in which they were read.

    Attributes:
        outputs: the offsets of the topics that planner and deliverer write.
        decisions: the decisions topic with its ends.
        checked: the group's committed range on each partition of the scores topic.
        judged: those of ``outputs`` whose missing records are findings: receipts and rejections.
        gaps: the deleted and compacted records of these.
    """

    outputs: Mapping[str, Mapping[int, OffsetRange]]
    decisions: DecisionReading
    checked: dict[int, CommittedRange]
    judged: Mapping[str, Mapping[int, OffsetRange]]
    gaps: LogGaps


def _read_ends(group: ReconciledGroup, partitions: Mapping[str, int]) -> _Ends:
    """Read the ends of all topics, once the transactions below them have ended; ``partitions``: of the campaign's."""
    topics, log = group.settings.topics, group.log
    outputs = {name: log.extents(name, count) for name, count in partitions.items() if name != topics.scores}
    for name, extents in outputs.items():
        log.wait_for_last_stable_offset(name, extents)
    decisions = DecisionReading(group.settings, log, group.framing)
    judged = {name: outputs[name] for name in (topics.receipts, topics.callbacks_rejected)}
    return _Ends(outputs, decisions, group.input.read_ends(), judged, gaps_of(log, judged))


def _judge(
    group: ReconciledGroup, ends: _Ends, taken: Mapping[Partition, int], decided: DecisionReconciliation
) -> CallbackReconciliation:
    settings, start = group.settings, group.input.start()
    topics = settings.topics
    return CallbackReconciliation(
        topics.scores,
        settings.callbacks_group_id,
        ends.checked,
        taken,
        decided,
        threshold=settings.callbacks.threshold,
        codecs=Codecs(*(group.framing.reader(one) for one in _SCHEMAS)),
        gone=Truncated(
            _truncated(topics.receipts, ends.judged),
            _truncated(topics.callbacks_rejected, ends.judged),
            ends.gaps.is_compacted(topics.callbacks_rejected),
        ),
        lost=start.lost,
        unknown_starts=start.unknown_starts,
        since_ms=start.since_ms,
        compacted=group.log.is_compacted(topics.scores),
    )


def _truncated(topic: str, extents: Mapping[str, Mapping[int, OffsetRange]]) -> frozenset[Partition]:
    """Return the partitions of a topic whose first records are deleted."""
    return frozenset(Partition(topic, number) for number, extent in extents[topic].items() if extent.begin > 0)


class _Judges(NamedTuple):
    """What examines the records."""

    callbacks: CallbackReconciliation
    decisions: DecisionReconciliation
    registry: RegistryCheck


def _read_scores(settings: Settings, reading: Reading, judges: _Judges) -> None:
    topic = settings.topics.scores
    for record in reading.records(topic):
        if _header(record, _SOURCE) is not None:  # written by a scorer; other programs' records may have any framing
            judges.registry.observe(record, topic)
        content = Content(record.key, record.value)
        judges.callbacks.score(record.partition, record.offset, content, record.timestamp_ms)


def _read_callbacks(settings: Settings, reading: Reading, judges: _Judges, queues: Queues) -> None:
    """Read the callbacks topic and its retry topics."""
    for name in queues.partitions:
        for record in reading.records(name):
            judges.registry.observe(record, name)
            place = RecordLocation(name, record.partition, record.offset)
            decision = _header(record, DECISION_HEADER) or ""
            if name == settings.topics.callbacks:
                judges.decisions.observe(place, record.timestamp_ms)
                if decision:
                    published = PublishedRecord(place, decision_id=decision, written_ms=record.timestamp_ms)
                    judges.decisions.published(published)
            judges.callbacks.callback(record.value, place, record.timestamp_ms, decision)


def _read_receipts(settings: Settings, reading: Reading, judges: _Judges) -> None:
    topic = settings.topics.receipts
    for record in reading.records(topic):
        judges.registry.observe(record, topic)
        place = RecordLocation(topic, record.partition, record.offset)
        judges.callbacks.receipt(record.value, place, record.timestamp_ms, _header(record, DECISION_HEADER) or "")


def _read_rejected(settings: Settings, reading: Reading, judges: _Judges) -> None:
    topic = settings.topics.callbacks_rejected
    for record in reading.records(topic):
        source = _header(record, _SOURCE)
        if source is None:
            continue
        content = Content(record.key, record.value, truncated=_header(record, _TRUNCATED) is not None)
        place = RecordLocation(topic, record.partition, record.offset)
        decision = _header(record, DECISION_HEADER) or ""
        judges.callbacks.rejected(source, content, place, record.timestamp_ms, decision)


def _header(record: Record, wanted: str) -> str | None:
    """Return the first value of a header; None: the record does not have it."""
    return next(((value or b"").decode(errors="replace") for name, value in record.headers if name == wanted), None)
