"""Access rights (ACLs) that each command needs, and the errors that name a missing one.

A broker answers only "Topic authorization failed", often without the topic. The rights on topics are read with
`describe_topics` (KIP-430) at the start of a command, and again after a denial. The API has no such query for
transactional ids: the first session shows them. It has one for groups, but its time-out can abort the
process (an assertion of librdkafka), so joining shows them. The table of rights in docs/security.md is generated
from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from stream_scorer.doc_pages import docs_command
from stream_scorer.errors import BrokerRefused, StreamScorerError
from stream_scorer.kafka.client.config import admin_config, silent_logger
from stream_scorer.kafka.client.errors import translate
from stream_scorer.kafka.client.factory import create_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from stream_scorer.settings import Settings

Operation = Literal["Read", "Write", "Describe", "Create", "AlterConfigs"]
Resource = Literal["topic", "group", "transactional id"]

# Of the transactional ids of jobs: the decided topic and partition follow.
DESK_ID_PREFIX: Final = "stream-scorer-desk-"
_CALL_S: Final = 5.0
_DESCRIBE: Final = "DESCRIBE"
# Error codes of a missing right.
DENIALS: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """Operation on a resource, in the words of ``kafka-acls``. Read and Write imply Describe."""

    operation: Operation
    resource: Resource
    name: str

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}"


def scoring_rights(settings: Settings) -> tuple[Permission, ...]:
    """Return the rights that ``run`` needs."""
    topics, kafka = settings.topics, settings.kafka
    retries = settings.contact_retry_topics
    return (
        *_all("Read", (topics.features, *retries)),
        *_all("Write", (topics.scores, topics.review, topics.rejected, topics.audit, *retries)),
        Permission("Read", "group", kafka.group_id),
        Permission("Write", "transactional id", kafka.transactional_id),
    )


def callback_rights(settings: Settings) -> tuple[Permission, ...]:
    """Return the rights that ``callbacks`` needs."""
    topics = settings.topics
    retries = topics.retries(len(settings.callbacks.retry_delays_s))
    groups = (settings.callbacks_group_id, settings.delivery_group_id)
    return (
        *_all("Read", (topics.scores, topics.callbacks, *retries, topics.receipts)),
        *_all("Write", (topics.callbacks, *retries, topics.callbacks_rejected, topics.receipts)),
        *(Permission("Read", "group", group) for group in groups),
        Permission("Write", "transactional id", settings.planner_transactional_id),
        Permission("Write", "transactional id", settings.deliverer_transactional_id),
    )


def producing_rights(settings: Settings) -> tuple[Permission, ...]:
    """Return the rights that ``produce`` needs."""
    return (Permission("Write", "topic", settings.topics.features),)


def rejected_desk_rights(settings: Settings) -> tuple[Permission, ...]:
    """Return the rights that the commands ``rejected`` need; only ``replay`` and ``discard`` write."""
    topics = settings.topics
    return (
        *_all("Read", (topics.rejected, topics.features, topics.decisions)),
        *_all("Write", (topics.features, topics.decisions)),
        Permission("Write", "transactional id", f"{DESK_ID_PREFIX}{topics.rejected}-*"),
    )


def review_desk_rights(settings: Settings) -> tuple[Permission, ...]:
    """Return the rights that the commands ``review`` need; only ``accept`` and ``discard`` write."""
    topics = settings.topics
    return (
        *_all("Read", (topics.review, topics.decisions)),
        *_all("Write", (topics.scores, topics.decisions)),
        Permission("Write", "transactional id", f"{DESK_ID_PREFIX}{topics.review}-*"),
    )


def deliveries_desk_rights(settings: Settings) -> tuple[Permission, ...]:
    """Return the rights that the commands ``deliveries`` need; only ``replay`` and ``discard`` write."""
    topics = settings.topics
    retries = topics.retries(len(settings.callbacks.retry_delays_s))
    return (
        *_all("Read", (topics.callbacks_rejected, topics.receipts, *retries, topics.decisions, topics.scores)),
        *_all("Write", (topics.callbacks, topics.decisions)),
        Permission("Describe", "group", settings.delivery_group_id),
        Permission("Write", "transactional id", f"{DESK_ID_PREFIX}{topics.callbacks_rejected}-*"),
    )


def creating_rights(settings: Settings) -> tuple[Permission, ...]:
    """Return the rights that ``topics create`` needs; Describe shows when a topic is ready."""
    return (*_all("Create", settings.all_topics), *_all("Describe", settings.all_topics))


def reconciling_rights(settings: Settings) -> tuple[Permission, ...]:
    """Return the rights that ``reconcile`` needs for scores; `reconciling_callbacks_rights` has those for callbacks."""
    topics = (*settings.scoring_topics, settings.topics.decisions)
    return (*_all("Read", topics), Permission("Describe", "group", settings.kafka.group_id))


def reconciling_callbacks_rights(settings: Settings) -> tuple[Permission, ...]:
    """Return the additional rights that ``reconcile`` needs for callbacks."""
    campaign = (*settings.campaign_topics, settings.topics.decisions)
    groups = (settings.callbacks_group_id, settings.delivery_group_id)
    return (*_all("Read", campaign), *(Permission("Describe", "group", group) for group in groups))


def reading_rights(settings: Settings, topics: Iterable[str] | None = None) -> tuple[Permission, ...]:
    """Return the rights that ``read`` needs for some topics, and ``audit show`` for all; no group is needed."""
    return _all("Read", settings.all_topics if topics is None else topics)


def _all(operation: Operation, topics: Iterable[str]) -> tuple[Permission, ...]:
    return tuple(Permission(operation, "topic", name) for name in dict.fromkeys(topics))


# --- principals and errors


def principal(properties: Mapping[str, Any]) -> str:
    """Return the principal that the properties suggest; mapping rules of the brokers may give another one."""
    protocol = str(properties.get("security.protocol", "plaintext")).lower()
    if protocol.startswith("sasl"):
        for name in ("sasl.username", "sasl.oauthbearer.client.id", "sasl.kerberos.principal"):
            if given := properties.get(name):
                return f"User:{given}"
        return "this client's principal"
    if protocol == "ssl":
        for name in ("ssl.certificate.location", "ssl.keystore.location"):
            if given := properties.get(name):
                return f"the subject of {name} {given}"
        return "the subject of ssl.certificate.pem" if "ssl.certificate.pem" in properties else "User:ANONYMOUS"
    return "User:ANONYMOUS"


def denied_error(properties: Mapping[str, Any], missing: Sequence[Permission]) -> str:
    """Return one line with the address, the principal, the missing rights and the remedy."""
    rights = ", ".join(str(right) for right in missing)
    them = "this right (ACL)" if len(missing) == 1 else "these rights (ACLs)"
    return (
        f"Kafka at {properties.get('bootstrap.servers')} denies {principal(properties)}: {rights};"
        f" ask the cluster's administrator for {them}, see {docs_command('security', 'the-least-rights')}"
    )


def refused_error(
    error: KafkaException | KafkaError, doing: str, properties: Mapping[str, Any], right: Permission
) -> StreamScorerError:
    """Translate an error; a denial names the missing right and the principal."""
    inner = error.args[0] if isinstance(error, KafkaException) and error.args else error
    if isinstance(inner, KafkaError) and inner.code() in DENIALS:
        return BrokerRefused(f"{doing}: {denied_error(properties, [right])}")
    return translate(error, doing)


# --- queries


def denied_message(settings: Settings, rights: Sequence[Permission]) -> str | None:
    """Return one line about the missing rights that the brokers report; None: they report none."""
    properties = admin_config(settings, logger=silent_logger())
    missing = missing_rights(create_client(AdminClient, properties), rights)
    return denied_error(properties, missing) if missing else None


def missing_rights(admin: AdminClient, rights: Sequence[Permission]) -> list[Permission]:
    """Return the rights that the brokers report as missing.

    A right without a report counts as granted: on groups, transactional ids and missing topics, and where brokers do
    not answer or are older than KIP-430.
    """
    topics = list(dict.fromkeys(right.name for right in rights if right.resource == "topic"))
    if not topics:
        return []
    try:
        collection = TopicCollection(topics)
        asked = admin.describe_topics(collection, include_authorized_operations=True, request_timeout=_CALL_S)
    except KafkaException:
        return []
    known = {name: _operations(future) for name, future in asked.items()}
    return [right for right in rights if right.resource == "topic" and _is_missing(right, known.get(right.name))]


def _operations(future: Future[Any]) -> frozenset[str] | None:
    """Return the names of the allowed operations; None: unknown."""
    try:
        # Not raised: the traceback would keep the admin client alive, one more every second (`kafka.producer.sink`).
        error = future.exception(2 * _CALL_S)
    except TimeoutError:
        return None
    if error is not None:
        return frozenset() if isinstance(error, KafkaException) and error.args[0].code() in DENIALS else None
    names = frozenset(operation.name for operation in future.result().authorized_operations or ())
    # Without Describe the broker returns an empty list, which does not mean that all is denied.
    return names if _DESCRIBE in names else None


def _is_missing(right: Permission, operations: frozenset[str] | None) -> bool:
    return operations is not None and right.operation.upper() not in operations
