"""Desk of rejected contacts: the job that replays or discards them, and the dry run that predicts it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.desk.explanation import explain
from stream_scorer.core.desk.expression import Expression
from stream_scorer.core.desk.record_filter import parse_filter
from stream_scorer.core.desk.rejected_record import parse_rejected
from stream_scorer.core.desk.rejection_counts import GroupBy, RejectionCounts
from stream_scorer.core.desk.replay import Discard, RejectedFilter, Replay
from stream_scorer.core.desk.selection import OffsetBounds, Selection, check_job_name
from stream_scorer.core.desk.verdict import NotSelected, Output, Skip, SkipReason
from stream_scorer.core.retry_topics import GROUP_HEADER
from stream_scorer.core.scoring.contact_decoder import ContactDecoder
from stream_scorer.core.scoring.types import Reason
from stream_scorer.core.text import quoted
from stream_scorer.desk.audit_entries import AuditEntries
from stream_scorer.desk.changes import Changes
from stream_scorer.desk.contact_check import ContactCheck
from stream_scorer.desk.decision_log import DecisionLog
from stream_scorer.desk.job import Job, JobContext, begin_job
from stream_scorer.desk.topic_scan import TopicScan
from stream_scorer.errors import NotJudged, UsageError
from stream_scorer.kafka.admin.acls import rejected_desk_rights
from stream_scorer.kafka.admin.topic_limits import max_message_bytes
from stream_scorer.kafka.admin.topics import check_topics, existing_topics
from stream_scorer.kafka.consumer.log_reader import LogReader, OffsetRange
from stream_scorer.kafka.producer.bulk_producer import event_value
from stream_scorer.kafka.producer.dead_letter import forwarded_headers, too_large
from stream_scorer.kafka.producer.decision_writer import DecisionWriter
from stream_scorer.kafka.producer.records import OutRecord
from stream_scorer.kafka.registry.serde import make_blocking_serde
from stream_scorer.schema_files import SchemaFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_scorer.core.desk.decisions import DecidedRecords, Decision
    from stream_scorer.core.desk.explanation import Explanation
    from stream_scorer.core.desk.record_filter import RecordFilter
    from stream_scorer.core.desk.rejected_record import RejectedRecord
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.core.retry_topics import Source
    from stream_scorer.core.scoring.feature_types import Feature
    from stream_scorer.core.scoring.types import ContactEvent
    from stream_scorer.desk.job import JobReport
    from stream_scorer.settings import Settings

MAX_REPLAYS: Final = 3
TIMEOUT_S: Final = 60.0
_PATIENCE_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class RejectedOptions:
    """Options of a command that select and change rejected contacts; the texts are those of the command line."""

    contacts: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    limit: int | None = None
    partition: int | None = None
    places: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    where: str | None = None
    sets: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    max_replays: int = MAX_REPLAYS

    def records(self, now_ms: int) -> RecordFilter:
        """Return the filter of the common options.

        Raises:
            UsageError: one is malformed.
        """
        return parse_filter(
            now_ms=now_ms,
            since=self.since,
            until=self.until,
            limit=self.limit,
            partition=self.partition,
            places=self.places,
            events=self.events,
            batches=self.batches,
            contacts=self.contacts,
        )

    def check(self, features: Mapping[str, Feature]) -> None:
        """Check what needs no cluster.

        Raises:
            UsageError: an option is malformed, or names an unknown reason or feature.
        """
        self.records(0)
        for reason in self.reasons:
            if reason not in set(Reason):
                raise UsageError(f"--reason {quoted(reason)}: use {', '.join(Reason)}")
        if self.where is not None:
            Expression(self.where)
        Changes(self.sets, self.drops, features)

    @property
    def given(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, by name."""
        changed = {part.name: getattr(self, part.name) for part in fields(self)}
        usual = {part.name: part.default for part in fields(self)}
        return {name: _plain(value) for name, value in changed.items() if value != usual[name]}

    @classmethod
    def restored(cls, given: Mapping[str, Any]) -> RejectedOptions:
        """Return the options of a JOB record."""
        names = {part.name for part in fields(cls)}
        found = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        arguments: dict[str, Any] = {name: value for name, value in found.items() if name in names}
        return cls(**arguments)


class DryRun(NamedTuple):
    """Prediction of a replay.

    Attributes:
        passing: contacts that pass today's checks; each of them is billed once.
        failing: contacts that would be rejected again, by reason.
        skipped: contacts that would not be replayed.
        requests: how many requests the passing contacts need at least.
    """

    passing: int
    failing: Mapping[str, int]
    skipped: Mapping[SkipReason, int]
    requests: int


