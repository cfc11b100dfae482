"""Desk of rejected callbacks: the job that delivers them again or discards them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.callbacks.records import callback_value, read_callback
from stream_scorer.core.desk.decisions import DECISION_HEADER
from stream_scorer.core.desk.delivery_explanation import ReceiptFact, explain_delivery
from stream_scorer.core.desk.desk_filter import DeskFilter
from stream_scorer.core.desk.expression import DELIVERY_NAMES
from stream_scorer.core.desk.held_callbacks import HeldCallback, is_held, not_decided_text
from stream_scorer.core.desk.record_counts import RecordCounts
from stream_scorer.core.desk.record_filter import Bound, RecordFilter
from stream_scorer.core.desk.redelivery import (
    DELIVERABLE,
    UNDELIVERABLE,
    DeliveryState,
    Redelivery,
    RejectedCallback,
    delivery_state,
    parse_rejected_callback,
    retargeted_id,
)
from stream_scorer.desk.record_desk import DeskOptions, RecordDesk, current_ms
from stream_scorer.desk.retarget import Retarget
from stream_scorer.desk.topic_scan import TopicScan
from stream_scorer.errors import BrokerError
from stream_scorer.kafka.admin.acls import deliveries_desk_rights
from stream_scorer.kafka.admin.topic_limits import max_message_bytes
from stream_scorer.kafka.admin.topics import check_topics
from stream_scorer.kafka.producer.dead_letter import forwarded_headers, too_large
from stream_scorer.kafka.producer.records import OutRecord
from stream_scorer.schema_files import SchemaFile
from stream_scorer.targets.body_fit import misfit
from stream_scorer.targets.factory import build_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_scorer.callbacks.ports import Target
    from stream_scorer.core.callbacks.types import Callback
    from stream_scorer.core.desk.decisions import DecidedRecords
    from stream_scorer.core.desk.delivery_explanation import DeliveryExplanation
    from stream_scorer.core.desk.record_counts import GroupBy
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.settings import Settings

# A receipt is not older than its callback's plan, but the two clocks may differ.
_CLOCKS_DIFFER_MS = 60_000


@dataclass(frozen=True, slots=True)
class DeliveryOptions(DeskOptions):
    """Options of a command that selects rejected callbacks.

    ``retarget``: whether each gets a new body for the present settings, and a new id.
    """

    known_reasons = (*DELIVERABLE, *UNDELIVERABLE)
    names = DELIVERY_NAMES

    retarget: bool = False


class Explained(NamedTuple):
    """Explanation of a rejected callback, with its body; None: the value is no callback."""

    explanation: DeliveryExplanation
    body: bytes | None


class DeliveryDesk(RecordDesk[DeliveryOptions, RejectedCallback]):
    """See the module docstring.

    Args:
        settings: of the campaign workers.

    Raises:
        BrokerError: a topic or a right is missing, or Kafka cannot be reached.
        SettingsError: the settings of the schema registry cannot work.
        RegistryError: the registry does not answer, or lacks a schema.
    """

    states = DeliveryState

    def __init__(self, settings: Settings) -> None:
        topics = settings.topics
        super().__init__(settings, topics.callbacks_rejected, topics.callbacks, rights=deliveries_desk_rights(settings))
        self._limits = max_message_bytes(settings, [topics.callbacks])
        # Earlier settings may have had more retry topics than the present ones.
        self._campaigns = frozenset((topics.callbacks, *topics.retries()))
        self._reader = self._framing.reader(SchemaFile.CAMPAIGN_CALLBACK)
        self._writer = self._framing.writer(SchemaFile.CAMPAIGN_CALLBACK, (topics.callbacks,))
        self._target: Target | None = None
        self._receipts = self._framing.reader(SchemaFile.CALLBACK_RECEIPT)

    def parse(self, record: SourceRecord) -> RejectedCallback:
        return parse_rejected_callback(record, self._reader, self._campaigns)

    def state(self, found: RejectedCallback, action: str | None, options: DeliveryOptions) -> DeliveryState:  # noqa: ARG002
        return delivery_state(action)

    def publishing_judge(self, selected: DeskFilter[RejectedCallback], options: DeliveryOptions) -> Redelivery:
        topic = self._settings.topics.callbacks
        return Redelivery(
            selected,
            callbacks=topic,
            campaigns=self._campaigns,
            encode=lambda callback: self._writer.encode(callback_value(callback)),
            fits=lambda output: not too_large(OutRecord(*output), self._limits[topic]),
            forwarded=forwarded_headers,
            rebuild=self._retarget() if options.retarget else None,
        )

    def _retarget(self) -> Retarget:
        if self._target is None:
            self._target = build_target(self._settings)
        topic = self._settings.topics.scores
        partitions = check_topics(self._settings, [topic])[topic]
        return Retarget(self._log, topic, partitions, self._framing.reader(SchemaFile.CONTACT_SCORE), self._target)

    def waiting_held(self) -> dict[str, int]:
        """Return the number of held callbacks in each retry topic that has some.

        Raises:
            BrokerError: as `waiting_in`.
        """
        settings = self._settings
        return self.waiting_in(
            settings.topics.retries(), settings.delivery_group_id, lambda record: is_held(record.headers)
        )

    def held(self, options: DeliveryOptions) -> Iterator[HeldCallback]:
        """Yield the held callbacks that are selected.

        Raises:
            BrokerError: as `uncommitted`.
        """
        settings = self._settings
        selected = DeskFilter(
            options.records(current_ms()), frozenset(options.reasons), options.expression(), self._parse_held
        )
        records = self.uncommitted(settings.topics.retries(), settings.delivery_group_id)
        found = (selected.read(one.as_source_record(topic)) for topic, one in records)
        yield from islice((one for one in found if one is not None), options.limit)

    def held_counts(self, options: DeliveryOptions, by: GroupBy) -> RecordCounts:
        """Count the held callbacks that are selected, by default by why they are held."""
        counts = RecordCounts(by, ())
        for one in self.held(options):
            counts.add(one.record, reason=one.detail, campaign=one.campaign)
        return counts

    def not_found(self, options: DeliveryOptions) -> str:
        try:
            count = sum(1 for _ in self.held(options))
        except BrokerError:
            count = 0
        if count:
            return f"no record of {self.topic} is selected, and {not_decided_text(count)}"
        return super().not_found(options)

    def _parse_held(self, record: SourceRecord) -> HeldCallback | None:
        if not is_held(record.headers):
            return None
        try:
            callback = read_callback(self._reader, record)
        except UndecodableError:
            return None
        return HeldCallback(record, callback, misfit(self._settings, callback))

    def explanations(self, options: DeliveryOptions) -> Iterator[Explained]:
        """Yield an explanation of each selected record, each partition's in order.

        The records are read twice, so that their bodies are not all in memory while the receipts are read.
        """
        now_ms, decided = current_ms(), self.decided()
        planned_ms: dict[str, int] = {}
        for rejected, callback in self.matching(options, now_ms):
            if callback is None:
                continue
            for callback_id in filter(None, (callback.callback_id, _retargeted_id(callback, rejected.record, decided))):
                # A callback that was delivered again has a record for each delivery.
                earlier_ms = planned_ms.get(callback_id, callback.planned_at_ms)
                planned_ms[callback_id] = min(earlier_ms, callback.planned_at_ms)
        receipts = self._receipts_of(planned_ms)
        for found in self.matching(options, now_ms):
            rejected, callback = found
            state = self.state(found, decided.action(rejected.record.source), options)
            if callback is None:
                yield Explained(explain_delivery(rejected, None, None, state=state, receipts=()), None)
                continue
            new_id = _retargeted_id(callback, rejected.record, decided)
            explanation = explain_delivery(
                rejected,
                callback,
                misfit(self._settings, callback),
                state=state,
                receipts=[*receipts[callback.callback_id], *(receipts[new_id] if new_id else ())],
                retargeted_id=new_id,
            )
            yield Explained(explanation, callback.body)

    def _receipts_of(self, planned_ms: Mapping[str, int]) -> defaultdict[str, list[ReceiptFact]]:
        """Return the receipts of these callbacks since the earliest of their plans, by callback id."""
        found: defaultdict[str, list[ReceiptFact]] = defaultdict(list)
        if not planned_ms:
            return found
        keys = {callback_id.encode() for callback_id in planned_ms}
        since_ms = max(0, min(planned_ms.values()) - _CLOCKS_DIFFER_MS)
        selection = RecordFilter(since=Bound(time_ms=since_ms))
        for record in TopicScan(self._settings, self._settings.topics.receipts, selection).records():
            if record.key not in keys:
                continue
            try:
                fields = self._receipts.decode(record.value)
            except UndecodableError:
                continue
            decision = next((value for name, value in record.headers if name == DECISION_HEADER), None) or b""
            found[fields["callback_id"]].append(
                ReceiptFact(
                    fields["outcome"],
                    len(fields["sources"]),
                    fields["attempts"],
                    fields["http_status"],
                    fields["finished_at"],
                    decision.decode(errors="replace"),
                )
            )
        return found


def _retargeted_id(callback: Callback, record: SourceRecord, decided: DecidedRecords) -> str:
    """Return the id that a decision gave to a rejected callback; empty: none did."""
    decision_id = decided.retargeted_by(record.source)
    return "" if decision_id is None else retargeted_id(callback, decision_id)
