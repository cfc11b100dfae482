"""Process of `Simulator`: reads its order from standard input and ends when that is closed."""

from __future__ import annotations

from stream_scorer.local.http_server.asgi import serve_order
from stream_scorer.local.simulator.config import SimulatorConfig
from stream_scorer.local.simulator.server import SimulatorServer


def main() -> None:
    """Serve until the parent closes the pipe."""
    serve_order(lambda config, on_ready: SimulatorServer(SimulatorConfig.model_validate(config), on_ready))


if __name__ == "__main__":
    main()