class RejectedDesk:
    """See the module docstring.

    Args:
        settings: of the scoring workers.

    Raises:
        BrokerError: a topic or a right is missing, or Kafka cannot be reached.
        SettingsError: the settings of the schema registry cannot work.
        RegistryError: the registry does not answer, or lacks a schema.
    """

    def __init__(self, settings: Settings) -> None:
        topics = settings.topics
        self._settings = settings
        self._framing = make_blocking_serde(settings)
        names = (topics.rejected, topics.features, topics.decisions)
        self._partitions = check_topics(settings, names, rights=rejected_desk_rights(settings))
        self._log = LogReader(settings, settings.kafka.group_id, timeout_s=TIMEOUT_S)
        self._limits = max_message_bytes(settings, [topics.features])
        self._decode = ContactDecoder(self._framing.reader(SchemaFile.CONTACT_FEATURES)).decode
        self._decision_codec = self._framing.writer(SchemaFile.DECISION, (topics.decisions,))
        self._decisions = DecisionLog(
            self._log,
            topics.decisions,
            self._partitions[topics.decisions],
            self._framing.reader(SchemaFile.DECISION),
        )

    @property
    def topic(self) -> str:
        """The rejected topic."""
        return self._settings.topics.rejected

    def replay(self, options: RejectedOptions, now_ms: int) -> Replay:
        """Return the judge of a replay."""
        settings = self._settings
        features = settings.topics.features
        changes = Changes(options.sets, options.drops, settings.model.features)
        codec = self._framing.writer(SchemaFile.CONTACT_FEATURES, (features,))
        return Replay(
            self.selected(options, now_ms),
            features=features,
            partitions=self._partitions[features],
            fits=lambda output: not too_large(OutRecord(*output), self._limits[features]),
            changes=changes or None,
            encode=lambda event: codec.encode(event_value(event)),
            max_replays=options.max_replays,
            original=self._original,
            forwarded=forwarded_headers,
        )

    def discard(self, options: RejectedOptions, now_ms: int) -> Discard:
        """Return the judge that closes rejected contacts."""
        return Discard(self.selected(options, now_ms))

    def selected(self, options: RejectedOptions, now_ms: int) -> RejectedFilter:
        """Return the filter of the options."""
        expression = None if options.where is None else Expression(options.where)
        return RejectedFilter(options.records(now_ms), frozenset(options.reasons), expression, self._decode)

    def scan(self, options: RejectedOptions, now_ms: int) -> TopicScan:
        """Return the scan of the rejected topic within the bounds of the options."""
        return TopicScan(self._settings, self.topic, options.records(now_ms), timeout_s=TIMEOUT_S)

    def dry_run(self, options: RejectedOptions) -> DryRun:
        """Predict a replay; nothing is written.

        Raises:
            BrokerError: Kafka cannot be reached.
        """
        now_ms = _now_ms()
        judge, check = self.replay(options, now_ms), ContactCheck(self._settings, self._framing)
        decided = self.decided()
        skipped: Counter[SkipReason] = Counter()
        failing: Counter[str] = Counter()
        passing = 0
        for record in self.scan(options, now_ms).records():
            replayed = judge.replayed(record, decided.action(record.source))
            if isinstance(replayed, Skip):
                skipped[replayed.reason] += 1
            if not isinstance(replayed, Output):
                continue
            rejected = check(replayed.key, replayed.value, replayed.headers, now_ms)
            if rejected is None:
                passing += 1
            else:
                failing[rejected.reasons[0]] += 1
            if passing + failing.total() == options.limit:
                break
        return DryRun(passing, failing, skipped, -(-passing // self._settings.scoring.max_contacts))

    def counts(self, options: RejectedOptions, by: GroupBy) -> RejectionCounts:
        """Count the selected records."""
        now_ms = _now_ms()
        selected, decided = self.selected(options, now_ms), self.decided()
        counts = RejectionCounts(by, options.max_replays)
        for rejected, event in self._matching(selected, options, now_ms):
            counts.add(rejected, event, decided.action(rejected.place))
        return counts

    def open(self, options: RejectedOptions) -> int:
        """Count the selected records that are not replayed or discarded yet."""
        return self.counts(options, GroupBy.REASON).open

    def waiting(self) -> dict[str, int]:
        """Return the number of deferred contacts of the group in each retry topic that has some."""
        topics = check_topics(self._settings, existing_topics(self._settings, self._settings.topics.contact_retries()))
        group = self._settings.kafka.group_id.encode()
        found: dict[str, int] = {}
        for name, partitions in topics.items():
            commits = self._log.commits(name, partitions)
            ranges = self._log.stable_ranges(name, partitions)
            ends = {
                n: OffsetRange(commits[n].offset if n in commits else one.begin, one.end) for n, one in ranges.items()
            }
            extents = {n: OffsetRange(min(one.begin, one.end), one.end) for n, one in ends.items()}
            count = sum(
                (GROUP_HEADER, group) in one.headers for batch in self._log.read(name, extents) for one in batch
            )
            if count:
                found[name] = count
        return found

    def explanations(self, options: RejectedOptions) -> Iterator[Explanation]:
        """Yield an explanation of each selected record, each partition's in order."""
        now_ms = _now_ms()
        selected, decided = self.selected(options, now_ms), self.decided()
        check = ContactCheck(self._settings, self._framing)
        audit = AuditEntries(self._settings, self._framing)
        for rejected, decoded in self._matching(selected, options, now_ms):
            record, event = rejected.record, decoded
            if rejected.is_truncated and rejected.origin is not None:
                record = self._original(rejected.origin, record.key) or record
                event = selected.event(record)
            yield explain(
                rejected,
                event,
                self._settings.model.features,
                check(record.key, record.value, forwarded_headers(record.headers), now_ms),
                state=rejected.state(decided.action(rejected.place), options.max_replays),
                audit=audit.find(rejected),
            )

    def _matching(
        self, selected: RejectedFilter, options: RejectedOptions, now_ms: int
    ) -> Iterator[tuple[RejectedRecord, ContactEvent | None]]:
        left = options.limit
        for record in self.scan(options, now_ms).records():
            if left == 0:
                return
            rejected, event = parse_rejected(record), selected.event(record)
            if selected.matches(rejected, event):
                left = None if left is None else left - 1
                yield rejected, event

    def run(
        self,
        action: Action,
        options: RejectedOptions,
        *,
        job: str,
        operator: str,
        note: str,
        per_second: float,
        progress: Callable[[int], None],
    ) -> JobReport:
        """Replay or discard, or resume the job of this name.

        Raises:
            UsageError: the name is malformed, or a job of this name has begun with other options.
            ProducerFenced: another job has taken over.
            BrokerError: Kafka cannot be reached, or refuses.
            NotJudged: records or decisions cannot be read.
        """
        check_job_name(job)
        now_ms = _now_ms()
        context = JobContext(self.topic, self._log.topic_id(self.topic), job, operator, note)
        if self._decisions.read(context.topic, context.topic_id).job(job) is None:
            self._check_selected(self._judge(action, options, now_ms), options, now_ms)
        bounds = {n: OffsetBounds(*one) for n, one in self.scan(options, now_ms).selected_ranges().items()}
        selection = Selection(action, options.given, bounds)
        open_writer = partial(DecisionWriter, self._settings, encode=self._encode)
        begun = begin_job(context, selection, decisions=self._decisions, open_writer=open_writer)
        options = RejectedOptions.restored(begun.selection.options)
        return Job(
            context,
            self._judge(action, options, begun.at_ms),
            log=self._log,
            decisions=self._decisions,
            open_writer=open_writer,
            per_second=per_second,
            limit=options.limit,
            patience_s=_PATIENCE_S,
            progress=progress,
        ).run(begun.selection)

    def _judge(self, action: Action, options: RejectedOptions, now_ms: int) -> Replay | Discard:
        return self.replay(options, now_ms) if action is Action.REPLAYED else self.discard(options, now_ms)

    def _check_selected(self, judge: Replay | Discard, options: RejectedOptions, now_ms: int) -> None:
        """Check that the options select a record of this group before anything is written.

        Raises:
            UsageError: they do not.
        """
        foreign = ""
        for record in self.scan(options, now_ms).records():
            verdict = judge.judge(record, None)
            if verdict == Skip(SkipReason.FOREIGN):
                foreign = foreign or record.source
            elif not isinstance(verdict, NotSelected):
                return
        if foreign:
            raise UsageError(f"only records of other programs are selected, such as {foreign}: check topics.features")
        raise UsageError(f"no record of {self.topic} is selected: check the options with `stream-scorer rejected list`")

    def decided(self) -> DecidedRecords:
        """Return the decisions about rejected contacts so far."""
        return self._decisions.read(self.topic, self._log.topic_id(self.topic))

    def _encode(self, decision: Decision) -> bytes:
        return self._decision_codec.encode(decision.as_fields())

    def _original(self, origin: Source, key: bytes | None) -> SourceRecord | None:
        """Return the record of a place on the features topic; None: it is deleted, or has another key."""
        extent = {origin.partition: OffsetRange(origin.offset, origin.offset + 1)}
        try:
            for batch in self._log.read(origin.topic, extent):
                for one in batch:
                    record = one.as_source_record(origin.topic)
                    return record if key in (None, record.key) else None
        except NotJudged:
            return None
        return None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
