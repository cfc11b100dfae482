"""TCP proxy on the loopback interface that injects network faults: a replacement of Toxiproxy in Python.

`toxiproxy.py` has the same interface for the real one. This one is used where Go is missing, and `kafka_proxy.py`
extends it by Kafka's frames.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Protocol, Self

_CHUNK = 65_536
_CONNECT_S = 5.0


class Link(Protocol):
    """A link between client and server with at most one fault at a time; a new one replaces it."""

    @property
    def port(self) -> int:
        """Return the port for clients."""

    def latency(self, milliseconds: int) -> None:
        """Delay all bytes."""

    def bandwidth(self, kilobytes_per_s: int) -> None:
        """Limit the bandwidth."""

    def half_open(self) -> None:
        """Keep connections open and drop all bytes."""

    def reset(self) -> None:
        """Reset all connections; accept new ones."""

    def cut(self) -> None:
        """Close all connections and refuse new ones."""

    def heal(self) -> None:
        """End the fault."""

    def close(self) -> None:
        """Close the link."""


@dataclass(frozen=True, slots=True)
class LineCondition:
    """The present fault."""

    latency_s: float = 0.0
    bytes_per_s: float | None = None
    stalled: bool = False
    refusing: bool = False


class TcpProxy:
    """A `Link` to a port of this machine. A context manager."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._weather = LineCondition()
        self._changed = threading.Condition()
        self._connections: set[Connection] = set()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name=f"proxy-{self._port}", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        return self._port

    def latency(self, milliseconds: int) -> None:
        self._set(LineCondition(latency_s=milliseconds / 1000))

    def bandwidth(self, kilobytes_per_s: int) -> None:
        self._set(LineCondition(bytes_per_s=kilobytes_per_s * 1000))

    def half_open(self) -> None:
        self._set(LineCondition(stalled=True))

    def reset(self) -> None:
        self._set(LineCondition())
        self._end_all()

    def cut(self) -> None:
        self._set(LineCondition(refusing=True))
        self._end_all()

    def heal(self) -> None:
        """As `Link.heal`; stalled bytes are lost, as on a real network, and their connections are reset."""
        was_stalled = self._weather.stalled
        self._set(LineCondition())
        if was_stalled:
            self._end_all()

    def close(self) -> None:
        self._closed = True
        self._set(LineCondition(refusing=True))
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept thread
        self._listener.close()
        self._end_all()

    def connect(self, client: socket.socket) -> Connection:
        """Return a new connection; a proxy with a protocol returns its own kind."""
        upstream = socket.create_connection(("127.0.0.1", self._upstream_port), _CONNECT_S)
        upstream.settimeout(None)
        return Connection(self, client, upstream)

    def await_passage(self, size: int) -> bool:
        """Wait as long as so many bytes take; return False if they are lost with their connection."""
        weather = self._weather
        time.sleep(weather.latency_s + (size / weather.bytes_per_s if weather.bytes_per_s else 0.0))
        with self._changed:
            while self._weather.stalled:
                self._changed.wait()
        return not self._closed

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._connections.discard(connection)

    def _set(self, weather: LineCondition) -> None:
        with self._changed:
            self._weather = weather
            self._changed.notify_all()

    def _end_all(self) -> None:
        for connection in list(self._connections):
            connection.reset()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            # On a thread of its own: an unreachable server must not block the next client.
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._weather.refusing:
            end_hard(client)
            return
        try:
            connection = self.connect(client)
        except OSError:
            end_hard(client)
            return
        self._connections.add(connection)
        connection.run()


class Connection:
    """A client and its server with two threads: this one for requests, another one for responses."""

    def __init__(self, proxy: TcpProxy, client: socket.socket, upstream: socket.socket) -> None:
        self._proxy = proxy
        self.client = client
        self.upstream = upstream
        for end in (client, upstream):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self) -> None:
        """Forward bytes until one end closes."""
        answers = threading.Thread(target=self._guarded, args=(self.carry_answers, self.client), daemon=True)
        answers.start()
        self._guarded(self.carry_requests, self.upstream)
        answers.join()
        for end in (self.client, self.upstream):
            end.close()
        self._proxy.remove(self)

    def carry_requests(self) -> None:
        """Forward from the client to the server."""
        self._carry(self.client, self.upstream)

    def carry_answers(self) -> None:
        """Forward from the server to the client."""
        self._carry(self.upstream, self.client)

    def reset(self) -> None:
        """Reset both sides, as a restarted router does."""
        end_hard(self.client)
        end_hard(self.upstream)

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        while chunk := source.recv(_CHUNK):
            if not self._proxy.await_passage(len(chunk)):
                return
            target.sendall(chunk)

    def _guarded(self, carry: object, target: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            carry()  # type: ignore[operator]
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


def end_hard(end: socket.socket) -> None:
    """Close with a TCP reset and wake the thread that reads."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    end.close()
