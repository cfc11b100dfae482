"""Bulk producer of contacts: every record is confirmed by the broker, or counted as undelivered."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Producer

from stream_scorer.kafka.admin.acls import Permission, refused_error
from stream_scorer.kafka.client.errors import translate
from stream_scorer.kafka.client.factory import create_client
from stream_scorer.kafka.producer.transactional_producer import RECORD_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.records import Headers
    from stream_scorer.core.scoring.types import ContactEvent

# Limit of unconfirmed records in memory; enough to keep the broker busy.
_MAX_WAITING: Final = 50_000
_POLL_S: Final = 0.1
# How long an interrupted load waits for records in flight.
_INTERRUPTED_S: Final = 10.0
_PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001 - their public names


# Headers of a record, and the callback for its delivery (True) or failure (False).
Sending: TypeAlias = "tuple[Headers, Callable[[bool], None]]"


class Trace(Protocol):
    """Tracer of produced records; see ``telemetry.tracing.producer.ProducerTracer``. Without tracing: `Untraced`."""

    def sending(self) -> Sending:
        """Start the trace of a record."""

    def close(self) -> None:
        """Export the remaining traces."""


class Untraced:
    """Tracer that adds no headers."""

    def sending(self) -> Sending:
        return [], _nothing

    def close(self) -> None: ...


class Undelivered(NamedTuple):
    """Number of undelivered contacts with the same error; ``line`` is the first one's."""

    line: int
    message: str
    contacts: int


class BulkProducer:
    """Producer of contacts, as fast as the broker accepts them or at a fixed rate. For use in a ``with`` block.

    A broker's error about one record (too large, against a policy) rejects that record. Any other error would affect
    all later records, too, and sets `stopped`. After that, and after `interrupt`, `send` accepts no more.
    """

    def __init__(
        self,
        config: dict[str, Any],
        topic: str,
        codec: Codec,
        *,
        rate_per_s: float | None = None,
        trace: Trace | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Create the producer; it connects in the background.

        Args:
            config: librdkafka properties of an idempotent producer.
            topic: the features topic.
            codec: encodes ``ContactFeatures``.
            rate_per_s: limit of contacts a second; None: unlimited.
            trace: starts the traces of records; None: no traces.
            clock: monotonic seconds.
        """
        self._producer = create_client(Producer, config)
        self._properties = config
        self._topic = topic
        self._codec = codec
        self._interval_s = 1 / rate_per_s if rate_per_s else 0.0
        self._trace = Untraced() if trace is None else trace
        self._clock = clock
        self._due_s = clock()
        self._undelivered: dict[str, Undelivered] = {}
        self._cause = "given up"
        # Lines without a confirmation of the broker, in the order of the file.
        self._open: dict[int, None] = {}
        self._first_lost: int | None = None
        self._end_s = math.inf
        self.delivered = 0
        self.stopped = False
        self.interrupted = False

    @property
    def undelivered(self) -> tuple[Undelivered, ...]:
        """Undelivered contacts so far, one entry for each error."""
        return tuple(self._undelivered.values())

    @property
    def first_unconfirmed(self) -> int | None:
        """The first line that may have to be loaded again; None: all accepted records are on the topic.

        Records that the broker rejects individually do not count.
        """
        return min(
            (line for line in (next(iter(self._open), None), self._first_lost) if line is not None), default=None
        )

    def interrupt(self) -> None:
        """Stop soon: accept no more records, and wait at most 10 s for those in flight; not at all on a second call.

        Safe to call from a signal handler.
        """
        self._end_s = self._clock() + (0.0 if self.interrupted else _INTERRUPTED_S)
        self.interrupted = True

    def send(self, event: ContactEvent, line: int) -> bool:
        """Pass one contact to the producer; block while too many are unconfirmed, or for the rate limit.

        Returns:
            Whether it was accepted. False once the load has ended, which may happen while this call blocks.

        Raises:
            BrokerError: the producer is unusable.
        """
        value = self._codec.encode(event_value(event))
        self._wait_for_turn()
        if self.is_ending:
            return False
        headers, ended = self._trace.sending()
        self._open[line] = None
        try:
            if not self._produce(event.contact_id.encode(), value, headers, partial(self._reported, line, ended)):
                del self._open[line]
                ended(False)
                return False
        except KafkaException as error:
            if error.args[0].code() not in RECORD_ERRORS:
                raise translate(error, f"writing to {self._topic}") from error
            self._reported(line, ended, error.args[0], None)
        self._producer.poll(0)
        return True

    def finish(self) -> None:
        """Wait until each contact is delivered or failed: at most ``delivery.timeout.ms``, less after `interrupt`."""
        while self._producer.flush(_POLL_S):
            is_late = self._clock() > self._end_s
            if self.stopped or is_late:
                # Requests in flight may have arrived, so their answers are awaited; queued records are discarded.
                self._producer.purge(in_flight=False)
            if is_late:
                self._producer.poll(0)
                break

    @property
    def is_ending(self) -> bool:
        """Whether no more records are accepted."""
        return self.stopped or self.interrupted

    def _produce(
        self, key: bytes, value: bytes, headers: Headers, report: Callable[[KafkaError | None, Message], None]
    ) -> bool:
        while not self.is_ending:
            try:
                self._producer.produce(self._topic, value, key, headers=[*headers], on_delivery=report)
            except BufferError:  # the client's queue is full
                self._producer.poll(_POLL_S)
            else:
                return True
        return False

    def _wait_for_turn(self) -> None:
        while len(self._producer) >= _MAX_WAITING and not self.is_ending:
            self._producer.poll(_POLL_S)
        if self._interval_s:
            while (wait_s := self._due_s - self._clock()) > 0 and not self.is_ending:
                self._producer.poll(min(wait_s, _POLL_S))
            # Based on the current time, not on the due time: a pause is not followed by a burst.
            self._due_s = max(self._due_s, self._clock() - _POLL_S) + self._interval_s

    def _reported(self, line: int, ended: Callable[[bool], None], error: KafkaError | None, _: Message | None) -> None:
        ended(error is None)
        self._open.pop(line, None)
        if error is None:
            self.delivered += 1
            return
        if error.code() not in RECORD_ERRORS:
            self._first_lost = line if self._first_lost is None else min(line, self._first_lost)
        if error.code() in _PURGED:
            message = self._cause if self.stopped or not self.interrupted else "interrupted"
        else:
            right = Permission("Write", "topic", self._topic)
            message = str(refused_error(error, f"writing to {self._topic}", self._properties, right))
            if error.code() not in RECORD_ERRORS and not self.stopped:
                self.stopped, self._cause = True, message
        before = self._undelivered.get(message, Undelivered(line, message, 0))
        self._undelivered[message] = before._replace(line=min(line, before.line), contacts=before.contacts + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # After `finish` the queue is empty. After an exception the rest is discarded.
        with suppress(KafkaException):
            self._producer.purge()
            self._producer.flush(_POLL_S)


def _nothing(_delivered: bool) -> None:
    pass


def event_value(event: ContactEvent) -> dict[str, Any]:
    """Return the event as a value of ``schemas/contact-features.avsc``."""
    return {
        "event_id": event.event_id,
        "contact_id": event.contact_id,
        "features": event.features,
        "occurred_at": event.occurred_at_ms,
        "campaign_id": event.campaign_id,
        "model_version": event.model_version,
        "attributes": event.attributes,
    }
