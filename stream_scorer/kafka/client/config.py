"""librdkafka properties of each client: fixed ones, and defaults that ``kafka.properties`` may override.

The table of traps in docs/architecture.md gives the reasons of values that are not obvious.
"""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from confluent_kafka import Consumer, Producer

from stream_scorer.errors import SettingsError
from stream_scorer.kafka.client.factory import create_client
from stream_scorer.kafka.client.property_checks import check_tokens, check_value, unsafe_properties

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.settings import Settings

Config: TypeAlias = dict[str, Any]

_CONNECTION: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "client.id": "stream-scorer",
        "socket.keepalive.enable": True,
        "socket.timeout.ms": 10_000,
        # A broker that is back is found within 1 s instead of 10.
        "reconnect.backoff.max.ms": 1_000,
        # An added partition is found within 10 s instead of 5 min.
        "topic.metadata.refresh.interval.ms": 10_000,
        "log_level": 4,
    }
)
_READING: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Reports the end of a partition also behind transaction markers and aborted records.
        "enable.partition.eof": True,
        # Never `earliest`: a committed offset that the log no longer holds would score everything again, at full price.
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        # Bounds the prefetch by bytes, as memory is; the default is 64 MB.
        "queued.max.messages.kbytes": 16_384,
        "queued.min.messages": 20_000,
        "fetch.max.bytes": 16_777_216,
        "max.partition.fetch.bytes": 1_048_576,
        "fetch.wait.max.ms": 100,
        "fetch.error.backoff.ms": 100,
        # By default the next fetch of a partition waits up to 1 s once its prefetch was full, even if a pause has
        # discarded the prefetch since.
        "fetch.queue.backoff.ms": 20,
    }
)
_MEMBERSHIP: Final[Mapping[str, Any]] = MappingProxyType(
    {
        # Under the newer protocol a hung worker keeps its partitions several times as long.
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 3_000,
        "max.poll.interval.ms": 300_000,
    }
)
_WRITING: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "enable.idempotence": True,
        "acks": "all",
        "transaction.timeout.ms": 15_000,
        # At most the transaction's: no record may be in delivery when its transaction is already aborted.
        "delivery.timeout.ms": 14_000,
        "linger.ms": 5,
        "batch.num.messages": 10_000,
        "batch.size": 1_000_000,
        "compression.type": "lz4",
        "queue.buffering.max.messages": 400_000,
        "queue.buffering.max.kbytes": 262_144,
        # Above the limit of any topic (2 MB for the rejected topic), so that each topic's own limit applies.
        "message.max.bytes": 4_194_304,
    }
)

# One name for each property that has two, so that a configuration cannot hold both with different values.
_ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "compression.codec": "compression.type",
        "fetch.message.max.bytes": "max.partition.fetch.bytes",
        "message.timeout.ms": "delivery.timeout.ms",
        "metadata.broker.list": "bootstrap.servers",
        "queue.buffering.max.ms": "linger.ms",
        "request.required.acks": "acks",
    }
)
_OURS: Final = frozenset(
    {"bootstrap.servers", "group.id", "transactional.id", "isolation.level", "auto.offset.reset", "acks"}
)
# Used in computations here; librdkafka accepts a number as a text as well.
_COMPUTED: Final = ("batch.size", "delivery.timeout.ms", "socket.timeout.ms", "transaction.timeout.ms")


def consumer_config(settings: Settings, group_id: str | None = None, *, logger: logging.Logger | None = None) -> Config:
    """Return the properties of a worker's consumer, which commits only through the producer's transactions.

    ``group_id``: its group; None: the scoring worker's, ``kafka.group_id``.

    Raises:
        SettingsError: ``kafka.properties`` and other time-outs contradict each other.
    """
    ours = {**_CONNECTION, **_READING, **_MEMBERSHIP, "group.id": group_id or settings.kafka.group_id}
    # A pause discards the prefetch of its partition, and flow control pauses often while there is a backlog.
    ours["queued.min.messages"] = 1_000
    config = _merged(settings, ours, not_for_this=_WRITING, logger=logger)
    # librdkafka accepts the name in any case. A case-sensitive comparison here would drop the group's assignor.
    config["group.protocol"] = str(config["group.protocol"]).lower()
    if config["group.protocol"] != "classic":
        # librdkafka refuses properties that the brokers decide under the newer protocol.
        for name in ("partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"):
            config.pop(name)
    elif config["partition.assignment.strategy"] != "cooperative-sticky":
        raise SettingsError(
            "kafka.properties: partition.assignment.strategy must be cooperative-sticky: partitions are given up one"
            " by one, not all at once"
        )
    _check_membership(settings, config)
    return config


def settling_time_s(settings: Settings) -> float:
    """Return the longest time that a member waits for its first partitions, in seconds.

    The other members learn of it with their next heartbeat, finish requests of the partitions that they give up, and
    rejoin. The partitions arrive with the heartbeat after that. Under the newer protocol the brokers set the interval,
    5 s by default.
    """
    heartbeat_ms = int(consumer_config(settings).get("heartbeat.interval.ms", 5_000))
    return settings.scoring.revoke_wait_s + 2 * heartbeat_ms / 1000


