"""Puts contacts on the features topic: every record is confirmed by the broker, or counted as not delivered."""

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
    from stream_scorer.core.records import ContactEvent, Headers

# Records in memory that the broker has not confirmed yet; enough to keep it busy.
_MAX_WAITING: Final = 50_000
_POLL_S: Final = 0.1
# How long an interrupted loading waits for what is under way.
_INTERRUPTED_S: Final = 10.0
_PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001 - their public names


# The headers of a record, and what is to be called with whether it was delivered.
Sending: TypeAlias = "tuple[Headers, Callable[[bool], None]]"


class Trace(Protocol):
    """See ``telemetry.tracing.producer.ProducerTracer``; where nobody asks for traces, `Untraced` is all there is."""

    def sending(self) -> Sending:
        """Begins the trace of a record."""

    def close(self) -> None:
        """Sends what is left."""


class Untraced:
    """No headers."""

    def sending(self) -> Sending:
        """Returns none."""
        return [], _nothing

    def close(self) -> None:
        """Nothing."""


class Undelivered(NamedTuple):
    """How many contacts were not delivered for one reason; ``line`` is the first one's."""

    line: int
    message: str
    contacts: int


class BulkProducer:
    """Produces contacts, as fast as the broker takes them or at a fixed rate. To be used in a ``with`` block.

    What the broker says of one record (too large, against a policy) costs that record. What it says of anything else
    would cost every record that follows as well: `stopped` is then true. After that, and after `interrupt`, `put` hands
    nothing over any more.
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
        """Make the producer; it connects in the background.

        Args:
            config: librdkafka's properties, of an idempotent producer.
            topic: where the contacts go.
            codec: of ``ContactFeatures``.
            rate_per_s: how many contacts a second at most.
            trace: begins their traces; None: nobody asks for them.
            clock: seconds, monotonic.
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
        # The lines that the broker has not confirmed yet, in the order of the file.
        self._open: dict[int, None] = {}
        self._first_lost: int | None = None
        self._end_s = math.inf
        self.delivered = 0
        self.stopped = False
        self.interrupted = False

    @property
    def undelivered(self) -> tuple[Undelivered, ...]:
        """What was not delivered so far, one entry for each reason."""
        return tuple(self._undelivered.values())

    @property
    def first_unconfirmed(self) -> int | None:
        """The first line that may have to be loaded again; None: all that were handed over are on the topic.

        A record that the broker refuses for itself does not count.
        """
        return min(
            (line for line in (next(iter(self._open), None), self._first_lost) if line is not None), default=None
        )

    def interrupt(self) -> None:
        """End soon: hand nothing more over, and wait 10 s at most for what is under way; on a second call not at all.

        It may be called by a handler of signals.
        """
        self._end_s = self._clock() + (0.0 if self.interrupted else _INTERRUPTED_S)
        self.interrupted = True

    def send(self, event: ContactEvent, line: int) -> bool:
        """Hand one contact to the producer; waits while too many are unconfirmed, or for its turn.

        Returns:
            Whether it was handed over: not after the end of all loading, which may come while it waits.

        Raises:
            BrokerError: the producer can do nothing any more.
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
        """Wait until each contact is delivered or given up: ``delivery.timeout.ms`` at most, less after `interrupt`."""
        while self._producer.flush(_POLL_S):
            is_late = self._clock() > self._end_s
            if self.stopped or is_late:
                # What was sent may have arrived, so its answer is waited for; the rest is not sent any more.
                self._producer.purge(in_flight=False)
            if is_late:
                self._producer.poll(0)
                break

    @property
    def is_ending(self) -> bool:
        """Whether nothing more is handed over."""
        return self.stopped or self.interrupted

    def _produce(
        self, key: bytes, value: bytes, headers: Headers, report: Callable[[KafkaError | None, Message], None]
    ) -> bool:
        while not self.is_ending:
            try:
                self._producer.produce(self._topic, value, key, headers=[*headers], on_delivery=report)
            except BufferError:  # too many bytes are waiting
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
            # From now on, not from when it was due: a pause is not made up for by a burst.
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
        # After `finish` nothing is left. After an exception nobody waits for the rest.
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
    }
