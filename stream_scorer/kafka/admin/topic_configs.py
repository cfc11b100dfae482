"""Configurations of topics, as far as this user may read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from confluent_kafka.admin import AdminClient

_CALL_S: Final = 10.0


def describe_topics(admin: AdminClient, topics: Iterable[str]) -> dict[str, Mapping[str, str]]:
    """Return the properties of each topic, without topics whose configuration this user may not read."""
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in dict.fromkeys(topics)]
    found: dict[str, Mapping[str, str]] = {}
    if not resources:
        return found
    for resource, future in admin.describe_configs(resources, request_timeout=_CALL_S).items():
        if future.exception() is not None:  # not raised: its traceback would keep the client alive
            continue
        found[resource.name] = {name: str(entry.value) for name, entry in future.result().items()}
    return found
