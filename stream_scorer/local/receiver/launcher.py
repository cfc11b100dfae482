"""Launcher of the receiver: in a process of its own, or in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from stream_scorer.local.http_server.process import ServerProcess, listen, require_extra, url_of
from stream_scorer.local.receiver.config import ReceiverConfig
from stream_scorer.local.receiver.control import ReceiverControl

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
WHAT = "the receiver"


class Receiver(ReceiverControl):
    """Receiver in a process of its own, which ends with this process, however it ends.

    After a stop it can be started again, on the same port, with an empty record.
    """

    def __init__(self, config: ReceiverConfig | None = None, *, host: str = HOST, port: int = 0) -> None:
        """Configure it, without a start. Port 0: any free port."""
        super().__init__("")
        self.config = config or ReceiverConfig()
        self._host, self._port = host, port
        self._process = ServerProcess(WHAT, "stream_scorer.local.receiver")

    @property
    def base_url(self) -> str:
        """URL of the receiver, without a trailing slash."""
        return url_of(self._host, self._port)

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process.running

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a campaign worker for this receiver, with the secret."""
        return worker_environment(self.url, self.config)

    def start(self) -> Self:
        """Start the process and return once it answers callbacks; if it is running, return immediately.

        Raises:
            LocalError: the extra [local] is missing, the port is in use, or the process does not start.
        """
        if self.running:
            return self
        require_extra(WHAT)
        with listen(WHAT, self._host, self._port) as listener:
            self._port = listener.getsockname()[1]
            self._process.start(listener, self.config.model_dump(mode="json"))
        return self

    def stop(self) -> None:
        """Stop the process, even during a request; if it is not running, do nothing."""
        self._session.close()
        self._process.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


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
    require_extra(WHAT)
    from stream_scorer.local.http_server.asgi import AsgiServer  # noqa: PLC0415 - needs the extra
    from stream_scorer.local.receiver.app import ReceiverApp  # noqa: PLC0415 - needs the extra

    listener = listen(WHAT, host, port)
    control = ReceiverControl(url_of(host, listener.getsockname()[1]))
    AsgiServer(ReceiverApp(config), lambda: on_ready(control), print_line).run(sockets=[listener])


def worker_environment(url: str, config: ReceiverConfig) -> dict[str, str]:
    """Return the environment variables of a campaign worker for a receiver, with the secret."""
    return {
        "STREAM_SCORER_CALLBACKS__TARGET": "webhook",
        "STREAM_SCORER_CALLBACKS__URL": url,
        "STREAM_SCORER_CALLBACKS__SECRET": config.secret,
    }
