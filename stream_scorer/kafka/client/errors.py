"""Translation of confluent-kafka's errors into the service's error tree.

The table gives error class and remedy for every code that the client knows; a test fails when a new version of the
client has a code without an entry. Errors inside a transaction are decided in `kafka.producer`, by the client's own
flags. This table is for errors that end a command.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException

from stream_scorer.errors import (
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    ProducerFenced,
    SettingsError,
    StreamScorerError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

# Results of the handshake that do not change by waiting.
AUTH_ERRORS: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})  # noqa: SLF001 - their public names
_UNAVAILABLE: Final = """
    _ALL_BROKERS_DOWN _DESTROY_BROKER _FAIL _IN_PROGRESS _ISR_INSUFF _MSG_TIMED_OUT _NODE_UPDATE _OUTDATED
    _PREV_IN_PROGRESS _PURGE_INFLIGHT _PURGE_QUEUE _QUEUE_FULL _RESOLVE _RETRY _TIMED_OUT _TIMED_OUT_QUEUE _TRANSPORT
    _WAIT_CACHE _WAIT_COORD _INTR
    BROKER_NOT_AVAILABLE CONCURRENT_TRANSACTIONS COORDINATOR_LOAD_IN_PROGRESS COORDINATOR_NOT_AVAILABLE
    ELIGIBLE_LEADERS_NOT_AVAILABLE FENCED_LEADER_EPOCH FETCH_SESSION_ID_NOT_FOUND INVALID_FETCH_SESSION_EPOCH
    KAFKA_STORAGE_ERROR LEADER_NOT_AVAILABLE LISTENER_NOT_FOUND LOG_DIR_NOT_FOUND NETWORK_EXCEPTION NOT_CONTROLLER
    NOT_COORDINATOR NOT_ENOUGH_REPLICAS NOT_ENOUGH_REPLICAS_AFTER_APPEND NOT_LEADER_FOR_PARTITION OFFSET_NOT_AVAILABLE
    PREFERRED_LEADER_NOT_AVAILABLE REASSIGNMENT_IN_PROGRESS REBALANCE_IN_PROGRESS REBOOTSTRAP_REQUIRED
    REPLICA_NOT_AVAILABLE REQUEST_TIMED_OUT STALE_BROKER_EPOCH STALE_CTRL_EPOCH THROTTLING_QUOTA_EXCEEDED
    TRANSACTION_ABORTABLE UNKNOWN_CONTROLLER_ID UNKNOWN_LEADER_EPOCH UNKNOWN_TOPIC_ID UNSTABLE_OFFSET_COMMIT
    INCONSISTENT_TOPIC_ID SHARE_SESSION_LIMIT_REACHED SHARE_SESSION_NOT_FOUND INVALID_SHARE_SESSION_EPOCH
