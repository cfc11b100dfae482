"""Launcher of a local server: in a process of its own, or in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Self, TypeVar

from pydantic import BaseModel

from stream_scorer.local.http_server.control_client import ControlClient
from stream_scorer.local.http_server.process import ServerProcess, listen, require_extra, url_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from stream_scorer.local.http_server.asgi import AsgiServer

HOST = "127.0.0.1"

ConfigT = TypeVar("ConfigT", bound=BaseModel)


class OwnedServer(ControlClient, Generic[ConfigT]):
    """Server in a process of its own, which ends with this process, however it ends.

    After a stop it can be started again, on the same port, with empty records. A base class beside the control client
    of the server, whose ``__main__`` in ``stream_scorer.local.<name>`` is the process.

    Args:
        config: configuration of the server.
        host: address to listen on.
        port: port to listen on; 0: any free port.
    """

    def __init__(self, config: ConfigT, *, host: str = HOST, port: int = 0) -> None:
        super().__init__("")
        self.config = config
        self._host, self._port = host, port
        self._process = ServerProcess(f"the {self.name}", f"stream_scorer.local.{self.name}")

    @property
    def base_url(self) -> str:
        """URL of the server, without a trailing slash."""
        return url_of(self._host, self._port)

    @property
    def running(self) -> bool:
        """Whether the server is running."""
        return self._process.running

    def start(self) -> Self:
        """Start the server and return once it answers requests; if it is running, return immediately.

        Raises:
            LocalError: the extra [local] is missing, the port is in use, or the server does not start.
        """
        if self.running:
            return self
        what = f"the {self.name}"
        require_extra(what)
        with listen(what, self._host, self._port) as listener:
            self._port = listener.getsockname()[1]
            self._serve(listener)
        return self

    def stop(self) -> None:
        """Stop the server, even during a request; if it is not running, do nothing."""
        self._session.close()
        self._process.stop()

    def _serve(self, listener: socket.socket) -> None:
        """Serve on this socket and return once requests are answered; the caller closes its copy of the socket."""
        self._process.start(listener, self.config.model_dump(mode="json"))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def serve_in_foreground(what: str, host: str, port: int, make_server: Callable[[str], AsgiServer]) -> None:
    """Serve in this process until SIGINT or SIGTERM.

    Args:
        what: name of the server, for errors.
        host: address to listen on.
        port: port to listen on; 0: any free port.
        make_server: receives the base URL; called after the extra [local] was found, and the port is bound.

    Raises:
        LocalError: the extra [local] is missing, or the port is in use.
    """
    require_extra(what)
    listener = listen(what, host, port)
    make_server(url_of(host, listener.getsockname()[1])).run(sockets=[listener])
