"""What the receiver is: its secrets and its speed."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stream_scorer.local.simulator.config import Milliseconds  # noqa: TC001 - pydantic reads it

# "for trying things out, no secret": it opens nothing but the receiver.
DEFAULT_SECRET = "whsec_Zm9yIHRyeWluZyB0aGluZ3Mgb3V0LCBubyBzZWNyZXQ="  # noqa: S105  # nosec B105


class ReceiverConfig(BaseModel):
    """One frozen description of the receiver.

    Attributes:
        secret: what callbacks are signed with, as Standard Webhooks writes it; in no repr.
        latency_ms: time from the last byte of a callback to its answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret: Annotated[str, Field(min_length=1, repr=False)] = DEFAULT_SECRET
    latency_ms: Milliseconds = 0.0
