"""Whether a consumer is cut off from all brokers, as the client tells it by its callback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError

from stream_scorer.kafka.client.errors import AUTH_ERRORS
from stream_scorer.redaction.properties import property_redactor

if TYPE_CHECKING:
    from collections.abc import Mapping


class BrokerConnectivity:
    """Keeps what was told until somebody takes it. No part of whoever has the client, or neither would end by itself.

    Args:
        properties: the client's; their secrets are hidden in what it says.
    """

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._hide = property_redactor(properties)
        self._last: KafkaError | None = None
        self._reason: str | None = None

    def error(self, error: KafkaError) -> None:
        """The client's ``error_cb``."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its public name
            self._reason = self._hide((self._last or error).str())
            return
        self._last = error
        if error.code() in AUTH_ERRORS:  # one broker is enough: the others have the same users
            self._reason = self._hide(error.str())

    def pop_error(self) -> str | None:
        """Return why the consumer is cut off, if it has become so since the last call."""
        reason, self._reason = self._reason, None
        return reason
