"""Configuration of output topics: retain every record, and audit events for `audit.retention_days`.

A compacted topic keeps the last record of each key only, so outcomes vanish. It refuses a record without a key, which
stops the worker. Audit events are evidence, and the brokers' default would delete them after 7 days.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from stream_scorer.errors import BrokerRefused
from stream_scorer.kafka.admin.acls import Permission, refused_error
from stream_scorer.kafka.admin.topic_configs import describe_topics
from stream_scorer.kafka.client.config import admin_config, silent_logger
from stream_scorer.kafka.client.factory import create_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_scorer.settings import Settings

_DAY_MS: Final = 86_400_000
_CALL_S: Final = 10.0
# A cluster may have another policy as its default.
OUTPUT_CONFIG: Final = {"cleanup.policy": "delete"}


class OutputsReport(NamedTuple):
    """Shortcomings of output topics, one line each; None: none found.

    ``audit_retention``: audit events are deleted too early. ``unchecked``: a configuration is not visible to this user.
    """

    audit_retention: str | None
    unchecked: str | None


def audit_config(settings: Settings) -> dict[str, str]:
    """Return the properties of a new audit topic."""
    return {**OUTPUT_CONFIG, "retention.ms": str(_audit_retention_ms(settings))}


def check_outputs(settings: Settings, outputs: Iterable[str]) -> OutputsReport:
    """Check that no output topic is compacted, and the retention of the audit topic if it is among them.

    Raises:
        BrokerRefused: an output topic is compacted.
    """
    admin = create_client(AdminClient, admin_config(settings, logger=silent_logger()))
    names = list(dict.fromkeys(outputs))
    found = describe_topics(admin, names)
    for name, properties in found.items():
        policy = properties.get("cleanup.policy", "delete")
        if "compact" in policy:
            raise BrokerRefused(
                f"topic {name} has cleanup.policy={policy}: it would keep one outcome of each key only, and refuse"
                " those without a key. Set cleanup.policy to delete (kafka-configs --alter --entity-type topics"
                f" --entity-name {name} --add-config cleanup.policy=delete), or name another topic in topics.*"
            )
    hidden = ", ".join(name for name in names if name not in found)
    unchecked = None
    if hidden:
        audit = settings.topics.audit
        kept = f" and that {audit} keeps records for {settings.audit.retention_days} days" if audit in names else ""
        unchecked = (
            f"the brokers do not show the configuration of {hidden}: check by hand that cleanup.policy is delete{kept},"
            " or grant DescribeConfigs"
        )
    return OutputsReport(_audit_shortage(settings, found.get(settings.topics.audit)), unchecked)


def update_audit_retention(settings: Settings) -> bool:
    """Set the retention of the audit topic to `audit.retention_days`; return False if it is that long already.

    Raises:
        BrokerRefused: the topic or the right to alter its configuration is missing.
        BrokerUnavailable: no broker answers.
    """
    properties = admin_config(settings, logger=silent_logger())
    admin = create_client(AdminClient, properties)
    topic = settings.topics.audit
    present = describe_topics(admin, [topic]).get(topic)
    if present is not None and _audit_shortage(settings, present) is None:
        return False
    value = str(_audit_retention_ms(settings))
    resource = ConfigResource(ResourceType.TOPIC, topic)
    resource.add_incremental_config(ConfigEntry("retention.ms", value, incremental_operation=AlterConfigOpType.SET))
    for future in admin.incremental_alter_configs([resource], request_timeout=_CALL_S).values():
        try:
            future.result()
        except KafkaException as error:
            doing = f"setting retention.ms of topic {topic}"
            raise refused_error(error, doing, properties, Permission("AlterConfigs", "topic", topic)) from None
    return True


def decisions_shortage(settings: Settings) -> str | None:
    """Return one line if the topic of decisions deletes them too early; None: it does not, or is not shown."""
    topic = settings.topics.decisions
    admin = create_client(AdminClient, admin_config(settings, logger=silent_logger()))
    kept_days = _short_days(settings, describe_topics(admin, [topic]).get(topic))
    if kept_days is None:
        return None
    return (
        f"topic {topic} keeps decisions for {kept_days:.3g} days, and audit.retention_days is"
        f" {settings.audit.retention_days}: set its retention.ms to {_audit_retention_ms(settings)}, or lower the"
        " setting"
    )


def _audit_shortage(settings: Settings, properties: Mapping[str, str] | None) -> str | None:
    kept_days = _short_days(settings, properties)
    if kept_days is None:
        return None
    return (
        f"topic {settings.topics.audit} keeps audit events for {kept_days:.3g} days, and"
        f" audit.retention_days is {settings.audit.retention_days}: run `stream-scorer topics create"
        " --update-retention`, or lower the setting"
    )


def _short_days(settings: Settings, properties: Mapping[str, str] | None) -> float | None:
    """Return a retention below `audit.retention_days`; None: it is unlimited, long enough, or not shown."""
    kept = (properties or {}).get("retention.ms", "")
    return int(kept) / _DAY_MS if kept.isdigit() and int(kept) < _audit_retention_ms(settings) else None


def _audit_retention_ms(settings: Settings) -> int:
    return settings.audit.retention_days * _DAY_MS
