"""Makes the sink of a service: a transactional producer that never sends a batch that a topic refuses for its size."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError

from stream_scorer.errors import SettingsError
from stream_scorer.kafka.admin.acls import Permission, denied_error, denied_message
from stream_scorer.kafka.admin.topic_limits import max_message_bytes
from stream_scorer.kafka.client.config import producer_config
from stream_scorer.kafka.producer.sink import TransactionalSink

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping, Sequence

    from stream_scorer.settings import Settings

# A share of the socket time-out after which librdkafka may have sent an EndTxn a second time (see kafka.producer.sink).
_LATE_SHARE: Final = 0.9
_COMMIT_BUDGET_S: Final = 20.0


def make_sink(
    settings: Settings,
    outputs: Sequence[str],
    *,
    group_id: str,
    transactional_id: str,
    monotonic: Callable[[], float],
    logger: logging.Logger,
    rights: Sequence[Permission] = (),
) -> tuple[TransactionalSink, Mapping[str, int]]:
    """Return the sink, and the largest record batch that each of the topics ``outputs`` takes, in bytes.

    A broker refuses a batch of records by its size: with batches smaller than any topic's limit, only a record that is
    too large by itself is ever refused. The limits are read anew whenever one was, and are changed in place. ``rights``
    are looked through where one turns out to be missing; ``group_id`` is the group whose offsets are committed.
    """
    config = producer_config(settings, transactional_id, logger=logger)
    configured_batch_bytes = config["batch.size"]
    limits: dict[str, int] = {}

    def read_limits() -> None:
        limits.update(max_message_bytes(settings, outputs))
        config["batch.size"] = min(configured_batch_bytes, *limits.values())

    def why_denied(error: KafkaError) -> str | None:
        if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return denied_error(config, [Permission("Write", "transactional id", transactional_id)])
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return denied_error(config, [Permission("Read", "group", group_id)])
        with suppress(SettingsError):
            return denied_message(settings, rights)
        return None

    def read_limits_again() -> None:
        with suppress(SettingsError):  # the settings were good at the start: a file is being changed, maybe
            read_limits()

    read_limits()
    sink = TransactionalSink(
        config,
        monotonic=monotonic,
        commit_budget_s=_COMMIT_BUDGET_S,
        late_s=_LATE_SHARE * config["socket.timeout.ms"] / 1000,
        own_timeout_s=config["transaction.timeout.ms"] / 2000,
        in_time_s=min(config[name] for name in ("delivery.timeout.ms", "transaction.timeout.ms")) / 2000,
        on_refused=read_limits_again,
        why_denied=why_denied,
    )
    return sink, limits
