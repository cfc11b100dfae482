"""Producer session: a transactional ``Producer`` from its ``init_transactions`` to the first failure.

Reports of its callbacks stay with the session. One that was abandoned in a hanging call can still be called back long
after, and must not affect its successor.
"""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from stream_scorer.kafka.client.blocking_calls import call_with_timeout
from stream_scorer.kafka.client.factory import create_client

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import Message, TopicPartition

    from stream_scorer.kafka.producer.records import OutRecord

# Codes of delivery reports about a single record; any other is about the cluster and persists. Not INVALID_TIMESTAMP:
# the client sets the timestamp, so the same record is valid as soon as this machine's clock is.
RECORD_ERRORS: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.POLICY_VIOLATION}
)
# Exceptions of a call into the client. After a fatal error it runs callbacks although its exception is already set; a
# callback then raises a SystemError whose cause is that exception. If the client only looks up its logger's method, an
# AttributeError replaces the exception, and only the client's next calls report the error.
CLIENT_ERRORS: Final = (KafkaException, SystemError, AttributeError)
# Requests without an answer, and no broker left: the behaviour of such a session is uncertain (see
# `kafka.producer.sink`).
_SUSPECT: Final = frozenset(
    {KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._ALL_BROKERS_DOWN}  # noqa: SLF001 - public names
)
_CALL_S: Final = 1.0
_ABORT_S: Final = 2.0
_REPORTS_S: Final = 1.0
# Beyond the call's own time-out; a call that takes longer counts as hanging.
_SLACK_S: Final = 5.0
# Normally milliseconds, seconds on a slow line behind many records. The call hangs occasionally when a coordinator has
# moved or the group has just rebalanced. Giving up is safe: nothing is committed before a commit.
_OFFSETS_S: Final = 8.0
_OFFSETS_SLACK_S: Final = 2.0


