"""Admin server: ``/livez``, ``/readyz`` and ``/metrics`` for the platform that runs the service."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Final, Self

from stream_scorer.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    Response = tuple[HTTPStatus, str, bytes]

_TEXT: Final = "text/plain; charset=utf-8"
_READ_TIMEOUT_S: Final = 10
# Each connection has a thread. Probes, two scrapers and a person need a handful.
MAX_CONNECTIONS: Final = 32
_CLOSE_WAIT_S: Final = 1.0


class AdminServer:
    """HTTP server of the admin port on daemon threads, from `start` to `stop`; a context manager does both.

    Args:
        host: the address to listen on.
        port: the port; 0: any free one, see `port`. (The caller handles that ``admin.port`` 0 means "off".)
        setting: the setting of the port, for the error if it is taken.
        live: returns why the process should be restarted, one line; None: no reason.
        ready: returns why no work is done, one line; None: work is done.
        metrics: returns all metrics: takes the request's ``Accept`` header, returns content type and body.
        notes: returns what waits although work is done, one line each; further lines of ``/readyz``.

    The callables run on threads of the server, and must only read.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        live: Callable[[], str | None],
        ready: Callable[[], str | None],
        metrics: Callable[[str], tuple[str, bytes]],
        setting: str = "admin.port",
        notes: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._routes: dict[str, Callable[[str], Response]] = {
            "/livez": lambda _: _health(live),
            "/readyz": lambda _: _health(ready, notes),
            "/metrics": lambda accept: (HTTPStatus.OK, *metrics(accept)),
        }
        self._address = (host, port)
        self._setting = setting
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port of the listening server; 0: it does not listen."""
        return self._server.server_address[1] if self._server is not None else 0

    def start(self) -> None:
        """Start listening.

        Raises:
            LocalError: the port is taken, or the address is not of this machine; names the settings.
        """
        handler = type("Handler", (_Handler,), {"routes": self._routes})
        try:
            self._server = _Server(self._address, handler)
        except (OSError, OverflowError) as error:
            host, port = self._address
            reason = getattr(error, "strerror", None) or "that is no port"
            raise LocalError(
                f"cannot listen on {host}:{port}: {reason};"
                f" set admin.host and {self._setting} (0 = off) to one that is free"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="admin", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and release the port. Does nothing if it does not listen."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()


def _health(trouble: Callable[[], str | None], notes: Callable[[], Iterable[str]] = tuple) -> Response:
    reason = trouble()
    text = "".join(f"{line}\n" for line in ("ok" if reason is None else reason, *notes()))
    return HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, text.encode()


class _Connections:
    """Open connections, the one with the oldest last request first: at most `MAX_CONNECTIONS`.

    A new connection closes the first one if all are taken. Refusing the new one instead would let a peer that opens
    connections and sends nothing keep out the probes, and the platform would restart the service.
    """

    def __init__(self) -> None:
        self._open: dict[socket.socket, None] = {}
        self._changed = threading.Condition()

    def add(self, connection: socket.socket) -> bool:
        """Return True if the connection may be served: at once, or when the thread of a closed one has ended."""
        with self._changed:
            if len(self._open) >= MAX_CONNECTIONS:
                with suppress(OSError):  # its peer has closed it
                    next(iter(self._open)).shutdown(socket.SHUT_RDWR)
                if not self._changed.wait_for(lambda: len(self._open) < MAX_CONNECTIONS, _CLOSE_WAIT_S):
                    return False
            self._open[connection] = None
            return True

    def touch(self, connection: socket.socket) -> None:
        """Move the connection of a request to the end."""
        with self._changed:
            if connection in self._open:
                del self._open[connection]
                self._open[connection] = None

    def remove(self, connection: socket.socket) -> None:
        """Give back the place of a connection. Does nothing if it has none."""
        with self._changed:
            self._open.pop(connection, None)
            self._changed.notify()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_port = False  # or a second worker would share the port unnoticed
    request_queue_size = MAX_CONNECTIONS  # a full queue makes a probe wait for a second
    block_on_close = False  # a slow reader must not delay the end of the service

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.connections = _Connections()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # Without HTTPServer's DNS query for the host's name, which takes seconds where no DNS server answers.
        TCPServer.server_bind(self)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        del client_address
        return self.connections.add(request)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.connections.remove(request)

    def handle_error(self, *_: Any) -> None:
        """Ignore the error: the client has closed the connection."""


class _Handler(BaseHTTPRequestHandler):
    routes: dict[str, Callable[[str], Response]]
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _READ_TIMEOUT_S
    disable_nagle_algorithm = (
        True  # headers and body are two packets: the second would wait for the acknowledgement of the first
    )

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.connections.touch(self.connection)
        route = self.routes.get(self.path.split("?", 1)[0])
        if route is None:
            status, kind, body = HTTPStatus.NOT_FOUND, _TEXT, b"not found: /livez, /readyz, /metrics\n"
        else:
            try:
                status, kind, body = route(self.headers.get("Accept", ""))
            except Exception as error:  # noqa: BLE001 - of any kind: the scraper gets a 500 and the service goes on
                status, kind, body = HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, f"{type(error).__name__}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_response(self, code: int, message: str | None = None) -> None:
        """Send the response without the header that names server and Python version."""
        self.send_response_only(code, message)
        self.send_header("Date", self.date_time_string())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send plain text instead of the standard page; any method but GET and HEAD ends here, as 405."""
        del message, explain
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        body = f"{status.phrase.lower()}\n".encode()
        self.send_response(status)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", _TEXT)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Log nothing: a probe every second is no event."""
