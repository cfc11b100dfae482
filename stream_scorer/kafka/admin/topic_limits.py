"""Maximum record size of each topic, so that no record is sent that the broker would refuse for its size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confluent_kafka.admin import AdminClient

from stream_scorer.kafka.admin.topic_configs import describe_topics
from stream_scorer.kafka.client.config import admin_config, silent_logger
from stream_scorer.kafka.client.factory import create_client

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.settings import Settings

# The broker's default of message.max.bytes, for topics whose configuration is not readable.
DEFAULT_MAX_BYTES: Final = 1_048_588


def max_message_bytes(settings: Settings, topics: Iterable[str]) -> dict[str, int]:
    """Return ``max.message.bytes`` of each topic: the largest record batch that it accepts, in bytes.

    Without the right to read it, Kafka's default is assumed. A record that the broker refuses nonetheless becomes
    ``unpublishable``, at the cost of a failed transaction.
    """
    names = list(dict.fromkeys(topics))
    admin = create_client(AdminClient, admin_config(settings, logger=silent_logger()))
    limits = dict.fromkeys(names, DEFAULT_MAX_BYTES)
    for name, properties in describe_topics(admin, names).items():
        try:
            limits[name] = int(properties["max.message.bytes"])
        except (KeyError, ValueError):
            continue
    return limits
