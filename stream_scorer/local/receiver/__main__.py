"""Process of `Receiver`: reads its order from standard input and ends when that is closed."""

from __future__ import annotations

from stream_scorer.local.http_server.asgi import AsgiServer, serve_order
from stream_scorer.local.receiver.app import ReceiverApp
from stream_scorer.local.receiver.config import ReceiverConfig


def main() -> None:
    """Serve until the parent closes the pipe."""
    serve_order(lambda config, on_ready: AsgiServer(ReceiverApp(ReceiverConfig.model_validate(config)), on_ready))


if __name__ == "__main__":
    main()
