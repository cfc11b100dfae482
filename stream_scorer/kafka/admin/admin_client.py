"""An admin client that says why it is not let in, instead of only that its call timed out."""

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

# How long one look may take, doubled from look to look: short at first, since an error is told of between two looks
# only; long in the end, since an answer over a slow line comes too late for every short one.
_FIRST_POLL_S: Final = 0.5
_PAUSE_S: Final = 0.25
# A broken handshake that the client takes for a broken line.
_ABOUT_TLS: Final = ("alert", "PLAINTEXT broker listener", "SSL handshake failed")
_NO_TOKEN: Final = "Failed to acquire SASL OAUTHBEARER token"  # noqa: S105 - what the client says  # nosec B105


class _ErrorRecorder:
    """What the client told of by its callback; no part of whoever has the client, or neither would end by itself."""

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
        """Whether all brokers, not only one of them, have said no; or nobody gives us a token to show them."""
        if self.last_error is None or self.last_error.code() not in AUTH_ERRORS:
            return False
        return self._all_down or self.last_error.str().startswith(_NO_TOKEN)


class ClusterAdmin:
    """See the module's text.

    Attributes:
        client: confluent-kafka's own.
        properties: what it was made with, but for its callbacks.

    Raises:
        SettingsError: on construction, where ``kafka.properties`` cannot work.
    """

    def __init__(self, settings: Settings) -> None:
        self._servers = settings.kafka.bootstrap_servers
        self._heard = _ErrorRecorder()
        self.properties = admin_config(settings, logger=silent_logger())
        self.client = create_client(AdminClient, {**self.properties, "error_cb": self._heard.error})

    def cluster_id(self, timeout_s: float) -> str:
        """Return the cluster's own id.

        Raises:
            BrokerUnavailable: no broker answers within ``timeout_s``; names the address.
            BrokerRefused: they answer, and do not let us in: credentials, certificates, protocol.
        """
        return str(self._listed(timeout_s).cluster_id)

    def topics(self, timeout_s: float) -> dict[str, TopicMetadata]:
        """Return all topics that this user may see, by name.

        All of them: to ask for one by its name makes it, where the cluster creates topics by itself.

        Raises:
            BrokerUnavailable: no broker answers within ``timeout_s``; names the address.
            BrokerRefused: they answer, and do not let us in: credentials, certificates, protocol.
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
                # Whoever hangs up at once (a load balancer with nobody behind it) has not been given time.
                time.sleep(min(_PAUSE_S, still_left_s))
            else:
                look_s *= 2

    def _why(self, error: KafkaException, timeout_s: float) -> StreamScorerError:
        trouble = self._heard.last_error
        if trouble is not None and trouble.code() in AUTH_ERRORS:
            said = KafkaError(trouble.code(), property_redactor(self.properties)(trouble.str()))
            return translate(said, f"not let in by Kafka at {self._servers}")
        doing = f"no answer from Kafka at {self._servers} within {timeout_s:g} s{self._hint()}"
        return translate(trouble or error, doing)

    def _hint(self) -> str:
        """What looks like a broker that does not answer, by the way in which it is asked."""
        protocol = str(self.properties.get("security.protocol", "plaintext")).lower()
        if protocol.endswith("plaintext"):
            return " (if its port speaks TLS, set security.protocol in kafka.properties)"
        if protocol == "ssl":
            return " (if its port asks for a user, set security.protocol in kafka.properties to SASL_SSL)"
        if "sasl.oauthbearer.token.endpoint.url" in self.properties:
            return " (or the login service of sasl.oauthbearer.token.endpoint.url gives no token)"
        return ""