def producer_config(settings: Settings, transactional_id: str, *, logger: logging.Logger | None = None) -> Config:
    """Return the properties of a transactional producer; the worker's id is ``settings.kafka.transactional_id``.

    Raises:
        SettingsError: ``kafka.properties`` and other time-outs contradict each other.
    """
    # Failed deliveries only: a successful commit implies that all others were delivered.
    reports = {"delivery.report.only.error": True}
    ours = {**_CONNECTION, **_WRITING, **reports, "transactional.id": transactional_id}
    config = _merged(settings, ours, not_for_this={**_READING, **_MEMBERSHIP}, logger=logger)
    config |= {name: _whole_number(config, name) for name in _COMPUTED}
    transaction_ms = config["transaction.timeout.ms"]
    for name in ("delivery.timeout.ms", "socket.timeout.ms"):
        if not 0 < config[name] <= transaction_ms:
            raise SettingsError(
                f"kafka.properties: {name} ({config[name]}) must be more than 0 and at most transaction.timeout.ms"
                f" ({transaction_ms}): the broker would abort the transaction before the client's limit; set both"
            )
    return config


def plain_producer_config(settings: Settings, *, logger: logging.Logger | None = None) -> Config:
    """Return the properties of an idempotent producer without transactions, for ``produce``."""
    # No transaction is open, so a long delivery time-out while a broker restarts costs nothing.
    ours = {**_CONNECTION, **_WRITING, "delivery.timeout.ms": 60_000}
    del ours["transaction.timeout.ms"]
    return _merged(settings, ours, not_for_this={**_READING, **_MEMBERSHIP, **_WRITING}, logger=logger)


def reader_config(settings: Settings, group_id: str, *, logger: logging.Logger | None = None) -> Config:
    """Return the properties of a consumer with manual assignment, which stores no offsets and joins no group.

    ``group_id`` is required by the client; `Consumer.committed` reads the commits of that group.
    """
    ours = {**_CONNECTION, **_READING, "group.id": group_id}
    return _merged(settings, ours, not_for_this={**_WRITING, **_MEMBERSHIP}, logger=logger)


def admin_config(settings: Settings, *, logger: logging.Logger | None = None) -> Config:
    """Return the properties of the admin client."""
    return _merged(settings, dict(_CONNECTION), not_for_this={**_READING, **_MEMBERSHIP, **_WRITING}, logger=logger)


def property_warnings(settings: Settings) -> tuple[str, ...]:
    """Return one line for each of the operator's properties that is ignored, or that is unsafe."""
    unused = [
        f"kafka.properties: {name} is not used, stream-scorer sets it itself"
        for name in settings.kafka.properties
        if _is_ours(_ALIASES.get(name, name))
    ]
    return (*unused, *unsafe_properties(settings.kafka.properties))


def silent_logger() -> logging.Logger:
    """Return a logger without output, for commands whose errors are raised in one line.

    librdkafka would log each attempt to connect, 20 a second. The logger is not registered, so it has no parent.
    """
    logger = logging.Logger("librdkafka")  # noqa: LOG001 - see above
    logger.addHandler(logging.NullHandler())
    return logger


def check_properties(settings: Settings) -> None:
    """Validate every property by librdkafka itself, certificates and keys included; nothing is sent to a broker.

    Raises:
        SettingsError: a property is unknown, has a wrong value, or contradicts another.
    """
    consumer = consumer_config(settings, logger=silent_logger())
    producer = producer_config(settings, settings.kafka.transactional_id, logger=silent_logger())
    create_client(Consumer, consumer).close()
    create_client(Producer, producer)


def _merged(
    settings: Settings, ours: Config, *, not_for_this: Mapping[str, Any], logger: logging.Logger | None
) -> Config:
    config = {"bootstrap.servers": settings.kafka.bootstrap_servers, **ours}
    for given, value in settings.kafka.properties.items():
        name = _ALIASES.get(given, given)
        check_value(given, value)
        # A property of another kind of client would only produce a warning at every start.
        if not _is_ours(name) and (name in ours or name not in not_for_this):
            config[name] = value
    check_tokens(config)
    if logger is not None:
        config["logger"] = logger
    return config


def _is_ours(name: str) -> bool:
    return name in _OURS or name.startswith("enable.")


def _check_membership(settings: Settings, config: Config) -> None:
    poll_ms = _whole_number(config, "max.poll.interval.ms")
    if "session.timeout.ms" in config:
        session_ms = _whole_number(config, "session.timeout.ms")
        heartbeat_ms = _whole_number(config, "heartbeat.interval.ms")
        if not 0 < heartbeat_ms * 3 <= session_ms:
            raise SettingsError(
                f"kafka.properties: session.timeout.ms ({session_ms}) must be at least three times"
                f" heartbeat.interval.ms ({heartbeat_ms}), or one lost heartbeat costs the partitions"
            )
        if poll_ms < session_ms:
            raise SettingsError(
                f"kafka.properties: max.poll.interval.ms ({poll_ms}) must be at least session.timeout.ms ({session_ms})"
            )
    # on_revoke waits inside consume(); the next poll must follow well before the group removes the worker.
    for key, limit_ms in (("revoke_wait_s", poll_ms / 3), ("shutdown_timeout_s", float(poll_ms))):
        wait_s = getattr(settings.scoring, key)
        if wait_s * 1000 > limit_ms:
            raise SettingsError(
                f"scoring.{key} ({wait_s:g} s) must be at most {limit_ms / 1000:g} s with max.poll.interval.ms"
                f" {poll_ms}, or the group revokes the partitions meanwhile"
            )


def _whole_number(config: Config, name: str) -> int:
    value = config[name]
    try:
        return int(value)
    except (TypeError, ValueError):
        unit = "bytes" if name == "batch.size" else "milliseconds"
        raise SettingsError(f"kafka.properties: {name} must be a number of {unit}, not {value!r}") from None
