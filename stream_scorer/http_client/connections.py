"""Connections and pools for urllib3, each connection under the deadline of its exchange.

For a SOCKS proxy (an optional extra of requests) urllib3 has connection classes of its own. There only requests'
time-out applies.
"""

from __future__ import annotations

import http.client
import os
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from stream_scorer.fork import bind_to_process
from stream_scorer.http_client.deadline import SocketHandle, current_deadline

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from urllib3 import PoolManager

    # From host as in the URL, port, and seconds for resolving and connecting, to a connected socket.
    Dial: TypeAlias = Callable[[str, int, float | None], socket.socket]

# Servers close idle connections after 5 s at the earliest (uvicorn, Apache, Node). A request sent at that moment is
# lost, and a POST that is billed is not repeated blindly. So a connection idle for longer than this is reopened.
IDLE_LIMIT_S: Final = 4.0


class FinalResponse(http.client.HTTPResponse):
    """Response that skips interim responses.

    http.client returns any 1xx but 100 as the answer and leaves the real one in the connection. The next request would
    then receive the answer to this one.
    """

    def begin(self) -> None:
        """Read status and headers, past all interim responses.

        Raises:
            http.client.BadStatusLine: 101; no other protocol was requested.
        """
        super().begin()
        while self.status < HTTPStatus.OK:
            if self.status == HTTPStatus.SWITCHING_PROTOCOLS:
                raise http.client.BadStatusLine("101")
            self.headers = self.msg = None  # type: ignore[assignment]  # as before the first response
            super().begin()


class DeadlineHTTPConnection(HTTPConnection):
    """Connection under the deadline of its current exchange.

    ``dial`` resolves and connects, instead of urllib3; TLS and HTTP still use the host's name.
    """

    response_class = FinalResponse
    _socket_handle: SocketHandle | None = None

    def __init__(self, *args: Any, dial: Dial | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._dial = dial
        bind_to_process(self)

    def _new_conn(self) -> socket.socket:
        deadline = current_deadline()
        connect = super()._new_conn if self._dial is None else partial(self._connect, self._dial)
        sock = connect() if deadline is None else deadline.connect(connect)
        if self._socket_handle is not None:
            self._socket_handle.leak()
        self._socket_handle = SocketHandle(sock)
        if deadline is not None:
            deadline.attach(self._socket_handle)
        return sock

    def _connect(self, dial: Dial) -> socket.socket:
        sock = dial(self._dns_host, self.port, self.timeout)
        for option in self.socket_options or ():
            sock.setsockopt(*option)
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, on a new or an idle connection."""
        deadline = current_deadline()
        if deadline is not None and self._socket_handle is not None:
            deadline.attach(self._socket_handle)
        if self.sock is None:
            self.connect()
        if deadline is not None:
            deadline.has_sent = True
        super().request(*args, **kwargs)

    @property
    def is_connected(self) -> bool:
        """Whether the pool may reuse this connection; False if it was idle for longer than `IDLE_LIMIT_S`."""
        rested_at = None if self._socket_handle is None else self._socket_handle.rested_at
        if rested_at is not None and time.monotonic() - rested_at > IDLE_LIMIT_S:
            return False
        return super().is_connected

    def close(self) -> None:
        """Close the socket; its handle stays open until the exchange has read the body."""
        line, self._socket_handle = self._socket_handle, None
        if line is not None:
            line.leak()
        super().close()

    def reset_after_fork(self) -> None:
        """Close the child's copy of the socket; the parent's connection stays open."""
        line, self._socket_handle = self._socket_handle, None
        if line is not None:
            line.disown()
        if self.sock is not None:  # the attribute stays: an exchange of this very thread may be using it
            _disconnect(self.sock)


class DeadlineHTTPSConnection(DeadlineHTTPConnection, HTTPSConnection):
    """Connection over TLS under the deadline of its current exchange."""


class DeadlineHTTPPool(HTTPConnectionPool):
    """Pool of connections with deadlines."""

    ConnectionCls = DeadlineHTTPConnection


class DeadlineHTTPSPool(HTTPSConnectionPool):
    """Pool of TLS connections with deadlines."""

    ConnectionCls = DeadlineHTTPSConnection


class DeadlineAdapter(HTTPAdapter):
    """Adapter from requests to urllib3, without retries, and with connections under deadlines."""

    def __init__(self, max_connections: int, dial: Dial | None = None) -> None:
        self._dial = dial
        # Without urllib3's retries: nested retries multiply, and a repeated POST is billed twice.
        super().__init__(pool_connections=4, pool_maxsize=max_connections, max_retries=0, pool_block=False)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        _use_deadline_pools(self.poolmanager, self._dial)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Create the pools of connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):
            _use_deadline_pools(manager, None)
        return manager

    def close(self) -> None:
        """Close the connections now; urllib3 alone leaves that to the garbage collector."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - this container does not support iteration
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()


def _disconnect(sock: socket.socket) -> None:
    """Replace a socket by the null device, so that no reader in this process receives the parent's bytes.

    A response that is being read keeps the descriptor open after ``close``. A shutdown would close the parent's
    connection, too.
    """
    if sock.fileno() >= 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, sock.fileno(), inheritable=False)
        os.close(null)
    sock.close()


def _use_deadline_pools(manager: PoolManager, dial: Dial | None) -> None:
    # Arguments unknown to a pool are passed to its connections. urllib3 only calls these factories.
    pools: Any = {"http": partial(DeadlineHTTPPool, dial=dial), "https": partial(DeadlineHTTPSPool, dial=dial)}
    manager.pool_classes_by_scheme = pools
