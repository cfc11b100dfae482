"""Desk of rejected contacts: the job that replays or discards them, and the dry run that predicts it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.desk.explanation import explain
from stream_scorer.core.desk.expression import REJECTED_NAMES
from stream_scorer.core.desk.rejected_contact import RejectedContact, event_of, parse_rejected_contact
from stream_scorer.core.desk.rejected_record import RejectionState
from stream_scorer.core.desk.replay import Replay
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
from stream_scorer.kafka.consumer.log_reader import OffsetRange
from stream_scorer.kafka.producer.bulk_producer import event_value
from stream_scorer.kafka.producer.dead_letter import forwarded_headers, too_large
from stream_scorer.kafka.producer.records import OutRecord
from stream_scorer.schema_files import SchemaFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_scorer.core.desk.desk_filter import DeskFilter
    from stream_scorer.core.desk.explanation import Explanation
    from stream_scorer.core.desk.rejected_record import RejectedRecord
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.core.scoring.feature_types import Feature
    from stream_scorer.desk.record_desk import JobPlan
    from stream_scorer.settings import Settings

MAX_REPLAYS: Final = 3
# The timestamps of an input and of its rejection come from two machines.
_CLOCKS_DIFFER_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class RejectedOptions(DeskOptions):
    """Options of a command that select and change rejected contacts; the texts are those of the command line."""

    known_reasons = tuple(Reason)
    names = REJECTED_NAMES

    sets: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    max_replays: int = MAX_REPLAYS

    def changes(self, features: Mapping[str, Feature]) -> Changes | None:
        """Return the changes to each contact; None: there are none.

        Raises:
            UsageError: a name or a value does not fit the model's features.
        """
        return Changes(self.sets, self.drops, features) or None


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


class RejectedDesk(RecordDesk[RejectedOptions, RejectedContact]):
    """See the module docstring.

    Args:
        settings: of the scoring workers.

    Raises:
        BrokerError: a topic or a right is missing, or Kafka cannot be reached.
        SettingsError: the settings of the schema registry cannot work.
        RegistryError: the registry does not answer, or lacks a schema.
    """

    states = RejectionState

    def __init__(self, settings: Settings) -> None:
        features = settings.topics.features
        super().__init__(settings, settings.topics.rejected, features, rights=rejected_desk_rights(settings))
        self._limits = max_message_bytes(settings, [features])
        self._decode = ContactDecoder(self._framing.reader(SchemaFile.CONTACT_FEATURES)).decode

    def parse(self, record: SourceRecord) -> RejectedContact | None:
        return parse_rejected_contact(record, self._decode)

    def state(self, found: RejectedContact, action: str | None, options: RejectedOptions) -> RejectionState:
        return found.rejected.state(action, options.max_replays)

    def publishing_judge(self, selected: DeskFilter[RejectedContact], options: RejectedOptions) -> Replay:
        settings = self._settings
        features = settings.topics.features
        codec = self._framing.writer(SchemaFile.CONTACT_FEATURES, (features,))
        return Replay(
            selected,
            decode=self._decode,
            features=features,
            partitions=self._partitions[features],
            fits=lambda output: not too_large(OutRecord(*output), self._limits[features]),
            changes=options.changes(settings.model.features),
            encode=lambda event: codec.encode(event_value(event)),
            max_replays=options.max_replays,
            original=self._original,
            forwarded=forwarded_headers,
        )

    def dry_run(self, plan: JobPlan[RejectedOptions]) -> DryRun:
        """Predict a replay; nothing is written.

        Raises:
            BrokerError: Kafka cannot be reached.
        """
        now_ms = current_ms()
        judge = self.publishing_judge(self.selected(plan.options, plan.at_ms), plan.options)
        check = ContactCheck(self._settings, self._framing)
        decided = self.decided()
        skipped: Counter[SkipReason] = Counter()
        failing: Counter[str] = Counter()
        passing = 0
        for record in self.planned(plan).records():
            if passing + failing.total() == plan.left:
                break
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
        return DryRun(passing, failing, plan.skipped(skipped), -(-passing // self._settings.scoring.max_contacts))

    def waiting(self) -> dict[str, int]:
        """Return the number of deferred contacts of the group in each retry topic that has some.

        Raises:
            BrokerError: as `waiting_in`.
        """
        topics, group_id = self._settings.topics, self._settings.kafka.group_id
        own = (GROUP_HEADER, group_id.encode())
        return self.waiting_in(topics.contact_retries(), group_id, lambda record: own in record.headers)

    def explanations(self, options: RejectedOptions) -> Iterator[Explanation]:
        """Yield an explanation of each selected record, each partition's in order."""
        now_ms, decided = current_ms(), self.decided()
        check = ContactCheck(self._settings, self._framing)
        audit = AuditEntries(self._settings, self._framing)
        for found in self.matching(options, now_ms):
            rejected, event = found
            record = rejected.record
            if rejected.is_truncated:
                record = self._original(rejected) or record
                event = event_of(record, self._decode)
            yield explain(
                rejected,
                event,
                self._settings.model.features,
                check(record.key, record.value, forwarded_headers(record.headers), now_ms),
                state=self.state(found, decided.action(found.record.source), options),
                audit=audit.find(rejected),
            )

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
