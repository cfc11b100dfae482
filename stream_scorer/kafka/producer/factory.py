"""Factory of a service's sink: a transactional producer whose batches are within the limit of each topic."""

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

# Share of the socket time-out after which librdkafka may have repeated an EndTxn (see kafka.producer.sink).
LATE_SHARE: Final = 0.9
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
    """Return the sink, and the largest record batch that each topic of ``outputs`` accepts, in bytes.

    A broker refuses whole batches by their size. With batches below every topic's limit, only a record that is too
    large by itself is refused. The limits are read again after such a refusal, and changed in place. ``rights`` are
    checked after a denial. ``group_id`` is the group whose offsets are committed.
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
        with suppress(SettingsError):  # valid at the start: a file may be changing right now
            read_limits()

    read_limits()
    sink = TransactionalSink(
        config,
        monotonic=monotonic,
        commit_budget_s=_COMMIT_BUDGET_S,
        late_s=LATE_SHARE * config["socket.timeout.ms"] / 1000,
        own_timeout_s=config["transaction.timeout.ms"] / 2000,
        in_time_s=min(config[name] for name in ("delivery.timeout.ms", "transaction.timeout.ms")) / 2000,
        on_refused=read_limits_again,
        why_denied=why_denied,
    )
    return sink, limits
