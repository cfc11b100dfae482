"""Settings of a worker for the embedded Kafka, the simulator and the receiver on their default ports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_scorer.cli import receive, simulate
from stream_scorer.local.kafka.config import DEFAULT_PORT
from stream_scorer.local.receiver.config import ReceiverConfig
from stream_scorer.local.receiver.control import ReceiverControl
from stream_scorer.local.receiver.launcher import worker_environment as receiver_environment
from stream_scorer.local.simulator.launcher import worker_environment as simulator_environment
from stream_scorer.settings.sources import environment_layer

if TYPE_CHECKING:
    from stream_scorer.settings.names import KeyPath

_HOST = "127.0.0.1"


def local_values() -> dict[KeyPath, Any]:
    """Return the settings by key, with the secrets that simulator and receiver have for trials."""
    environment = {
        "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": f"{_HOST}:{DEFAULT_PORT}",
        **simulator_environment(f"http://{_HOST}:{simulate.DEFAULT_PORT}", simulate.DEFAULTS),
        **receiver_environment(ReceiverControl(f"http://{_HOST}:{receive.DEFAULT_PORT}").url, ReceiverConfig()),
    }
    return {path: entry.value for path, entry in environment_layer(environment).entries.items()}
