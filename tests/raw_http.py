"""HTTP server that sends exactly the bytes of a test, valid or not."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

Responder = Callable[["Request", socket.socket], None]


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    json: Any = field(default=None)


def answer(status: int, body: Any = b"", headers: dict[str, str] | None = None) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"content-length": str(len(raw)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + raw


def token(value: str = "token-1", **more: Any) -> bytes:
    return answer(200, {"access_token": value, "token_type": "bearer", "expires_in": 3600, **more})


def hang_up(_: Request, conn: socket.socket) -> None:
    """Close the connection without a response; ``close`` alone leaves it open until the server's reader is closed."""
    conn.shutdown(socket.SHUT_RDWR)


def results(request: Request) -> bytes:
    items = [
        {"contactId": one["contactId"], "score": 0.5, "confidenceInterval": {"lower": 0.3, "upper": 0.7}}
        for one in request.json["contacts"]
    ]
    return answer(200, {"results": items}, {"ININ-Correlation-Id": "corr-1"})


class RawServer:
    """Calls ``responders[path]``, or else ``responders["*"]``, for every request, one thread a connection."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.responders: dict[str, Responder] = {"/oauth/token": lambda _, conn: conn.sendall(token())}
        self.released = threading.Event()  # set at the end: responders that keep a connection hanging wait for it
        self.dropped = threading.Semaphore(0)  # released for every connection that has ended
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._connections = 0
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def respond(self, *answers: bytes | Responder, path: str = "*") -> None:
        """Send these responses in order; repeat the last one."""
        left = list(answers)

        def responder(request: Request, conn: socket.socket) -> None:
            one = left.pop(0) if len(left) > 1 else left[0]
            conn.sendall(one) if isinstance(one, bytes) else one(request, conn)

        self.responders[path] = responder

    def to(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path.startswith(path)]

    def close(self) -> None:
        self.released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(5)
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            self._connections += 1
            thread = threading.Thread(target=self._serve, args=(conn, self._connections), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, conn: socket.socket, number: int) -> None:
        conn.settimeout(10)
        with contextlib.suppress(OSError, ValueError):
            if self._tls is not None:
                conn = self._tls.wrap_socket(conn, server_side=True)
            with conn, conn.makefile("rb") as stream:
                while (request := _read(stream, number)) is not None:
                    self.requests.append(request)
                    (self.responders.get(request.path) or self.responders["*"])(request, conn)
        conn.close()
        self.dropped.release()


def _read(stream: Any, number: int) -> Request | None:
    first = stream.readline().decode()
    if not first:
        return None
    method, path, _ = first.split(" ", 2)
    headers: dict[str, str] = {}
    while line := stream.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", "0")))
    request = Request(method, path, headers, body, number)
    with contextlib.suppress(ValueError):
        request.json = json.loads(body)
    return request


@contextlib.contextmanager
def raw_server(tls: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    server = RawServer(tls)
    try:
        yield server
    finally:
        server.close()
