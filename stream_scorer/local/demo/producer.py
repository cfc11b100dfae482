"""Producer of the demo's contacts: sends raw bytes, since many of them are not valid contacts."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from stream_scorer.kafka.client.config import plain_producer_config, silent_logger
from stream_scorer.kafka.client.errors import translate
from stream_scorer.telemetry.tracing.factory import producer_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from confluent_kafka import Message

    from stream_scorer.core.records import Headers
    from stream_scorer.core.scoring.types import Reason
    from stream_scorer.local.demo.contacts import Generated
    from stream_scorer.settings import Settings

_WAIT_S: Final = 0.1
_REPORT_EVERY: Final = 5_000


def feed(
    settings: Settings, records: Iterable[Generated], report_progress: Callable[[int], None]
) -> Counter[Reason | None]:
    """Produce every record, keyed by contact id, and wait until the broker has confirmed all of them.

    Args:
        settings: settings of the worker.
        records: the records.
        report_progress: called occasionally with the number of records sent.

    Returns:
        Number of records for each expected reason for rejection; None counts those with an expected score.

    Raises:
        BrokerError: a record could not be delivered.
    """
    producer = Producer(plain_producer_config(settings, logger=silent_logger()))
    fed: Counter[Reason | None] = Counter()
    errors: list[KafkaError] = []
    trace = producer_trace(settings)

    def report(ended: Callable[[bool], None], error: KafkaError | None, _message: Message) -> None:
        ended(error is None)
        if error is not None:
            errors.append(error)

    try:
        for number, record in enumerate(records, start=1):
            headers, ended = trace.sending()
            _produce(producer, settings.topics.features, record, headers, partial(report, ended))
            fed[record.rejected_for] += 1
            _refuse(errors, settings)
            if number % _REPORT_EVERY == 0:
                report_progress(number)
        _flush(producer, errors, settings)
    finally:
        with suppress(KafkaException):
            producer.purge()  # after a Ctrl-C the rest is discarded
        trace.close()
    return fed


def _produce(
    producer: Producer,
    topic: str,
    record: Generated,
    headers: Headers,
    report: Callable[[KafkaError | None, Message], None],
) -> None:
    while True:
        try:
            producer.produce(topic, record.value, record.key, headers=[*headers], on_delivery=report)
        except BufferError:
            producer.poll(_WAIT_S)
        except KafkaException as error:
            raise translate(error, f"writing to {topic}") from error
        else:
            producer.poll(0)
            return


def _flush(producer: Producer, errors: list[KafkaError], settings: Settings) -> None:
    while producer.flush(_WAIT_S):
        _refuse(errors, settings)
    _refuse(errors, settings)


def _refuse(errors: list[KafkaError], settings: Settings) -> None:
    if errors:
        raise translate(errors[0], f"writing to {settings.topics.features}")