class ProducerSession:
    """Transactional producer session. Owned by one thread.

    Args:
        config: the producer's librdkafka properties.
        budget_s: how long a commit is repeated, and how long records wait for room in the client, in seconds.
        on_delivered: called with index, partition and offset of each record that the broker has accepted; None: with
            ``delivery.report.only.error``.

    Raises:
        StreamScorerError: on construction; such a client cannot be created now.
    """

    def __init__(
        self, config: dict[str, Any], budget_s: float, on_delivered: Callable[[int, int, int], None] | None = None
    ) -> None:
        self._on_delivered = on_delivered
        self._producer = create_client(Producer, {**config, "error_cb": self._on_error})
        self._budget_s = budget_s
        self._fatal: KafkaError | None = None
        self.unsafe_to_reuse = False
        self.refused: dict[int, str] = {}
        self.denied: KafkaError | None = None
        self._time_refused = False

    def init(self) -> None:
        """Fence earlier producers with this transactional id, and end their transactions.

        Raises:
            KafkaException: if retriable, not yet: the same call continues.
            CallTimedOutError: it did not return.
        """
        call_with_timeout(_CALL_S + _SLACK_S, partial(self._producer.init_transactions, _CALL_S))
        self.poll()  # reports from before a broker was available
        self.unsafe_to_reuse = False

    def write(self, records: Sequence[OutRecord]) -> None:
        """Begin a transaction and produce its records. ``refused`` has those that librdkafka rejects."""
        self.refused = {}
        self._time_refused = False
        self._producer.begin_transaction()
        self.append(records)

    def append(self, records: Sequence[OutRecord], *, first_index: int = 0) -> None:
        """Produce further records of the transaction."""
        for index, record in enumerate(records, first_index):
            self._produce(index, record)

    def commit(self, offsets: list[TopicPartition], group: Any) -> float:
        """Add the offsets and commit. Return the duration of the commit, in seconds.

        Raises:
            KafkaException: it failed, or its outcome is unknown.
            CallTimedOutError: the same.
        """
        # Once only: repeated after a time-out, it hangs (see kafka.client.blocking_calls).
        send = partial(self._producer.send_offsets_to_transaction, offsets, group, _OFFSETS_S)
        call_with_timeout(_OFFSETS_S + _OFFSETS_SLACK_S, send)
        return self.commit_records()

    def commit_records(self) -> float:
        """Commit the transaction as it is, without offsets. Return the duration and raise as `commit`."""
        began_at = time.monotonic()
        call_with_timeout(self._budget_s + _CALL_S + _SLACK_S, self._repeat_commit)
        return time.monotonic() - began_at

    def flush_delivery_reports(self, limit_s: float = _REPORTS_S) -> None:
        """Process pending delivery reports: ``refused`` is complete only then, whichever call failed."""
        try:
            self._producer.flush(limit_s)
        except CLIENT_ERRORS as error:
            self._remember(kafka_error_of(error))

    def is_timestamp_rejected(self, error: BaseException) -> bool:
        """Return whether the broker refused timestamps, by the delivery reports or the error of a call.

        If it refuses several records of a batch for it, each is reported as ``INVALID_RECORD``.
        """
        raised = kafka_error_of(error)
        return self._time_refused or (raised is not None and raised.code() == KafkaError.INVALID_TIMESTAMP)

    def fatal_error_of(self) -> KafkaError | None:
        """Return the error behind a plain ``_FATAL``, if reported: ``produce`` does not show that it was a fence."""
        self.poll()
        return self._fatal

    def poll(self) -> None:
        """Process the client's reports without waiting; ``unsafe_to_reuse`` is current then."""
        try:
            self._producer.poll(0)
        except CLIENT_ERRORS as error:
            self._remember(kafka_error_of(error))

    def abort(self) -> None:
        """Abort the transaction, if possible; if not, the next session does."""
        with contextlib.suppress(TimeoutError, *CLIENT_ERRORS):
            self._producer.purge()
            call_with_timeout(_ABORT_S + _SLACK_S, partial(self._producer.abort_transaction, _ABORT_S))

    def dispose(self) -> None:
        """Destroy the client; the session must not be used after it.

        Destroying a producer can block while a broker is away, so a thread gets the last reference and the loop
        continues. Left to the garbage collector (client and session form a cycle), a session a second would accumulate
        to dozens, each with its threads and sockets. All of them would be destroyed at once, within the loop.
        """
        disposal = threading.Thread(target=self._producer.purge, name="producer-disposal", daemon=True)
        del self._producer
        disposal.start()

    def _repeat_commit(self) -> None:
        """Repeat the same call while librdkafka reports that as safe, until the budget is used up."""
        give_up_at = time.monotonic() + self._budget_s
        while True:
            try:
                self._producer.commit_transaction(_CALL_S)
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() >= give_up_at:
                    raise
            else:
                return

    def _produce(self, index: int, record: OutRecord) -> None:
        give_up_at = time.monotonic() + self._budget_s
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    headers=record.headers,  # type: ignore[arg-type]  # the stub requires more
                    on_delivery=partial(self._on_delivery, index),
                )
            except BufferError:
                self._producer.poll(0.1)  # the queue is full: wait until the broker has accepted some
                if time.monotonic() >= give_up_at:
                    raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from None  # noqa: SLF001
            except KafkaException as error:
                if error.args[0].code() not in RECORD_ERRORS:
                    raise
                self.refused[index] = error.args[0].str()
                return
            else:
                return

    def _on_delivery(self, index: int, error: KafkaError | None, message: Message) -> None:
        if error is None:
            if self._on_delivered is not None:
                self._on_delivered(index, message.partition() or 0, message.offset() or 0)
            return
        try:
            code = error.code()
        except SystemError as interrupted:  # see CLIENT_ERRORS
            self._remember(kafka_error_of(interrupted))
            return
        if code in RECORD_ERRORS:
            self.refused[index] = error.str()
        elif code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self.denied = error  # the failing call itself only reports that some record failed
        elif code == KafkaError.INVALID_TIMESTAMP:
            self._time_refused = True

    def _on_error(self, error: KafkaError) -> None:
        self._remember(error)
        if error.code() in _SUSPECT:
            self.unsafe_to_reuse = True

    def _remember(self, error: KafkaError | None) -> None:
        if error is not None and error.fatal():
            self._fatal = error


def kafka_error_of(error: BaseException) -> KafkaError | None:
    """Return the client's own error in an exception; None: there is none."""
    inner = error.__cause__ if isinstance(error, SystemError) else error
    return inner.args[0] if isinstance(inner, KafkaException) else None
