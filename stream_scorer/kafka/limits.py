"""How large a record each topic takes, so that none is sent that the broker would refuse for its size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from stream_scorer.kafka.clients import made
from stream_scorer.kafka.config import admin_config, silent_logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.settings import Settings

# The broker's default of message.max.bytes, for topics whose configuration we may not read.
DEFAULT_MAX_BYTES: Final = 1_048_588
_CALL_S: Final = 10.0


def max_message_bytes(settings: Settings, topics: Iterable[str]) -> dict[str, int]:
    """``max.message.bytes`` of each topic: the largest record batch it takes, in bytes.

    Where the right to read it is missing, Kafka's default is assumed; a record that is refused nonetheless becomes
    ``unpublishable``, it only costs more to find out.
    """
    names = list(dict.fromkeys(topics))
    admin = made(AdminClient, admin_config(settings, logger=silent_logger()))
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    limits = dict.fromkeys(names, DEFAULT_MAX_BYTES)
    for resource, future in admin.describe_configs(resources, request_timeout=_CALL_S).items():
        if future.exception() is not None:  # not raised: its traceback would hold the client
            continue
        try:
            limits[resource.name] = int(future.result()["max.message.bytes"].value)
        except (KeyError, TypeError, ValueError):
            continue
    return limits
