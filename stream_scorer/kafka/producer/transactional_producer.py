"""One producer session: a transactional ``Producer`` from its ``init_transactions`` to the first thing that goes wrong.

What its callbacks report stays with the session: one that was left behind in a call that hangs can still be called back
long after, and must not speak for its successor.
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
    from collections.abc import Sequence

    from confluent_kafka import Message, TopicPartition

    from stream_scorer.kafka.producer.records import OutRecord

# What a delivery report says of a record itself; everything else is about the cluster and holds. A refused time is not
# among them: the client sets it, so the same record is good as soon as this machine's clock is.
RECORD_ERRORS: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.POLICY_VIOLATION}
)
# What a call into the client may raise. After a fatal error it calls back although its exception is on its way already;
# what is called then raises a SystemError whose cause is that exception. Where the client only looks up its logger's
# method, an AttributeError takes the exception's place, and nothing but the client's next calls tells of the error.
CLIENT_ERRORS: Final = (KafkaException, SystemError, AttributeError)
# Requests that were not answered, and no broker left: what such a session does next is not certain (see
# `kafka.producer.sink`).
_SUSPECT: Final = frozenset(
    {KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._ALL_BROKERS_DOWN}  # noqa: SLF001 - public names
)
_CALL_S: Final = 1.0
_ABORT_S: Final = 2.0
_REPORTS_S: Final = 1.0
# Over what was asked for; a call that needs longer is taken to hang.
_SLACK_S: Final = 5.0
# Milliseconds when all is well, seconds on a thin line behind many records. The call hangs now and then when a
# coordinator has moved or the group has just rebalanced. To give it up is safe: nothing is committed before a commit.
_OFFSETS_S: Final = 8.0
_OFFSETS_SLACK_S: Final = 2.0


class ProducerSession:
    """See the module's text.

    Args:
        config: the producer's librdkafka properties.
        budget_s: how long a commit is repeated, and how long records wait for room in the client, in seconds.

    Raises:
        StreamScorerError: on construction, where there can be no such client now.
    """

    def __init__(self, config: dict[str, Any], budget_s: float) -> None:
        self._producer = create_client(Producer, {**config, "error_cb": self._on_error})
        self._budget_s = budget_s
        self._fatal: KafkaError | None = None
        self.is_suspect = False
        self.refused: dict[int, str] = {}
        self.denied: KafkaError | None = None
        self._time_refused = False

    def init(self) -> None:
        """Fences and settles whatever had this transactional id before.

        Raises:
            KafkaException: not yet, where it is retriable: the same call goes on.
            HungError: it did not come back.
        """
        call_with_timeout(_CALL_S + _SLACK_S, partial(self._producer.init_transactions, _CALL_S))
        self.poll()  # what was reported while no broker was there
        self.is_suspect = False

    def write(self, records: Sequence[OutRecord]) -> None:
        """Begins a transaction and hands over its records. ``refused`` says which ones librdkafka would not take."""
        self.refused = {}
        self._time_refused = False
        self._producer.begin_transaction()
        for index, record in enumerate(records):
            self._produce(index, record)

    def commit(self, offsets: list[TopicPartition], group: Any) -> float:
        """Adds the offsets and commits. Returns how many seconds the commit took.

        Raises:
            KafkaException: it failed, or its outcome is unknown.
            HungError: the same.
        """
        # Once only: called again after a time-out, it hangs (see kafka.client.blocking_calls).
        send = partial(self._producer.send_offsets_to_transaction, offsets, group, _OFFSETS_S)
        call_with_timeout(_OFFSETS_S + _OFFSETS_SLACK_S, send)
        began_at = time.monotonic()
        call_with_timeout(self._budget_s + _CALL_S + _SLACK_S, self._repeat_commit)
        return time.monotonic() - began_at

    def flush_delivery_reports(self) -> None:
        """Takes in the delivery reports that have come: ``refused`` is complete only then, whichever call failed."""
        try:
            self._producer.flush(_REPORTS_S)
        except CLIENT_ERRORS as error:
            self._remember(kafka_error_of(error))

    def is_timestamp_rejected(self, error: BaseException) -> bool:
        """Whether the broker refused the records for their time, by the reports or by what a call has raised.

        Where it refuses several records of a batch for it, each of them is reported as ``INVALID_RECORD``.
        """
        raised = kafka_error_of(error)
        return self._time_refused or (raised is not None and raised.code() == KafkaError.INVALID_TIMESTAMP)

    def fatal_error_of(self) -> KafkaError | None:
        """The error behind a plain ``_FATAL``, where it has been told: ``produce`` does not say that it was a fence."""
        self.poll()
        return self._fatal

    def poll(self) -> None:
        """Takes in what the client reports, without waiting: ``is_suspect`` is up to date then."""
        try:
            self._producer.poll(0)
        except CLIENT_ERRORS as error:
            self._remember(kafka_error_of(error))

    def abort(self) -> None:
        """Ends the transaction now, if that is possible; if not, the next session does."""
        with contextlib.suppress(TimeoutError, *CLIENT_ERRORS):
            self._producer.purge()
            call_with_timeout(_ABORT_S + _SLACK_S, partial(self._producer.abort_transaction, _ABORT_S))

    def dispose(self) -> None:
        """Ends the client; nothing may be asked of the session after it.

        Destroying a producer can block while a broker is away: no reason for the loop to stand still, so a thread gets
        the last reference. Left to the garbage collector (client and session hold each other) a session a second would
        pile up to dozens, each with its threads and sockets, and all of them would end in the midst of the loop.
        """
        disposal = threading.Thread(target=self._producer.purge, name="producer-disposal", daemon=True)
        del self._producer
        disposal.start()

    def _repeat_commit(self) -> None:
        """Repeats the same call while librdkafka says that this is safe, until the budget is used up."""
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
                    headers=record.headers,  # type: ignore[arg-type]  # the stub asks for more
                    on_delivery=partial(self._on_delivery, index),
                )
            except BufferError:
                self._producer.poll(0.1)  # the queue is full: wait for the broker to take some
                if time.monotonic() >= give_up_at:
                    raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from None  # noqa: SLF001
            except KafkaException as error:
                if error.args[0].code() not in RECORD_ERRORS:
                    raise
                self.refused[index] = error.args[0].str()
                return
            else:
                return

    def _on_delivery(self, index: int, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            return
        try:
            code = error.code()
        except SystemError as interrupted:  # see CLIENT_ERRORS
            self._remember(kafka_error_of(interrupted))
            return
        if code in RECORD_ERRORS:
            self.refused[index] = error.str()
        elif code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self.denied = error  # the call that fails for it only says that some record did
        elif code == KafkaError.INVALID_TIMESTAMP:
            self._time_refused = True

    def _on_error(self, error: KafkaError) -> None:
        self._remember(error)
        if error.code() in _SUSPECT:
            self.is_suspect = True

    def _remember(self, error: KafkaError | None) -> None:
        if error is not None and error.fatal():
            self._fatal = error


def kafka_error_of(error: BaseException) -> KafkaError | None:
    """The client's own error in what it raised; None where there is none."""
    inner = error.__cause__ if isinstance(error, SystemError) else error
    return inner.args[0] if isinstance(inner, KafkaException) else None
