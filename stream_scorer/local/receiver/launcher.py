"""Launcher of the receiver: in a process of its own, or in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.local.http_server.launcher import HOST, OwnedServer, serve_in_foreground
from stream_scorer.local.receiver.config import ReceiverConfig
from stream_scorer.local.receiver.control import ReceiverControl

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.local.http_server.asgi import AsgiServer


class Receiver(OwnedServer[ReceiverConfig], ReceiverControl):
    """Receiver that this object starts and stops. Port 0: any free port."""

    def __init__(self, config: ReceiverConfig | None = None, *, host: str = HOST, port: int = 0) -> None:
        super().__init__(config or ReceiverConfig(), host=host, port=port)

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a campaign worker for this receiver, with the secret."""
        return worker_environment(self.url, self.config)


def serve(
    config: ReceiverConfig,
    host: str,
    port: int,
    on_ready: Callable[[ReceiverControl], None],
    *,
    print_line: Callable[[str], None] = lambda _line: None,
) -> None:
    """Serve in this process until SIGINT or SIGTERM.

    Args:
        config: configuration of the receiver.
        host: address to listen on.
        port: port to listen on; 0: any free port.
        on_ready: called once the server answers callbacks.
        print_line: called with a line for each request.

    Raises:
        LocalError: the extra [local] is missing, or the port is in use.
    """

    def make_server(base_url: str) -> AsgiServer:
        from stream_scorer.local.http_server.asgi import AsgiServer  # noqa: PLC0415 - needs the extra
        from stream_scorer.local.receiver.app import ReceiverApp  # noqa: PLC0415 - needs the extra

        return AsgiServer(ReceiverApp(config), lambda: on_ready(ReceiverControl(base_url)), print_line)

    serve_in_foreground("the receiver", host, port, make_server)


def worker_environment(url: str, config: ReceiverConfig) -> dict[str, str]:
    """Return the environment variables of a campaign worker for a receiver, with the secret."""
    return {
        "STREAM_SCORER_CALLBACKS__TARGET": "webhook",
        "STREAM_SCORER_CALLBACKS__URL": url,
        "STREAM_SCORER_CALLBACKS__SECRET": config.secret,
    }
