"""Transactional sink: output records and the offsets of their inputs in one transaction, or neither.

A producer session is used until the first failure. Then it is discarded, and a new one fences it and ends its open
transaction. No session is repaired, because:

- After an aborted transaction the next good one aborts too (``OUT_OF_ORDER_SEQUENCE_NUMBER``).
- A commit that timed out may have succeeded; aborting it then fails. The same call is repeated, which is safe. After
  its budget only a new ``init_transactions`` and the committed offsets show the outcome.
- librdkafka has no KIP-890: an EndTxn that reaches the broker late can end the *next* transaction. So a session is
  discarded after a request that timed out, or an end of nearly a socket time-out, even if it succeeded.
- A session that has lost all brokers hangs in its next transaction. If that one is aborted, records that Kafka has
  confirmed before can be hidden.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError

from stream_scorer.errors import StreamScorerError
from stream_scorer.kafka.admin.acls import DENIALS
from stream_scorer.kafka.client.blocking_calls import CallTimedOutError
from stream_scorer.kafka.client.errors import translate
from stream_scorer.kafka.producer.records import Committed, Failed, RecordsRejected
from stream_scorer.kafka.producer.transactional_producer import CLIENT_ERRORS, ProducerSession, kafka_error_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import TopicPartition

    from stream_scorer.kafka.producer.records import OutRecord, Publication

FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH})  # noqa: SLF001 - its public name
# Of both group protocols; member epochs are KIP-848's.
_STALE = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.STALE_MEMBER_EPOCH,
    }
)
_WRONG_CLOCK = str(translate(KafkaError(KafkaError.INVALID_TIMESTAMP), "writing a transaction"))


class TransactionalSink:
    """Sink of transactions, with one producer session at a time. Owned by one thread, like the consumer.

    Args:
        config: the producer's librdkafka properties, with ``transactional.id``.
        monotonic: monotonic seconds.
        commit_budget_s: how long a commit is repeated before its outcome counts as unknown.
        late_s: a commit that took longer makes the session suspect (0.9 of ``socket.timeout.ms``).
        own_timeout_s: a transaction that took longer than this may have been ended by the broker's own time-out.
        in_time_s: a transaction that failed after more than this may have failed for its size.
        on_refused: called after the broker rejected records, before the next session, since the topics' limits may have
            changed. It may change ``config``.
        why_denied: returns one line with the missing right, principal and remedy for a client's error; None: unknown.
    """

    def __init__(
        self,
        config: dict[str, Any],
        *,
        monotonic: Callable[[], float],
        commit_budget_s: float,
        late_s: float,
        own_timeout_s: float,
        in_time_s: float,
        on_refused: Callable[[], None],
        why_denied: Callable[[KafkaError], str | None] = lambda _: None,
    ) -> None:
        self._config = config
        self._why_denied = why_denied
        self._monotonic = monotonic
        self._commit_budget_s = commit_budget_s
        self._late_s = late_s
        self._own_timeout_s = own_timeout_s
        self._in_time_s = in_time_s
        self._on_refused = on_refused
        self._session: ProducerSession | None = None
        self._opening: ProducerSession | None = None

    @property
    def is_open(self) -> bool:
        """Whether a session exists that is usable by the client's latest reports. If not, ``open`` creates one."""
        if self._session is not None:
            self._session.poll()
        return self._session is not None and not self._session.unsafe_to_reuse

    def open(self) -> Failed | None:
        """Open a new session, or continue to; return why it is not open yet, None once it is."""
        self.discard_session()
        if self._opening is None:
            try:
                self._opening = ProducerSession(self._config, self._commit_budget_s)
            except StreamScorerError as error:  # the settings were valid at the start: a file may be changing right now
                return Failed(str(error))
        opening = self._opening
        try:
            opening.init()
        except (CallTimedOutError, *CLIENT_ERRORS) as error:
            kafka_error = kafka_error_of(error)
            failed = self._failed(error, opening)
        else:
            self._session, self._opening = opening, None
            return None
        # Outside the handler: see `publish`.
        if kafka_error is None or not kafka_error.retriable():
            self._opening = None
            opening.dispose()
        return failed

    def publish(self, records: Sequence[OutRecord], offsets: list[TopicPartition], group: Any) -> Publication:
        """Write the records and commit the offsets in one transaction, or make nothing visible.

        ``group`` is the consumer's group metadata. It carries the generation, so that a worker that was removed from
        its group without notice cannot commit.
        """
        session = self._session
        if session is None:
            return Failed("no producer session")
        began_at = self._monotonic()
        try:
            session.write(records)
            if session.refused:
                return self._abandon(session, RecordsRejected(dict(session.refused)))
            commit_s = session.commit(offsets, group)
        except (CallTimedOutError, *CLIENT_ERRORS) as error:
            given_up = self._abandon_reason(error, session, began_at)
        else:
            if session.unsafe_to_reuse or commit_s >= self._late_s:
                self.discard_session()
            took_s = self._monotonic() - began_at
            return Committed(took_s - commit_s, commit_s, slow=2 * took_s > self._in_time_s)
        # Outside the handler: the traceback of an error holds the client, and its last holder waits for its
        # destruction.
        return self._abandon(session, given_up)

    def _abandon_reason(self, error: BaseException, session: ProducerSession, began_at: float) -> Publication:
        session.flush_delivery_reports()
        if session.is_timestamp_rejected(error):
            return Failed(_WRONG_CLOCK)
        if session.refused:
            return RecordsRejected(dict(session.refused))
        failed = self._failed(error, session)
        took_s = self._monotonic() - began_at
        if took_s > self._own_timeout_s:
            # Longer than the broker's time-out for transactions: the broker itself may have fenced the session.
            failed = replace(failed, fenced=False)
        return replace(failed, late=took_s > self._in_time_s)

    def discard_session(self) -> None:
        """Discard the session. Its open transaction is aborted by the next ``open``, or by the broker's time-out."""
        session, self._session = self._session, None
        if session is not None:
            session.dispose()

    def close(self) -> None:
        """Discard the session, and one that is being opened."""
        self.discard_session()
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.dispose()

    def _failed(self, error: BaseException, session: ProducerSession) -> Failed:
        kafka_error = kafka_error_of(error)
        if kafka_error is None or kafka_error.code() == KafkaError._FATAL:  # noqa: SLF001 - its public name
            kafka_error = session.fatal_error_of() or kafka_error
        denied = session.denied or kafka_error
        if denied is not None and denied.code() in DENIALS:
            return Failed(self._why_denied(denied) or f"{denied.name()}: {denied.str()}", denied=True)
        if kafka_error is None:
            return Failed(str(error))
        code = kafka_error.code()
        return Failed(f"{kafka_error.name()}: {kafka_error.str()}", fenced=code in FENCED, stale=code in _STALE)

    def _abandon(self, session: ProducerSession, publication: Publication) -> Publication:
        session.abort()
        self.discard_session()
        if isinstance(publication, RecordsRejected):
            self._on_refused()
        return publication
