"""Writes transactions: the records of finished contacts together with the input offsets they finish, or neither.

One producer session (a ``Producer`` after ``init_transactions``) publishes until anything at all goes wrong; then it is
thrown away and a new one is made, which fences the old and settles what it left open. Why nothing is patched up:

- After an aborted transaction the next good one aborts too (``OUT_OF_ORDER_SEQUENCE_NUMBER``).
- A commit that timed out may have happened; aborting it then fails. The same call is repeated, which is safe; when its
  time is up, only a new ``init_transactions`` and the committed offsets say what became of it.
- librdkafka has no KIP-890: an EndTxn that the broker gets late can end the *next* transaction. So a session in which a
  request timed out, or an end took nearly as long as a socket time-out, is not used again even though it succeeded.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Producer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confluent_kafka import Message, TopicPartition

    from stream_scorer.core.events import Headers

# What a delivery report says of a record itself; everything else is about the cluster and holds.
RECORD_ERRORS = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
    }
)
_FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH})  # noqa: SLF001 - its public name
_STALE = frozenset({KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_INSTANCE_ID})
_CALL_S = 1.0
_ABORT_S = 2.0


class OutRecord(NamedTuple):
    """A record to be written."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Committed:
    """The broker confirmed the transaction."""


@dataclass(frozen=True, slots=True)
class RecordsRefused:
    """The broker refuses records themselves, by their index: nothing of the transaction is visible."""

    errors: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Failed:
    """The transaction did not end well, or nobody knows how it ended.

    ``fenced``: another producer took over our transactional id. ``stale``: the group has moved on without us, so that
    nothing can be committed before the next rebalance says what we own.
    """

    message: str
    fenced: bool = False
    stale: bool = False


Publication: TypeAlias = Committed | RecordsRefused | Failed


class TransactionalSink:
    """Owned by one thread, like the consumer.

    Args:
        config: the producer's librdkafka properties, ``transactional.id`` among them.
        monotonic: clock in seconds.
        commit_budget_s: how long a commit is repeated before its outcome counts as unknown.
        late_s: an end of a transaction that took longer makes the session suspect (0.9 of ``socket.timeout.ms``).
        own_timeout_s: a transaction that took longer than this may have been ended by the broker's own time-out.
        should_stop: asked between attempts, so that a shutdown does not wait for a broker that is away.
    """

    def __init__(
        self,
        config: dict[str, Any],
        *,
        monotonic: Callable[[], float],
        commit_budget_s: float,
        late_s: float,
        own_timeout_s: float,
        should_stop: Callable[[], bool],
    ) -> None:
        self._config = config
        self._monotonic = monotonic
        self._commit_budget_s = commit_budget_s
        self._late_s = late_s
        self._own_timeout_s = own_timeout_s
        self._should_stop = should_stop
        self._producer: Producer | None = None
        self._opening: Producer | None = None
        self._suspect = False
        self._refused: dict[int, str] = {}

    @property
    def is_open(self) -> bool:
        """Whether a session is there that may be used. If not, ``open`` makes one."""
        return self._producer is not None

    def open(self) -> Failed | None:
        """Makes a new session, or goes on making it; returns why it is not there yet, or None once it is.

        Blocks for a second at most: a signal must not wait for a broker that is away.
        """
        self.discard()
        if self._opening is None:
            self._suspect = False
            self._opening = Producer({**self._config, "error_cb": self._on_error})
        try:
            self._opening.init_transactions(_CALL_S)
        except KafkaException as error:
            if not error.args[0].retriable():
                opening, self._opening = self._opening, None
                _dispose(opening)
            return _failed(error)
        self._producer, self._opening = self._opening, None
        self._suspect = False
        return None

    def publish(self, records: Sequence[OutRecord], offsets: list[TopicPartition], group: Any) -> Publication:
        """Writes the records and commits the offsets in one transaction, or makes nothing visible.

        ``group`` is the consumer's group metadata: it carries the generation, so that a worker that was thrown out of
        its group without knowing cannot commit.
        """
        producer = self._producer
        if producer is None:
            return Failed("no producer session")
        self._refused = {}
        began_at = self._monotonic()
        try:
            producer.begin_transaction()
            for index, record in enumerate(records):
                self._produce(producer, index, record)
            if self._refused:
                return self._give_up(RecordsRefused(dict(self._refused)))
            self._repeat(partial(producer.send_offsets_to_transaction, offsets, group))
            ending_at = self._monotonic()
            self._repeat(producer.commit_transaction)
        except KafkaException as error:
            if self._refused:
                return self._give_up(RecordsRefused(dict(self._refused)))
            failed = _failed(error)
            if self._monotonic() - began_at > self._own_timeout_s:
                # It took so long that the broker itself has ended the transaction: nobody else fenced us.
                failed = Failed(failed.message)
            return self._give_up(failed)
        now = self._monotonic()
        if self._suspect or now - ending_at >= self._late_s or now - began_at >= self._commit_budget_s:
            self.discard()
        return Committed()

    def discard(self) -> None:
        """Ends the session. What it left open is aborted by the next ``open``, or by the broker's time-out."""
        producer, self._producer = self._producer, None
        if producer is not None:
            _dispose(producer)

    def _give_up(self, publication: Publication) -> Publication:
        producer = self._producer
        if producer is not None:
            try:
                producer.purge()
                producer.abort_transaction(_ABORT_S)
            except KafkaException:
                pass  # the next session's init_transactions settles it
        self.discard()
        return publication

    def _produce(self, producer: Producer, index: int, record: OutRecord) -> None:
        while True:
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    headers=record.headers,  # type: ignore[arg-type]  # the stub wants the invariant list of a wider union
                    on_delivery=partial(self._on_delivery, index),
                )
            except BufferError:
                producer.poll(0.1)  # the queue is full: wait for the broker to take some
                if self._suspect or self._should_stop():
                    raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from None  # noqa: SLF001
            except KafkaException as error:
                if error.args[0].code() not in RECORD_ERRORS:
                    raise
                self._refused[index] = error.args[0].str()
                return
            else:
                return

    def _on_delivery(self, index: int, error: KafkaError | None, _message: Message) -> None:
        if error is not None and error.code() in RECORD_ERRORS:
            self._refused[index] = error.str()

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in {KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE}:  # noqa: SLF001
            self._suspect = True

    def _repeat(self, call: Callable[[float], Any]) -> None:
        """Repeats the same call while librdkafka says that this is safe, until the budget is used up."""
        give_up_at = self._monotonic() + self._commit_budget_s
        while True:
            try:
                call(_CALL_S)
            except KafkaException as error:
                stop_early = self._should_stop() and self._suspect
                if not error.args[0].retriable() or self._monotonic() >= give_up_at or stop_early:
                    raise
            else:
                return


def _failed(error: KafkaException) -> Failed:
    kafka_error = error.args[0]
    code = kafka_error.code()
    return Failed(f"{kafka_error.name()}: {kafka_error.str()}", fenced=code in _FENCED, stale=code in _STALE)


def _dispose(producer: Producer) -> None:
    """Destroying a producer can block while a broker is away: that is no reason for the loop to stand still."""
    threading.Thread(target=_drop, args=(producer,), name="producer-disposal", daemon=True).start()


def _drop(producer: Producer) -> None:
    producer.purge()
