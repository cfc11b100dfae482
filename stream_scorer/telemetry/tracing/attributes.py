"""Attributes of spans by OpenTelemetry's semantic conventions for messaging and HTTP, without data or secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.semconv._incubating.attributes import messaging_attributes as messaging
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, url_attributes

from stream_scorer.telemetry.tracing.spans import end_span

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from stream_scorer.telemetry.tracing.spans import Span

BATCH_ID = "stream_scorer.batch_id"
CALLBACK_ID = "stream_scorer.callback_id"
CORRELATION_ID = "stream_scorer.correlation_id"
OUTCOME = "stream_scorer.outcome"
REASONS = "stream_scorer.reasons"
_FIRST_ERROR = 400


def operation(
    name: str,
    kind: str,
    topic: str,
    *,
    group: str | None = None,
    count: int | None = None,
    place: tuple[int, int] | None = None,
) -> dict[str, AttributeValue]:
    """Return the attributes of an operation on messages.

    Args:
        name: the operation, such as ``poll``.
        kind: its type by the conventions: receive, process, send or settle.
        topic: the topic.
        group: the consumer group.
        count: number of messages, for a batch operation.
        place: partition and offset, for a single message.
    """
    attributes: dict[str, AttributeValue] = {
        messaging.MESSAGING_SYSTEM: "kafka",
        messaging.MESSAGING_OPERATION_NAME: name,
        messaging.MESSAGING_OPERATION_TYPE: kind,
        messaging.MESSAGING_DESTINATION_NAME: topic,
    }
    if group is not None:
        attributes[messaging.MESSAGING_CONSUMER_GROUP_NAME] = group
    if count is not None:
        attributes[messaging.MESSAGING_BATCH_MESSAGE_COUNT] = count
    if place is not None:
        attributes[messaging.MESSAGING_DESTINATION_PARTITION_ID] = str(place[0])
        attributes[messaging.MESSAGING_KAFKA_OFFSET] = place[1]
    return attributes


class HttpAttributes:
    """Span attributes of POST requests to one URL, without its user information, query and fragment."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        self._attributes: dict[str, AttributeValue] = {
            http_attributes.HTTP_REQUEST_METHOD: "POST",
            server_attributes.SERVER_ADDRESS: host,
            server_attributes.SERVER_PORT: parts.port or (443 if parts.scheme == "https" else 80),
            url_attributes.URL_FULL: parts._replace(
                netloc=parts.netloc.rpartition("@")[2], query="", fragment=""
            ).geturl(),
        }

    def request(self, resends: int) -> dict[str, AttributeValue]:
        """Return the attributes of a request after ``resends`` earlier attempts."""
        return self._attributes | ({http_attributes.HTTP_REQUEST_RESEND_COUNT: resends} if resends else {})


def end_request(span: Span, status: int | None, trouble: str | None, *, end_ns: int | None = None) -> None:
    """End the span of an HTTP attempt; ``trouble`` is the kind of its failure, if it failed."""
    attributes: dict[str, AttributeValue] = {}
    if status is not None:
        attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] = status
    failed = str(status) if status is not None and status >= _FIRST_ERROR else trouble
    if failed is not None:
        attributes[error_attributes.ERROR_TYPE] = failed
    end_span(span, attributes, error=failed, end_ns=end_ns)
