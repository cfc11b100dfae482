"""Admin client that names the reason of a failed connection.

librdkafka itself reports only that its call timed out.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from stream_scorer.kafka.client.config import admin_config, silent_logger
from stream_scorer.kafka.client.errors import AUTH_ERRORS, translate
from stream_scorer.kafka.client.factory import create_client
from stream_scorer.redaction.properties import property_redactor

if TYPE_CHECKING:
    from confluent_kafka.admin._metadata import ClusterMetadata, TopicMetadata

    from stream_scorer.errors import StreamScorerError
    from stream_scorer.settings import Settings

# Limit of one call, doubled after each. Short at first, since error callbacks run only between two calls. Long in the
# end, since a slow line answers too late for any short one.
_FIRST_POLL_S: Final = 0.5
_PAUSE_S: Final = 0.25
# TLS handshake errors that the client reports as transport errors.
_ABOUT_TLS: Final = ("alert", "PLAINTEXT broker listener", "SSL handshake failed")
_NO_TOKEN: Final = "Failed to acquire SASL OAUTHBEARER token"  # noqa: S105 - the client's text  # nosec B105


class _ErrorRecorder:
    """Last errors of the client's ``error_cb``.

    Separate from the owner of the client: a reference cycle through the callback would keep both alive.
    """

    def __init__(self) -> None:
        self.last_error: KafkaError | None = None
        self._all_down = False

    def error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its public name
            self._all_down = True
        elif error.code() == KafkaError._TRANSPORT and any(sign in error.str() for sign in _ABOUT_TLS):  # noqa: SLF001
            self.last_error = KafkaError(KafkaError._SSL, error.str())  # noqa: SLF001
        else:
            self.last_error = error

    def is_permanent(self) -> bool:
        """Return whether all brokers refused authentication, or no OAUTHBEARER token was issued."""
        if self.last_error is None or self.last_error.code() not in AUTH_ERRORS:
            return False
        return self._all_down or self.last_error.str().startswith(_NO_TOKEN)


class ClusterAdmin:
    """Admin client of one cluster.

    Attributes:
        client: confluent-kafka's admin client.
        properties: its properties, without callbacks.

    Raises:
        SettingsError: on construction; ``kafka.properties`` is invalid.
    """

    def __init__(self, settings: Settings) -> None:
        self._servers = settings.kafka.bootstrap_servers
        self._heard = _ErrorRecorder()
        self.properties = admin_config(settings, logger=silent_logger())
        self.client = create_client(AdminClient, {**self.properties, "error_cb": self._heard.error})

    def cluster_id(self, timeout_s: float) -> str:
        """Return the id of the cluster.

        Raises:
            BrokerUnavailable: no broker answers within ``timeout_s``; names the address.
            BrokerRefused: the brokers refuse the connection: credentials, certificates, protocol.
        """
        return str(self._listed(timeout_s).cluster_id)

    def topics(self, timeout_s: float) -> dict[str, TopicMetadata]:
        """Return all topics that are visible to this user, by name.

        Not by a query for one name, which would create the topic where ``auto.create.topics.enable`` is set.

        Raises:
            BrokerUnavailable: no broker answers within ``timeout_s``; names the address.
            BrokerRefused: the brokers refuse the connection: credentials, certificates, protocol.
        """
        listed = self._listed(timeout_s).topics
        return {name: topic for name, topic in listed.items() if topic.error is None}

    def _listed(self, timeout_s: float) -> ClusterMetadata:
        give_up_at = time.monotonic() + timeout_s
        look_s = _FIRST_POLL_S
        while True:
            left_s = give_up_at - time.monotonic()
            try:
                return self.client.list_topics(timeout=max(0.1, min(look_s, left_s)))
            except KafkaException as error:
                self.client.poll(0)
                still_left_s = give_up_at - time.monotonic()
                if self._heard.is_permanent() or still_left_s <= 0:
                    raise self._why(error, timeout_s) from None
            if left_s - still_left_s < look_s / 2:
                # Closed at once, such as by a load balancer without a backend: the time was not used up, so keep it.
                time.sleep(min(_PAUSE_S, still_left_s))
            else:
                look_s *= 2

    def _why(self, error: KafkaException, timeout_s: float) -> StreamScorerError:
        trouble = self._heard.last_error
        if trouble is not None and trouble.code() in AUTH_ERRORS:
            redacted = KafkaError(trouble.code(), property_redactor(self.properties)(trouble.str()))
            return translate(redacted, f"authentication with Kafka at {self._servers} failed")
        doing = f"no answer from Kafka at {self._servers} within {timeout_s:g} s{self._hint()}"
        return translate(trouble or error, doing)

    def _hint(self) -> str:
        """Return the property that a broker without an answer may need, by the security protocol in use."""
        protocol = str(self.properties.get("security.protocol", "plaintext")).lower()
        if protocol.endswith("plaintext"):
            return " (if its port speaks TLS, set security.protocol in kafka.properties)"
        if protocol == "ssl":
            return " (if its port asks for a user, set security.protocol in kafka.properties to SASL_SSL)"
        if "sasl.oauthbearer.token.endpoint.url" in self.properties:
            return " (or the login service of sasl.oauthbearer.token.endpoint.url gives no token)"
        return ""
