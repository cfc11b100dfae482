"""Connectivity of a consumer to all brokers, from the client's error callback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError

from stream_scorer.kafka.client.errors import AUTH_ERRORS
from stream_scorer.redaction.properties import property_redactor

if TYPE_CHECKING:
    from collections.abc import Mapping


class BrokerConnectivity:
    """Reason of a lost connection, kept until it is read.

    Separate from the owner of the client: a reference cycle through the callback would keep both alive.

    Args:
        properties: the client's properties; their secrets are removed from reasons.
    """

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._hide = property_redactor(properties)
        self._last: KafkaError | None = None
        self._reason: str | None = None

    def error(self, error: KafkaError) -> None:
        """Record an error; the client's ``error_cb``."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its public name
            self._reason = self._hide((self._last or error).str())
            return
        self._last = error
        if error.code() in AUTH_ERRORS:  # one broker is enough: all have the same users
            self._reason = self._hide(error.str())

    def pop_error(self) -> str | None:
        """Return why the consumer is disconnected, if it became so since the last call."""
        reason, self._reason = self._reason, None
        return reason
