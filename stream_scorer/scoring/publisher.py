"""Publisher of committable batches: one transaction with their records, their audit events and their offsets.

There are two kinds of failure. If the broker rejects single records, those contacts become ``unpublishable`` and the
rest is published. If it rejects most records of a transaction, no contact is rejected for it: the transaction is
divided, and the smallest one is repeated unchanged. If the transaction failed or its outcome is unknown,
``kafka.producer.committer`` resolves it, and outcomes above the committed offsets are published again. No contact is
scored twice for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_scorer.core.audit.events import AuditChain, build_events
from stream_scorer.core.records import Deferred, Outcome, Reason, Rejected, Scored, Skipped
from stream_scorer.kafka.producer.committer import Committer
from stream_scorer.kafka.producer.records import Committed, OutRecord, RecordsRejected
from stream_scorer.runtime.output_writer import OutputWriter

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.exactly_once.offset_ledger import CommittableBatch
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
    from stream_scorer.kafka.producer.records import Publication
    from stream_scorer.kafka.producer.sink import TransactionalSink
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.scoring.observer import Observer
    from stream_scorer.scoring.output_records import Encoder
    from stream_scorer.scoring.ports import OutcomeLedger, Trace

_MAX_OUTCOMES = 16_000


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
        oversized = {
            index: "the record is too large for its topic"
            for index, (outcome, record) in enumerate(zip(outcomes, records, strict=True))
            if not isinstance(outcome, Rejected) and self._encoder.too_large(record)
        }
        if oversized:
            self._reject_records(outcomes, oversized)
            return self.flush()
        plan = self._chain.plan(events)
        records += [OutRecord(self._audit_topic, self._chain.key, value, []) for value in plan.values]
        self._trace.committing()
        publication = self._committer.commit(
            batches, records, lambda committed: self._committed(committed, records=len(records))
        )
        return self._conclude(publication, outcomes, plan, len(records))

    def _committed(self, committed: list[Outcome | Skipped], *, records: int) -> None:
        outcomes = [outcome for outcome in committed if not isinstance(outcome, Skipped)]
        self._trace.committed(outcomes)
        if outcomes:  # otherwise all records read belong to other groups
            self._observe.published(outcomes, records=records)

    def _conclude(self, publication: Publication, outcomes: list[Outcome], plan: Any, records: int) -> bool:
        match publication:
            case Committed():
                self._chain.confirm(plan)
                self._observe.audit_chain_length(plan.next_sequence)
                return True
            case RecordsRejected(errors):
                refused = {index: message for index, message in errors.items() if index < len(outcomes)}
                if len(outcomes) > 1 and (len(errors) > 1 or not refused):
                    # The broker rejects a whole record batch for one record: halving isolates it. It also makes an
                    # audit event smaller.
                    self._committer.bounds.halve_outcomes(len(outcomes))
                elif len(errors) > 1:
                    # Several rejected timestamps in one batch are reported like this, too: no contact is at fault.
                    self._committer.suspend(_most_refused(errors, records))
                elif refused and not _is_bare(outcomes[next(iter(refused))]):
                    self._reject_records(outcomes, refused)
                else:
                    self._committer.suspend(self._refusal(errors, outcomes))
                return False
            case _:
                return False

    def _refusal(self, errors: Mapping[int, str], outcomes: list[Outcome]) -> str:
        """Return which topic rejects which record, for the operator."""
        index, message = next(iter(errors.items()))
        if index >= len(outcomes):
            return f"topic {self._audit_topic} refuses an audit event: {message}"
        record = outcomes[index].record
        return f"topics.rejected refuses the rejection of {record.topic}/{record.partition}/{record.offset}: {message}"

    def _reject_records(self, outcomes: list[Outcome], errors: Mapping[int, str]) -> None:
        """Reject contacts whose record the broker rejects; truncate a rejection that the broker rejects."""
        self._observe.records_rejected([(outcomes[index], _contact_id(outcomes[index])) for index in errors])
        for index, message in errors.items():
            outcome = outcomes[index]
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
                    features_hash=(
                        outcome.contact.features_hash if isinstance(outcome, Scored) else outcome.features_hash
                    ),
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


def _is_bare(outcome: Outcome) -> bool:
    """Return whether an outcome's record is already as small as possible."""
    return isinstance(outcome, Rejected) and outcome.truncated
