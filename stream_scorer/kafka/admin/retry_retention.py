"""Retention of the retry topics of contacts: at least as long as a contact may wait there.

A record deleted before it is due is a contact without an outcome. So a retry topic retains records as long as the
features topic does, and at least 30 days. It is not compacted, since a later record of the same contact would replace
an earlier one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confluent_kafka.admin import AdminClient

from stream_scorer.errors import BrokerRefused
from stream_scorer.kafka.admin.topic_configs import describe_topics
from stream_scorer.kafka.client.config import admin_config, silent_logger
from stream_scorer.kafka.client.factory import create_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_scorer.settings import Settings

_DAY_MS: Final = 86_400_000
LEAST_RETENTION_MS: Final = 30 * _DAY_MS
_UNLIMITED: Final = -1


def retry_topic_config(admin: AdminClient, features: str, *, at_least_ms: int | None = None) -> dict[str, str]:
    """Return the properties of a new retry topic for contacts of the topic ``features``.

    ``at_least_ms``: a retention that was asked for; it counts where it is longer than the needed one.
    """
    needed_ms = _needed_ms(describe_topics(admin, [features]).get(features, {}))
    kept_ms = needed_ms if needed_ms == _UNLIMITED else max(needed_ms, at_least_ms or 0)
    return {"cleanup.policy": "delete", "retention.ms": str(kept_ms)}


def check_retry_retention(settings: Settings, retry_topics: Iterable[str]) -> str | None:
    """Check that no retry topic deletes a contact before it is due.

    Returns:
        One line about configurations that are not visible to this user; None: all are.

    Raises:
        BrokerRefused: a retry topic is compacted, or its retention is too short.
    """
    admin = create_client(AdminClient, admin_config(settings, logger=silent_logger()))
    names = list(retry_topics)
    features = settings.topics.features
    found = describe_topics(admin, [features, *names])
    needed_ms = _needed_ms(found.get(features, {}))
    for name in names:
        if name in found:
            _check(name, found[name], needed_ms, features)
    if hidden := [name for name in (features, *names) if name not in found]:
        return (
            f"the brokers do not show the configuration of {', '.join(hidden)}: check by hand that retry topics have"
            f" cleanup.policy=delete and keep records for 30 days and as long as {features}, or grant DescribeConfigs"
        )
    return None


def _check(name: str, properties: Mapping[str, str], needed_ms: int, features: str) -> None:
    policy = properties.get("cleanup.policy", "delete")
    if policy != "delete":
        raise BrokerRefused(
            f"topic {name} has cleanup.policy={policy}, which deletes contacts that wait there: set it to delete"
        )
    kept_ms = _retention_ms(properties)
    if kept_ms != _UNLIMITED and (needed_ms == _UNLIMITED or kept_ms < needed_ms):
        raise BrokerRefused(
            f"topic {name} keeps records for {kept_ms / _DAY_MS:.3g} days, and contacts that wait there need 30 days"
            f" and as long as {features} keeps them: set its retention.ms to {needed_ms}"
        )


def _needed_ms(features: Mapping[str, str]) -> int:
    kept_ms = _retention_ms(features) if "retention.ms" in features else LEAST_RETENTION_MS
    return _UNLIMITED if kept_ms == _UNLIMITED else max(kept_ms, LEAST_RETENTION_MS)


def _retention_ms(properties: Mapping[str, str]) -> int:
    value = properties.get("retention.ms", "")
    return int(value) if value.isdigit() else _UNLIMITED
