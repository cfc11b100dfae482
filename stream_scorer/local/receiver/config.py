"""Configuration of the receiver: secret and latency."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stream_scorer.local.http_server.models import Frozen, Milliseconds

# "for trying things out, no secret": it protects nothing but the receiver.
DEFAULT_SECRET = "whsec_Zm9yIHRyeWluZyB0aGluZ3Mgb3V0LCBubyBzZWNyZXQ="  # noqa: S105  # nosec B105


class ReceiverConfig(Frozen):
    """Frozen configuration of the receiver.

    Attributes:
        secret: secret of the callbacks' signatures, in the form of Standard Webhooks; the repr does not show it.
        latency_ms: time from the last byte of a callback to its answer.
    """

    secret: Annotated[str, Field(min_length=1, repr=False)] = DEFAULT_SECRET
    latency_ms: Milliseconds = 0.0
