"""Writes transactions: the records of finished contacts together with the input offsets they finish, or neither.

One producer session publishes until anything at all goes wrong; then it is thrown away and a new one is made, which
fences the old and settles what it left open. Why nothing is patched up:

- After an aborted transaction the next good one aborts too (``OUT_OF_ORDER_SEQUENCE_NUMBER``).
- A commit that timed out may have happened; aborting it then fails. The same call is repeated, which is safe; when its
  time is up, only a new ``init_transactions`` and the committed offsets say what became of it.
- librdkafka has no KIP-890: an EndTxn that the broker gets late can end the *next* transaction. So a session in which a
  request timed out, or an end took nearly as long as a socket time-out, is not used again even though it succeeded.
- A session that has lost all brokers hangs in its next transaction. If that one is aborted, what Kafka confirmed before
  can be hidden.
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

_FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH})  # noqa: SLF001 - its public name
# Of both group protocols; the epochs are those of KIP-848.
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
    """Owned by one thread, like the consumer.

    Args:
        config: the producer's librdkafka properties, ``transactional.id`` among them.
        monotonic: clock in seconds.
        commit_budget_s: how long a commit is repeated before its outcome counts as unknown.
        late_s: a commit that took longer makes the session suspect (0.9 of ``socket.timeout.ms``).
        own_timeout_s: a transaction that took longer than this may have been ended by the broker's own time-out.
        in_time_s: a transaction that failed after more than this may have failed for its size.
        on_refused: called when the broker refused records, before the next session: the topics' limits may be others by
            now. It may change ``config``.
        why_denied: says which right is missing, with whom and what to do; None: it cannot say. Told the client's error.
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
        """Whether a session is there that may be used, by the client's latest reports. If not, ``open`` makes one."""
        if self._session is not None:
            self._session.poll()
        return self._session is not None and not self._session.is_suspect

    def open(self) -> Failed | None:
        """Makes a new session, or goes on making it; returns why it is not there yet, or None once it is."""
        self.discard_session()
        if self._opening is None:
            try:
                self._opening = ProducerSession(self._config, self._commit_budget_s)
            except StreamScorerError as error:  # the settings were good at the start: a file is being changed, maybe
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
        # Not within the handler: see `publish`.
        if kafka_error is None or not kafka_error.retriable():
            self._opening = None
            opening.dispose()
        return failed

    def publish(self, records: Sequence[OutRecord], offsets: list[TopicPartition], group: Any) -> Publication:
        """Writes the records and commits the offsets in one transaction, or makes nothing visible.

        ``group`` is the consumer's group metadata: it carries the generation, so that a worker that was thrown out of
        its group without knowing cannot commit.
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
            if session.is_suspect or commit_s >= self._late_s:
                self.discard_session()
            took_s = self._monotonic() - began_at
            return Committed(took_s - commit_s, commit_s, slow=2 * took_s > self._in_time_s)
        # Not within the handler: an error holds the client by its traceback, and who lets go last waits for its end.
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
            # It took so long that the broker itself may have ended the transaction: nobody else fenced us.
            failed = replace(failed, fenced=False)
        return replace(failed, late=took_s > self._in_time_s)

    def discard_session(self) -> None:
        """Ends the session. What it left open is aborted by the next ``open``, or by the broker's time-out."""
        session, self._session = self._session, None
        if session is not None:
            session.dispose()

    def close(self) -> None:
        """Ends the session, and one that is still being made."""
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
        return Failed(f"{kafka_error.name()}: {kafka_error.str()}", fenced=code in _FENCED, stale=code in _STALE)

    def _abandon(self, session: ProducerSession, publication: Publication) -> Publication:
        session.abort()
        self.discard_session()
        if isinstance(publication, RecordsRejected):
            self._on_refused()
        return publication