"""

_REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "check ssl.* and security.protocol in kafka.properties, and that the brokers' certificate bears the host"
        " name in kafka.bootstrap_servers": "_SSL",
        "check kafka.properties (sasl.*, ssl.*) and the user's credentials": """
            _AUTHENTICATION ILLEGAL_SASL_STATE SASL_AUTHENTICATION_FAILED SECURITY_DISABLED
            UNSUPPORTED_SASL_MECHANISM DELEGATION_TOKEN_AUTHORIZATION_FAILED DELEGATION_TOKEN_AUTH_DISABLED
            DELEGATION_TOKEN_EXPIRED DELEGATION_TOKEN_NOT_FOUND DELEGATION_TOKEN_OWNER_MISMATCH
            DELEGATION_TOKEN_REQUEST_NOT_ALLOWED INVALID_PRINCIPAL_TYPE PRINCIPAL_DESERIALIZATION_FAILURE
            UNACCEPTABLE_CREDENTIAL""",
        "ask the cluster's administrator for the right (ACL) that is missing": """
            CLUSTER_AUTHORIZATION_FAILED GROUP_AUTHORIZATION_FAILED TOPIC_AUTHORIZATION_FAILED
            TRANSACTIONAL_ID_AUTHORIZATION_FAILED""",
        "check topics.*, or make the topics with `stream-scorer topics create`": """
            _UNKNOWN_PARTITION _UNKNOWN_TOPIC UNKNOWN_TOPIC_OR_PART TOPIC_EXCEPTION TOPIC_ALREADY_EXISTS
            TOPIC_DELETION_DISABLED""",
        "the committed offsets are no longer in the log: set a new start for the group on purpose": """
            _AUTO_OFFSET_RESET _LOG_TRUNCATION _NO_OFFSET OFFSET_OUT_OF_RANGE""",
        "the cluster's limits or policies do not allow it: ask its administrator": """
            INVALID_CONFIG INVALID_PARTITIONS INVALID_REPLICATION_FACTOR INVALID_REPLICA_ASSIGNMENT
            INVALID_REQUIRED_ACKS INVALID_TRANSACTION_TIMEOUT INVALID_RECORD
            INVALID_MSG_SIZE INVALID_COMMIT_OFFSET_SIZE MSG_SIZE_TOO_LARGE OFFSET_METADATA_TOO_LARGE POLICY_VIOLATION
            RECORD_LIST_TOO_LARGE GROUP_MAX_SIZE_REACHED TELEMETRY_TOO_LARGE""",
        "this machine's clock is wrong: set it right (the topic's message.timestamp.after.max.ms and .before.max.ms say"
        " how wrong it may be)": "INVALID_TIMESTAMP",
        "kafka.properties: session.timeout.ms must be between the brokers' group.min.session.timeout.ms and"
        " group.max.session.timeout.ms (by default 6000 and 1800000)": "INVALID_SESSION_TIMEOUT",
        "another client uses the group otherwise: check kafka.group_id": """
            _ASSIGNMENT_LOST FENCED_INSTANCE_ID FENCED_MEMBER_EPOCH GROUP_ID_NOT_FOUND GROUP_SUBSCRIBED_TO_TOPIC
            ILLEGAL_GENERATION INCONSISTENT_GROUP_PROTOCOL INVALID_GROUP_ID MEMBER_ID_REQUIRED NON_EMPTY_GROUP
            STALE_MEMBER_EPOCH UNKNOWN_MEMBER_ID UNRELEASED_INSTANCE_ID UNSUPPORTED_ASSIGNOR _UNKNOWN_GROUP
            _MAX_POLL_EXCEEDED""",
        "the brokers are too old or too different: Apache Kafka 2.5 or newer is needed": """
            _UNKNOWN_PROTOCOL _UNSUPPORTED_FEATURE INVALID_REGISTRATION INVALID_UPDATE_VERSION
            MISMATCHED_ENDPOINT_TYPE UNSUPPORTED_COMPRESSION_TYPE UNSUPPORTED_ENDPOINT_TYPE
            UNSUPPORTED_FOR_MESSAGE_FORMAT UNSUPPORTED_VERSION FEATURE_UPDATE_FAILED""",
    }
)

# State details that librdkafka appends for its developers.
_STATE: Final = re.compile(r" \(after \d+ms in state .*\)$")

_FENCED: Final = "_FENCED PRODUCER_FENCED INVALID_PRODUCER_EPOCH TRANSACTION_COORDINATOR_FENCED"

_SETTINGS: Final = "_INVALID_ARG _NOT_CONFIGURED"

# Without a remedy for the operator: a bug of the service or the client, or a signal that is no error.
_UNEXPECTED: Final = """
    NO_ERROR UNKNOWN _APPLICATION _ASSIGN_PARTITIONS _BAD_COMPRESSION _BAD_MSG _CONFLICT _CRIT_SYS_RESOURCE _DESTROY
    _EXISTING_SUBSCRIPTION _FATAL _FS _GAPLESS_GUARANTEE _INCONSISTENT _INVALID_DIFFERENT_RECORD _INVALID_TYPE
    _KEY_DESERIALIZATION _KEY_SERIALIZATION _NOENT _NOOP _NOT_IMPLEMENTED _PARTIAL _PARTITION_EOF _READ_ONLY
    _REVOKE_PARTITIONS _STATE _UNDERFLOW _UNKNOWN_BROKER _VALUE_DESERIALIZATION _VALUE_SERIALIZATION
    DUPLICATE_RESOURCE DUPLICATE_SEQUENCE_NUMBER DUPLICATE_VOTER ELECTION_NOT_NEEDED FENCED_STATE_EPOCH
    INCONSISTENT_VOTER_SET INVALID_MSG INVALID_PRODUCER_ID_MAPPING INVALID_RECORD_STATE INVALID_REGULAR_EXPRESSION
    INVALID_REQUEST INVALID_TXN_STATE INVALID_VOTER_KEY NO_REASSIGNMENT_IN_PROGRESS OPERATION_NOT_ATTEMPTED
    OUT_OF_ORDER_SEQUENCE_NUMBER RESOURCE_NOT_FOUND STREAMS_INVALID_TOPOLOGY STREAMS_INVALID_TOPOLOGY_EPOCH
    STREAMS_TOPOLOGY_FENCED UNKNOWN_PRODUCER_ID UNKNOWN_SUBSCRIPTION_ID VOTER_NOT_FOUND
"""


def _codes(names: str) -> dict[str, int]:
    """Return the codes of the names that this version of the client has."""
    return {name: getattr(KafkaError, name) for name in names.split() if hasattr(KafkaError, name)}


def _table() -> dict[int, tuple[type[StreamScorerError], str]]:
    groups: list[tuple[str, type[StreamScorerError], str]] = [
        (_UNAVAILABLE, BrokerUnavailable, "check kafka.bootstrap_servers and whether the brokers run"),
        (_FENCED, ProducerFenced, "another running worker has this kafka.instance_id: give each its own"),
        (_SETTINGS, SettingsError, "check kafka.properties"),
        (_UNEXPECTED, BrokerError, ""),
        *((names, BrokerRefused, remedy) for remedy, names in _REFUSED.items()),
    ]
    return {code: (kind, remedy) for names, kind, remedy in groups for code in _codes(names).values()}


TRANSLATIONS: Final[Mapping[int, tuple[type[StreamScorerError], str]]] = MappingProxyType(_table())


def translate(error: KafkaException | KafkaError, doing: str) -> StreamScorerError:
    """Return a foreign error as one of the service's own, for the caller to raise.

    Args:
        error: raised by the client, or passed to a callback.
        doing: the action and its place, the beginning of the message: ``reading the topics of 127.0.0.1:9092``.
    """
    inner = error.args[0] if isinstance(error, KafkaException) and error.args else error
    if not isinstance(inner, KafkaError):
        return BrokerError(f"{doing}: the client has raised an error without a code")
    kind, remedy = TRANSLATIONS.get(inner.code(), (BrokerError, ""))
    # The text may quote foreign input, with control characters for a terminal.
    printable = "".join(one if one.isprintable() else " " for one in inner.str() or inner.name())
    text = _STATE.sub("", " ".join(printable.split()))
    return kind(f"{doing}: {text}; {remedy}" if remedy else f"{doing}: {text}")
