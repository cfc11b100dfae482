"""Publishes finished heads: one transaction with their records, their audit events and their offsets.

What can go wrong ends in one of two ways. The broker refuses records themselves: those contacts become
``unpublishable`` and the rest is published. Or the transaction failed, or nobody knows how it ended: a new producer is
made, the committed offsets settle what happened, and what they do not cover is published again. Nothing is scored twice
for it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from confluent_kafka import TopicPartition

from stream_scorer.core.auditing import AuditChain, build_events
from stream_scorer.core.events import Outcome, Reason, Rejected, Scored
from stream_scorer.errors import BrokerUnavailable, ProducerFenced
from stream_scorer.kafka.sink import Committed, Failed, OutRecord, RecordsRefused
from stream_scorer.kafka.source import start_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from stream_scorer.core.avro import Codec
    from stream_scorer.core.events import Partition
    from stream_scorer.core.ledger import Head, Ledger
    from stream_scorer.kafka.sink import Publication
    from stream_scorer.scoring.clock import Clock
    from stream_scorer.scoring.encoding import Encoder
    from stream_scorer.scoring.observing import Observer

_MAX_OUTCOMES = 16_000
_FENCED_LIMIT = 3
_FENCED_WINDOW_S = 300.0
_REOPEN_S = 1.0


class Sink(Protocol):
    """See ``kafka.sink.TransactionalSink``."""

    @property
    def is_open(self) -> bool:
        """Whether a session can be used."""

    def open(self) -> Failed | None:
        """Makes a new session."""

    def publish(self, records: list[OutRecord], offsets: list[TopicPartition], group: Any) -> Publication:
        """Runs one transaction."""


class Group(Protocol):
    """What is needed of the consumer here; see ``kafka.source.Source``."""

    def group_metadata(self) -> Any | None:
        """The group's generation; None where we are no member."""

    def committed(self, partitions: list[Partition]) -> Mapping[Partition, int]:
        """The committed offsets."""


