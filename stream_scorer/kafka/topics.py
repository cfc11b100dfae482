"""The topics: which are there, and those that are missing made."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stream_scorer.errors import BrokerRefused, BrokerUnavailable
from stream_scorer.kafka.config import admin_config, silent_logger
from stream_scorer.kafka.errors import translate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from confluent_kafka.admin._metadata import TopicMetadata

    from stream_scorer.errors import StreamScorerError
    from stream_scorer.settings import Settings

PARTITIONS: Final = 4
BROKERS_REPLICATION: Final = -1
# Above the 1 MB that a broker takes by default: what was read there must fit here, with the headers that say why.
REJECTED_MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class TopicsReport:
    """What `create_topics` did: names in the order of the settings."""

    created: tuple[str, ...]
    existing: tuple[str, ...]


def create_topics(settings: Settings, *, timeout_s: float = 30.0, connect_s: float = 5.0) -> TopicsReport:
    """Make the topics that are missing, and wait until every partition of theirs has a leader.

    What exists is left as it is. Two calls at once are fine: what the other made counts as existing.

    Raises:
        BrokerUnavailable: no broker answers within ``connect_s``, or the topics are not ready within ``timeout_s``.
        BrokerRefused: the cluster does not allow it.
    """
    deadline = time.monotonic() + timeout_s
    with _admin(settings) as admin:
        present = _topics(admin, settings, connect_s)
        created = _create(admin, settings, [name for name in settings.all_topics if name not in present], timeout_s)
        _wait_for_leaders(admin, settings, created, deadline)
    return TopicsReport(tuple(created), tuple(name for name in settings.all_topics if name not in created))


def check_topics(settings: Settings, names: Iterable[str], *, timeout_s: float = 5.0) -> dict[str, int]:
    """Return how many partitions each of the topics has.

    Raises:
        BrokerUnavailable: no broker answers within ``timeout_s``; names the address.
        BrokerRefused: a topic is missing (or hidden from this user); names it and the remedy.
    """
    with _admin(settings) as admin:
        present = _topics(admin, settings, timeout_s)
    missing = [name for name in dict.fromkeys(names) if name not in present]
    if missing:
        what = f"topics {', '.join(missing)} are" if len(missing) > 1 else f"topic {missing[0]} is"
        raise BrokerRefused(
            f"{what} missing on {settings.kafka.bootstrap_servers}:"
            " run `stream-scorer topics create`, or check topics.* in the settings"
        )
    return {name: len(present[name].partitions) for name in names}


def existing_topics(settings: Settings, names: Iterable[str], *, timeout_s: float = 5.0) -> tuple[str, ...]:
    """Return those of the topics that exist, in the order given.

    Raises:
        BrokerUnavailable: no broker answers within ``timeout_s``; names the address.
    """
    with _admin(settings) as admin:
        present = _topics(admin, settings, timeout_s)
    return tuple(name for name in names if name in present)


class _Admin:
    """An admin client that remembers why it could not connect: its calls themselves only say that they timed out."""

    def __init__(self, settings: Settings) -> None:
        self._trouble: KafkaError | None = None
        config = admin_config(settings, logger=silent_logger())
        config["error_cb"] = self._remember
        self.client = AdminClient(config)

    def _remember(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its public name
            self._trouble = error

    def reason(self, error: KafkaException) -> KafkaException | KafkaError:
        self.client.poll(0)
        return self._trouble or error


@contextmanager
def _admin(settings: Settings) -> Iterator[_Admin]:
    try:
        admin = _Admin(settings)
    except KafkaException as error:
        raise translate(error, "kafka.properties") from None
    yield admin


def _topics(admin: _Admin, settings: Settings, timeout_s: float) -> dict[str, TopicMetadata]:
    # All topics: to ask for one by its name makes it, where the cluster creates topics by itself.
    try:
        listed = admin.client.list_topics(timeout=timeout_s).topics
    except KafkaException as error:
        raise _unreachable(admin.reason(error), settings, timeout_s) from None
    return {name: topic for name, topic in listed.items() if topic.error is None}


def _unreachable(error: KafkaException | KafkaError, settings: Settings, timeout_s: float) -> StreamScorerError:
    servers = settings.kafka.bootstrap_servers
    return translate(error, f"no answer from Kafka at {servers} within {timeout_s:g} s")


def _create(admin: _Admin, settings: Settings, missing: list[str], timeout_s: float) -> list[str]:
    if not missing:
        return []
    rejected = {settings.topics.rejected, settings.topics.callbacks_rejected}
    wanted = [
        NewTopic(
            name,
            num_partitions=PARTITIONS,
            replication_factor=BROKERS_REPLICATION,
            config={"max.message.bytes": str(REJECTED_MAX_MESSAGE_BYTES)} if name in rejected else {},
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
            raise translate(error, f"creating topic {name} on {settings.kafka.bootstrap_servers}") from None
        created.append(name)
    return created


def _wait_for_leaders(admin: _Admin, settings: Settings, names: list[str], deadline: float) -> None:
    """Wait: a topic is made before its partitions have leaders, and a producer started in between waits for seconds."""
    waiting = list(names)
    while waiting:
        present = _topics(admin, settings, max(deadline - time.monotonic(), 1.0))
        waiting = [name for name in waiting if not _is_ready(present.get(name))]
        if waiting and time.monotonic() > deadline:
            raise BrokerUnavailable(
                f"topic {waiting[0]} was created on {settings.kafka.bootstrap_servers} and has no leader yet:"
                " check whether the brokers run"
            )
        if waiting:
            time.sleep(_POLL_S)


def _is_ready(topic: TopicMetadata | None) -> bool:
    return topic is not None and bool(topic.partitions) and all(part.leader >= 0 for part in topic.partitions.values())
