"""Publisher of committable batches: one transaction with their records, their audit events and their offsets.

There are two kinds of failure. If the broker rejects single records, those contacts become ``unpublishable`` and the
rest is published. If it rejects most records of a transaction, or one record of a topic after the other, no contact is
rejected for it: the transaction is divided, and the smallest one is repeated unchanged. If the transaction failed or
its outcome is unknown, ``kafka.producer.committer`` resolves it, and outcomes above the committed offsets are published
again. No contact is scored twice for it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from stream_scorer.core.audit.events import AuditChain, build_events
from stream_scorer.core.scoring.types import Deferred, Outcome, Reason, Rejected, Scored, Skipped
from stream_scorer.kafka.producer.committer import Committer
from stream_scorer.kafka.producer.records import Committed, OutRecord, RecordsRejected
from stream_scorer.runtime.output_writer import OutputWriter

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.exactly_once.offset_ledger import CommittableBatch
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
    from stream_scorer.kafka.producer.sink import TransactionalSink
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.scoring.observer import Observer
    from stream_scorer.scoring.output_records import Encoder
    from stream_scorer.scoring.ports import OutcomeLedger, Trace

_MAX_OUTCOMES = 16_000
# So many records of a topic may be rejected one by one before one is accepted again: then the topic is the cause.
_MAX_REFUSED_IN_ROW = 3


class Publisher(OutputWriter[Outcome | Skipped]):
    """See the module docstring. Owned by the worker's thread."""

    def __init__(
        self,
        *,
        sink: TransactionalSink,
        group: GroupConsumer,
        ledger: OutcomeLedger,
        encoder: Encoder,
        audit_topic: str,
        audit_codec: Codec,
        model_id: str,
        model_version: str | None,
        commit_interval_s: float,
        clock: Clock,
        observe: Observer,
        trace: Trace,
        retry_topics: Collection[str] = (),
    ) -> None:
        committer = Committer(
            sink=sink,
            group=group,
            ledger=ledger,
            max_outcomes=_MAX_OUTCOMES,
            monotonic=clock.monotonic,
            observe=observe,
            on_session=self._start_audit_chain,
            renewed_topics=retry_topics,
        )
        super().__init__(committer=committer, ledger=ledger, clock=clock, commit_interval_s=commit_interval_s)
        self._encoder = encoder
        self._audit_topic = audit_topic
        self._audit_codec = audit_codec
        self._model_id = model_id
        self._model_version = model_version
        self._observe = observe
        self._trace = trace
        self._chain = AuditChain("", audit_codec)
        self._refused_in_row: Counter[str] = Counter()

    def _write(self, batches: list[CommittableBatch[Outcome | Skipped]]) -> bool:
        outcomes = [outcome for batch in batches for outcome in batch.outcomes if not isinstance(outcome, Skipped)]
        events, batch_ids = build_events(
            outcomes,
            model_id=self._model_id,
            model_version=self._model_version,
            new_batch_id=self._clock.new_id,
            now_ms=self._clock.unix_ms(),
        )
        records = [self._encoder.encode(o, b) for o, b in zip(outcomes, batch_ids, strict=True)]
        oversized = [
            outcome
            for outcome, record in zip(outcomes, records, strict=True)
            if not isinstance(outcome, Rejected) and self._encoder.too_large(record)
        ]
        if oversized:
            self._reject_records(oversized, "the record is too large for its topic")
            return self.flush()
        plan = self._chain.plan(events)
        records += [OutRecord(self._audit_topic, self._chain.key, value, []) for value in plan.values]
        self._trace.committing()
        publication = self._committer.commit(
            batches, records, lambda committed: self._committed(committed, records=len(records))
        )
        if isinstance(publication, Committed):
            self._chain.confirm(plan)
            self._observe.audit_chain_length(plan.next_sequence)
            for topic in {record.topic for record in records}:
                self._refused_in_row.pop(topic, None)
            return True
        if isinstance(publication, RecordsRejected) and self._handle_refusal(publication.errors, outcomes, records):
            # This head is tried again unchanged: those of the other partitions must not wait for it.
            self._ledger.put_last(batch.partition for batch in batches)
        return False

    def _committed(self, committed: list[Outcome | Skipped], *, records: int) -> None:
        outcomes = [outcome for outcome in committed if not isinstance(outcome, Skipped)]
        self._trace.committed(outcomes)
        if outcomes:  # otherwise all records read belong to other groups
            self._observe.published(outcomes, records=records)

    def _handle_refusal(self, errors: Mapping[int, str], outcomes: list[Outcome], records: Sequence[OutRecord]) -> bool:
        """Reject the contact whose record is refused alone, or halve the transaction; return whether commits wait."""
        index, message = next(iter(errors.items()))
        if len(errors) > 1:
            # Several rejected timestamps in one batch are reported like this, too: no contact is at fault.
            cause: str | None = _most_refused(errors, len(records))
        elif index >= len(outcomes):
            cause = f"topic {self._audit_topic} refuses an audit event: {message}"
        else:
            cause = self._cause_beyond_contact(outcomes[index], records[index].topic, message)
        if cause is None:
            self._reject_records([outcomes[index]], message)
            return False
        if len(outcomes) > 1:
            # The broker rejects a whole record batch for one record: halving isolates it. It also makes an audit event
            # smaller, and lets what the cause does not concern pass.
            self._committer.bounds.halve_outcomes(len(outcomes))
            return False
        self._committer.suspend(cause)
        return True

    def _cause_beyond_contact(self, outcome: Outcome, topic: str, message: str) -> str | None:
        """Return why a record that is refused alone is not the fault of its contact; None: the contact is rejected."""
        if isinstance(outcome, Rejected):
            record = outcome.record
            place = f"{record.topic}/{record.partition}/{record.offset}"
            return f"{topic} refuses the rejection of {place}: {message}" if outcome.truncated else None
        self._refused_in_row[topic] += 1
        if self._refused_in_row[topic] <= _MAX_REFUSED_IN_ROW:
            return None
        return (
            f"topic {topic} has refused {_MAX_REFUSED_IN_ROW} records in a row, so no further contact is rejected for"
            f" it: {message}; check the topic's validation, policies and limits"
        )

    def _reject_records(self, outcomes: Sequence[Outcome], message: str) -> None:
        """Reject contacts whose records the broker rejects; truncate a rejection that the broker rejects."""
        self._observe.records_rejected([(outcome, _contact_id(outcome)) for outcome in outcomes])
        for outcome in outcomes:
            if isinstance(outcome, Rejected):
                replaced = outcome._replace(rejected_at_ms=self._clock.unix_ms(), api_status=None, truncated=True)
            else:
                what = "its record in the retry topic" if isinstance(outcome, Deferred) else "the record itself"
                replaced = Rejected(
                    outcome.record,
                    (Reason.UNPUBLISHABLE.value,),
                    f"the broker refuses {what}: {message}",
                    _contact_id(outcome),
                    self._clock.unix_ms(),
                    request=outcome.request,
                    event_id=outcome.contact.event_id if isinstance(outcome, Scored) else outcome.event_id,
                    features_hash=outcome.contact.features_hash
                    if isinstance(outcome, Scored)
                    else outcome.features_hash,
                )
            self._ledger.replace(replaced)

    def _start_audit_chain(self) -> None:
        """Start a new audit chain for a new producer: only confirmed commits are linked."""
        self._chain = AuditChain(self._clock.new_id(), self._audit_codec)
        self._observe.audit_chain_length(0)


def _most_refused(errors: Mapping[int, str], records: int) -> str:
    message = next(iter(errors.values()))
    return (
        f"the broker refuses {len(errors)} of {records} records of a transaction, so no contact is rejected for it:"
        f" {message}; check the clocks of this machine and of the brokers, and the limits of the output topics"
    )


def _contact_id(outcome: Outcome) -> str:
    return outcome.contact.contact_id if isinstance(outcome, Scored) else outcome.contact_id