class Publisher:
    """See the module's text. Owned by the worker's thread."""

    def __init__(
        self,
        *,
        sink: Sink,
        group: Group,
        ledger: Ledger,
        encoder: Encoder,
        audit_topic: str,
        audit_codec: Codec,
        model_id: str,
        model_version: str | None,
        commit_interval_s: float,
        clock: Clock,
        observe: Observer,
    ) -> None:
        self._sink = sink
        self._group = group
        self._ledger = ledger
        self._encoder = encoder
        self._audit_topic = audit_topic
        self._audit_codec = audit_codec
        self._model_id = model_id
        self._model_version = model_version
        self._commit_interval_s = commit_interval_s
        self._clock = clock
        self._observe = observe
        self._chain = AuditChain("", audit_codec)
        self._fenced_at: deque[float] = deque(maxlen=_FENCED_LIMIT)
        self._published_at = 0.0
        self._retry_at = 0.0
        self._settled = False
        self._max_outcomes = _MAX_OUTCOMES
        self.trouble: str | None = None
        self.is_stale = False

    def publish_due(self) -> None:
        """Publishes the finished heads if it is time to."""
        now = self._clock.monotonic()
        if now < self._retry_at:
            return
        if self.trouble is not None and not self._ready():
            return
        if now - self._published_at >= self._commit_interval_s or self._max_outcomes < _MAX_OUTCOMES:
            self.publish()

    def publish(self) -> bool:
        """Publishes the finished heads now. Returns False where that was not possible.

        Raises:
            ProducerFenced: three times in five minutes another producer took over our transactional id.
        """
        if not self._ledger.has_finished_head():
            return True
        if self._clock.monotonic() < self._retry_at or not self._ready():
            return False
        heads = self._ledger.heads(self._max_outcomes)
        if not heads:
            return True
        return self._transact(heads)

    def open(self) -> bool:
        """Makes sure of a usable producer session before there is anything to publish. Returns whether it is there.

        A predecessor with the same transactional id may have left a transaction open; this ends it, so that its offsets
        can be read.
        """
        return self._ready()

    # --- one transaction

    def _transact(self, heads: list[Head]) -> bool:
        outcomes = [outcome for head in heads for outcome in head.outcomes]
        events, batch_ids = build_events(
            outcomes,
            model_id=self._model_id,
            model_version=self._model_version,
            new_batch_id=self._clock.new_id,
            now_ms=self._clock.unix_ms(),
        )
        records = [self._encoder.encode(o, b) for o, b in zip(outcomes, batch_ids, strict=True)]
        oversized = {
            index: "the record is too large for its topic"
            for index, (outcome, record) in enumerate(zip(outcomes, records, strict=True))
            if isinstance(outcome, Scored) and self._encoder.too_large(record)
        }
        if oversized:
            self._set_aside(outcomes, oversized)
            return self.publish()
        plan = self._chain.plan(events)
        records += [OutRecord(self._audit_topic, self._chain.key, value, []) for value in plan.values]
        offsets = [
            TopicPartition(
                head.partition.topic, head.partition.number, head.next_offset, start_metadata(head.start_offset)
            )
            for head in heads
        ]
        if not all(self._ledger.owns(head) for head in heads):
            raise AssertionError("a head was to be published whose assignment has ended")
        group = self._group.group_metadata()
        if group is None:
            publication: Publication = Failed("the worker was thrown out of its group", stale=True)
        else:
            publication = self._sink.publish(records, offsets, group)
        return self._conclude(publication, heads, outcomes, plan)

    def _conclude(self, publication: Publication, heads: list[Head], outcomes: list[Outcome], plan: Any) -> bool:
        now = self._clock.monotonic()
        self._observe.transaction(publication)
        match publication:
            case Committed():
                self._chain.confirm(plan)
                self._ledger.confirm(heads)
                self._observe.published(outcomes, records=len(outcomes) + len(plan.values))
                self._published_at = now
                self._max_outcomes = min(_MAX_OUTCOMES, 2 * self._max_outcomes)
                return True
            case RecordsRefused(errors):
                self._settled = False
                refused = {index: message for index, message in errors.items() if index < len(outcomes)}
                if len(outcomes) > 1 and len(errors) > 1:
                    # The broker refuses a whole batch of records for one of them: halving finds out which.
                    self._max_outcomes = len(outcomes) // 2
                elif refused and not _is_bare(outcomes[next(iter(refused))]):
                    self._set_aside(outcomes, refused)
                else:
                    self._trouble(self._refusal(errors, outcomes), now)
                return False
            case Failed():
                self._settled = False
                self._on_failure(publication, now)
                return False

    def _refusal(self, errors: Mapping[int, str], outcomes: list[Outcome]) -> str:
        """What the operator has to look at, where a topic refuses what it has to take."""
        index, message = next(iter(errors.items()))
        if index >= len(outcomes):
            return f"topic {self._audit_topic} refuses an audit event: {message}"
        record = outcomes[index].record
        return f"topics.rejected refuses the rejection of {record.topic}/{record.partition}/{record.offset}: {message}"

    def _set_aside(self, outcomes: list[Outcome], errors: Mapping[int, str]) -> None:
        """Contacts whose own record cannot be written are rejected; a rejection that cannot be, loses its payload."""
        for index, message in errors.items():
            outcome = outcomes[index]
            contact_id = outcome.contact.contact_id if isinstance(outcome, Scored) else outcome.contact_id
            reasons = (Reason.UNPUBLISHABLE.value,) if isinstance(outcome, Scored) else outcome.reasons
            detail = f"the broker refuses the record itself: {message}"
            self._ledger.replace(
                Rejected(
                    outcome.record,
                    reasons,
                    detail if isinstance(outcome, Scored) else outcome.detail,
                    contact_id,
                    self._clock.unix_ms(),
                    request=outcome.request,
                    truncated=isinstance(outcome, Rejected),
                )
            )

    # --- a usable producer session, everything unknown settled

    def _ready(self) -> bool:
        now = self._clock.monotonic()
        if not self._sink.is_open:
            failed = self._sink.open()
            if failed is not None:
                self._on_failure(failed, now)
                return False
            self._chain = AuditChain(self._clock.new_id(), self._audit_codec)
        if not self._settled:
            try:
                self._ledger.settle(self._group.committed(self._ledger.partitions))
            except BrokerUnavailable as error:
                self._trouble(str(error), now)
                return False
            self._settled = True
        if self.trouble is not None:
            self.trouble = None
            self._observe.kafka_trouble(None)
        self.is_stale = False
        return True

    def _on_failure(self, failed: Failed, now: float) -> None:
        self._trouble(failed.message, now)
        self.is_stale = failed.stale
        if not failed.fenced:
            return
        self._fenced_at.append(now)
        if len(self._fenced_at) == _FENCED_LIMIT and now - self._fenced_at[0] <= _FENCED_WINDOW_S:
            raise ProducerFenced(
                "another running worker uses the same transactional id and fenced this one three times in five "
                "minutes: give every worker a `kafka.instance_id` of its own"
            )

    def _trouble(self, message: str, now: float) -> None:
        self.trouble = message
        self._retry_at = now + _REOPEN_S
        self._observe.kafka_trouble(message)


def _is_bare(outcome: Outcome) -> bool:
    """Whether nothing is left that could be taken off an outcome's record to make the broker accept it."""
    return isinstance(outcome, Rejected) and outcome.truncated
