"""Desk of rejected contacts: the job that replays or discards them, and the dry run that predicts it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.desk.discard import Discard
from stream_scorer.core.desk.explanation import explain
from stream_scorer.core.desk.expression import REJECTED_NAMES, Expression
from stream_scorer.core.desk.record_counts import UNKNOWN, GroupBy, RecordCounts, campaign_name
from stream_scorer.core.desk.rejected_record import RejectionState, parse_rejected
from stream_scorer.core.desk.replay import RejectedFilter, Replay
from stream_scorer.core.desk.verdict import Output, Skip, SkipReason
from stream_scorer.core.retry_topics import GROUP_HEADER
from stream_scorer.core.scoring.contact_decoder import ContactDecoder
from stream_scorer.core.scoring.types import Reason
from stream_scorer.desk.audit_entries import AuditEntries
from stream_scorer.desk.changes import Changes
from stream_scorer.desk.contact_check import ContactCheck
from stream_scorer.desk.record_desk import DeskOptions, RecordDesk, current_ms
from stream_scorer.errors import NotJudged
from stream_scorer.kafka.admin.acls import rejected_desk_rights
from stream_scorer.kafka.admin.topic_limits import max_message_bytes
from stream_scorer.kafka.admin.topics import check_topics, existing_topics
from stream_scorer.kafka.consumer.log_reader import LogReader, OffsetRange
from stream_scorer.kafka.producer.bulk_producer import event_value
from stream_scorer.kafka.producer.dead_letter import forwarded_headers, too_large
from stream_scorer.kafka.producer.records import OutRecord
from stream_scorer.schema_files import SchemaFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_scorer.core.desk.explanation import Explanation
    from stream_scorer.core.desk.rejected_record import RejectedRecord
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.core.scoring.feature_types import Feature
    from stream_scorer.core.scoring.types import ContactEvent
    from stream_scorer.settings import Settings

MAX_REPLAYS: Final = 3
_COMMITS_S: Final = 5.0
# The timestamps of an input and of its rejection come from two machines.
_CLOCKS_DIFFER_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class RejectedOptions(DeskOptions):
    """Options of a command that select and change rejected contacts; the texts are those of the command line."""

    sets: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    max_replays: int = MAX_REPLAYS

    def check(self, features: Mapping[str, Feature]) -> None:
        """Check what needs no cluster.

        Raises:
            UsageError: an option is malformed, or names an unknown reason or feature.
        """
        self.check_selection(list(Reason), REJECTED_NAMES)
        Changes(self.sets, self.drops, features)


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


class RejectedDesk(RecordDesk[RejectedOptions]):
    """See the module docstring.

    Args:
        settings: of the scoring workers.

    Raises:
        BrokerError: a topic or a right is missing, or Kafka cannot be reached.
        SettingsError: the settings of the schema registry cannot work.
        RegistryError: the registry does not answer, or lacks a schema.
    """

    def __init__(self, settings: Settings) -> None:
        features = settings.topics.features
        super().__init__(settings, settings.topics.rejected, features, rights=rejected_desk_rights(settings))
        self._limits = max_message_bytes(settings, [features])
        self._decode = ContactDecoder(self._framing.reader(SchemaFile.CONTACT_FEATURES)).decode

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
        selected = self.selected(options, now_ms)
        return Discard(lambda record: selected.matches(parse_rejected(record), selected.event(record)))

    def selected(self, options: RejectedOptions, now_ms: int) -> RejectedFilter:
        """Return the filter of the options."""
        expression = None if options.where is None else Expression(options.where)
        return RejectedFilter(options.records(now_ms), frozenset(options.reasons), expression, self._decode)

    def dry_run(self, options: RejectedOptions) -> DryRun:
        """Predict a replay; nothing is written.

        Raises:
            BrokerError: Kafka cannot be reached.
        """
        now_ms = current_ms()
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

    def counts(self, options: RejectedOptions, by: GroupBy) -> RecordCounts:
        """Count the selected records."""
        now_ms = current_ms()
        selected, decided = self.selected(options, now_ms), self.decided()
        counts = RecordCounts(by, list(RejectionState))
        for rejected, event in self._matching(selected, options, now_ms):
            state = rejected.state(decided.action(rejected.place), options.max_replays)
            campaign = UNKNOWN if event is None else campaign_name(event.campaign_id)
            counts.add(rejected.record, state, reason=rejected.reason, campaign=campaign)
        return counts

    def open(self, options: RejectedOptions) -> int:
        """Count the selected records that are not replayed or discarded yet."""
        return self.counts(options, GroupBy.REASON).total(RejectionState.OPEN, RejectionState.PARKED)

    def waiting(self) -> dict[str, int]:
        """Return the number of deferred contacts of the group in each retry topic that has some.

        Raises:
            BrokerError: its commits cannot be read within a few seconds; without the right to, brokers do not answer.
        """
        group_log = LogReader(self._settings, self._settings.kafka.group_id, timeout_s=_COMMITS_S)
        topics = check_topics(self._settings, existing_topics(self._settings, self._settings.topics.contact_retries()))
        group = self._settings.kafka.group_id.encode()
        found: dict[str, int] = {}
        for name, partitions in topics.items():
            commits = group_log.commits(name, partitions)
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
        now_ms = current_ms()
        selected, decided = self.selected(options, now_ms), self.decided()
        check = ContactCheck(self._settings, self._framing)
        audit = AuditEntries(self._settings, self._framing)
        for rejected, decoded in self._matching(selected, options, now_ms):
            record, event = rejected.record, decoded
            if rejected.is_truncated:
                record = self._original(rejected) or record
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

    def judge(self, action: Action, options: RejectedOptions, now_ms: int) -> Replay | Discard:
        return self.replay(options, now_ms) if action is Action.REPLAYED else self.discard(options, now_ms)

    def _original(self, rejected: RejectedRecord) -> SourceRecord | None:
        """Return the input of a rejected contact; None: it is deleted, or its place has another record now.

        Such a record is one of a topic that was created again: it has another key, or is later than the rejection.
        """
        origin, key = rejected.origin, rejected.record.key
        features = self._settings.topics.features
        if origin is None or origin.topic != features or origin.partition >= self._partitions[features]:
            return None
        latest_ms = rejected.record.timestamp_ms + _CLOCKS_DIFFER_MS
        extent = {origin.partition: OffsetRange(origin.offset, origin.offset + 1)}
        try:
            for batch in self._log.read(origin.topic, extent):
                for one in batch:
                    record = one.as_source_record(origin.topic)
                    return record if key in (None, record.key) and record.timestamp_ms <= latest_ms else None
        except NotJudged:
            return None
        return None
