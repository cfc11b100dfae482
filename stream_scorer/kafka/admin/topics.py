"""Topics of the service: checks and creation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic

from stream_scorer.errors import BrokerRefused, BrokerUnavailable
from stream_scorer.kafka.admin.acls import Permission, denied_error, missing_rights, refused_error
from stream_scorer.kafka.admin.admin_client import ClusterAdmin
from stream_scorer.kafka.admin.output_topics import OUTPUT_CONFIG, audit_config
from stream_scorer.kafka.admin.retry_retention import retry_topic_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from confluent_kafka.admin._metadata import TopicMetadata

    from stream_scorer.settings import Settings

PARTITIONS: Final = 4
BROKERS_REPLICATION: Final = -1
# Above the brokers' default of 1 MB: a rejected record of that size must fit, with the headers of its reason.
LARGE_MESSAGE_BYTES: Final = 2 * 1024 * 1024
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class TopicsReport:
    """Result of `create_topics`: names in the order of the settings."""

    created: tuple[str, ...]
    existing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewTopics:
    """What is to be created.

    Attributes:
        names: the topics; None: all of the settings.
        partitions: of each topic.
        replication: replicas of each partition; -1: the brokers' default.
        retention_ms: how long each topic keeps its records, except where the service needs them longer; None: the
            brokers' default.
    """

    names: tuple[str, ...] | None = None
    partitions: int = PARTITIONS
    replication: int = BROKERS_REPLICATION
    retention_ms: int | None = None

    def of(self, settings: Settings) -> tuple[str, ...]:
        """Return the names in the order of the settings."""
        return settings.all_topics if self.names is None else self.names


def missing_topics(settings: Settings, new: NewTopics, *, connect_s: float = 5.0) -> dict[str, dict[str, str]]:
    """Return the properties of the topics that `create_topics` would create, by name. Nothing is changed.

    Raises:
        BrokerUnavailable: no broker answers within ``connect_s``.
    """
    admin = ClusterAdmin(settings)
    present = admin.topics(connect_s)
    missing = [name for name in new.of(settings) if name not in present]
    configs = _configs(admin, settings, missing, new)
    return {name: configs.get(name, {}) for name in missing}


def create_topics(
    settings: Settings, new: NewTopics | None = None, *, timeout_s: float = 30.0, connect_s: float = 5.0
) -> TopicsReport:
    """Create the missing topics, and wait until each of their partitions has a leader.

    Existing topics are not changed. Concurrent calls are safe: a topic that the other call created counts as existing.

    Args:
        settings: the cluster, and the names.
        new: what is to be created; None: all topics of the settings, with the defaults.
        timeout_s: limit for all topics, in seconds.
        connect_s: limit for the brokers' first answer, in seconds.

    Raises:
        BrokerUnavailable: no broker answers within ``connect_s``, or the topics are not ready within ``timeout_s``.
        BrokerRefused: the cluster does not allow it.
    """
    deadline = time.monotonic() + timeout_s
    new = new or NewTopics()
    admin = ClusterAdmin(settings)
    present = admin.topics(connect_s)
    missing = [name for name in new.of(settings) if name not in present]
    retries = [name for name in missing if name in settings.contact_retry_topics]
    created = _create(admin, settings, [name for name in missing if name not in retries], new, timeout_s)
    # The features topic exists from here on, and with it the retention that its retry topics need.
    _wait_for_leaders(admin, settings, created, deadline)
    # Last: their retention follows that of the features topic.
    created += (created_retries := _create(admin, settings, retries, new, timeout_s))
    _wait_for_leaders(admin, settings, created_retries, deadline)
    names = new.of(settings)
    return TopicsReport(
        tuple(name for name in names if name in created), tuple(name for name in names if name not in created)
    )


def check_topics(
    settings: Settings, names: Iterable[str], *, rights: Sequence[Permission] = (), timeout_s: float = 5.0
) -> dict[str, int]:
    """Return the number of partitions of each topic.

    Args:
        settings: the cluster.
        names: the topics.
        rights: rights on them to check, as far as brokers report them (see `kafka.admin.acls`).
        timeout_s: limit for the brokers' answer, in seconds.

    Raises:
        BrokerUnavailable: no broker answers within ``timeout_s``; names the address.
        BrokerRefused: the brokers refuse the connection, or a topic or a right is missing; names it and the remedy.
    """
    admin = ClusterAdmin(settings)
    present = admin.topics(timeout_s)
    missing = [name for name in dict.fromkeys(names) if name not in present]
    # A topic without any right of this user is not visible.
    hidden = [Permission("Describe", "topic", name) for name in missing if name not in {right.name for right in rights}]
    _check_rights(admin, [*rights, *hidden])
    if missing:
        what = f"topics {', '.join(missing)} are" if len(missing) > 1 else f"topic {missing[0]} is"
        raise BrokerRefused(
            f"{what} missing on {settings.kafka.bootstrap_servers}:"
            " run `stream-scorer topics create`, or check topics.* in the settings"
        )
    return {name: len(present[name].partitions) for name in names}


def existing_topics(settings: Settings, names: Iterable[str], *, timeout_s: float = 5.0) -> tuple[str, ...]:
    """Return the topics that exist, in the order given.

    Raises:
        BrokerUnavailable: no broker answers within ``timeout_s``; names the address.
    """
    present = ClusterAdmin(settings).topics(timeout_s)
    return tuple(name for name in names if name in present)


def _check_rights(admin: ClusterAdmin, rights: Sequence[Permission]) -> None:
    if missing := missing_rights(admin.client, rights):
        raise BrokerRefused(denied_error(admin.properties, missing))


def _create(admin: ClusterAdmin, settings: Settings, missing: list[str], new: NewTopics, timeout_s: float) -> list[str]:
    if not missing:
        return []
    configs = _configs(admin, settings, missing, new)
    wanted = [
        NewTopic(
            name,
            num_partitions=new.partitions,
            replication_factor=new.replication,
            config=configs.get(name, {}),
        )
        for name in missing
    ]
    created = []
    for name, future in admin.client.create_topics(wanted, operation_timeout=timeout_s).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            doing = f"creating topic {name} on {settings.kafka.bootstrap_servers}"
            raise refused_error(error, doing, admin.properties, Permission("Create", "topic", name)) from None
        created.append(name)
    return created


def _configs(admin: ClusterAdmin, settings: Settings, missing: list[str], new: NewTopics) -> dict[str, dict[str, str]]:
    """Return the properties of new topics that differ from the brokers' defaults."""
    kept = {} if new.retention_ms is None else {"retention.ms": str(new.retention_ms)}
    large = {"max.message.bytes": str(LARGE_MESSAGE_BYTES)}
    topics = settings.topics
    configs = {name: OUTPUT_CONFIG | kept for name in settings.all_topics if name != topics.features}
    configs[topics.features] = dict(kept)
    for name in (topics.audit, topics.decisions):
        configs[name] |= audit_config(settings)
    for name in (topics.rejected, topics.callbacks_rejected):
        configs[name] |= large
    if any(name in settings.contact_retry_topics for name in missing):
        retry = large | retry_topic_config(admin.client, topics.features, at_least_ms=new.retention_ms)
        configs |= dict.fromkeys(settings.contact_retry_topics, retry)
    return configs


def _wait_for_leaders(admin: ClusterAdmin, settings: Settings, names: list[str], deadline: float) -> None:
    """Wait for leaders: a topic exists before its partitions have them, and the first send would be delayed."""
    waiting = list(names)
    while waiting:
        present = admin.topics(max(deadline - time.monotonic(), 1.0))
        waiting = [name for name in waiting if not _is_ready(present.get(name))]
        hidden = [Permission("Describe", "topic", name) for name in waiting if name not in present]
        if hidden:
            _check_rights(admin, hidden)
        if waiting and time.monotonic() > deadline:
            raise BrokerUnavailable(
                f"topic {waiting[0]} was created on {settings.kafka.bootstrap_servers} and has no leader yet:"
                " check whether the brokers run"
            )
        if waiting:
            time.sleep(_POLL_S)


def _is_ready(topic: TopicMetadata | None) -> bool:
    return topic is not None and bool(topic.partitions) and all(part.leader >= 0 for part in topic.partitions.values())
