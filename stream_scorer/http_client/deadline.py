"""Deadline for a whole HTTP exchange, enforced by shutting its socket down.

requests' ``timeout`` bounds each wait for the socket, not their sum. An answer of one byte a second never ends, nor
does connecting to a name with six unreachable addresses. So every exchange has a `Deadline`: at its time a watchdog
thread shuts the socket of the exchange down. That ends any blocking call (TLS handshake, sending, waiting for headers,
reading the body). Resolving and connecting cannot be interrupted. They run on a thread of their own, which is abandoned
at the deadline.

Connections (`stream_scorer.http_client.connections`) find the deadline of their exchange in a context variable, since
requests and urllib3 cannot pass it through.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CutReason: TypeAlias = Literal["deadline", "closed", "forked"]

_current: ContextVar[Deadline | None] = ContextVar("stream_scorer_deadline", default=None)


def current_deadline() -> Deadline | None:
    """Return the deadline of this thread's exchange; None outside of one."""
    return _current.get()


class SocketHandle:
    """Second handle on a connection's socket, for a shutdown from any thread and through TLS.

    It is a duplicate because ``ssl`` detaches the original, and because http.client drops its socket before the body is
    read if the server sends ``Connection: close``. It is closed when both the connection and the exchange have ended.

    Attributes:
        rested_at: monotonic seconds since when no exchange uses it; None during one.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.rested_at: float | None = None
        self._sock = sock.dup()
        self._lock = threading.Lock()  # a concurrent close and shutdown could affect a reused file descriptor
        self._abandoned = False

    def retain(self) -> None:
        """Record that an exchange uses the socket."""
        self.rested_at = None

    def release(self) -> None:
        """Record the end of the exchange."""
        self.rested_at = time.monotonic()
        self._close_if_done()

    def leak(self) -> None:
        """Record that the connection is closed."""
        self._abandoned = True
        self._close_if_done()

    def shut_down(self) -> None:
        """Shut the connection down now; a thread blocked on it continues with an error."""
        with self._lock, contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def disown(self) -> None:
        """Close a forked process's copy, without a shutdown, which would end the parent's connection, too."""
        self._lock = threading.Lock()
        self._abandoned = True
        self._sock.close()

    def _close_if_done(self) -> None:
        if self._abandoned and self.rested_at is not None:
            with self._lock:
                self._sock.close()


class Deadline:
    """Time limit of one exchange.

    Attributes:
        due: monotonic seconds.
        cut_for: why the exchange was aborted by another thread; None: it was not.
        connected: whether a connection was established; without one no byte was sent.
        has_sent: whether a part of the request may have been sent; never before TLS is established.
    """

    def __init__(self, due: float) -> None:
        self.due = due
        self.cut_for: CutReason | None = None
        self.connected = False
        self.has_sent = False
        self._lock = threading.Lock()
        self._socket_handle: SocketHandle | None = None
        self._connecting: Future[socket.socket] | None = None

    def connect(self, connect: Callable[[], socket.socket]) -> socket.socket:
        """Resolve and connect on a thread that can be abandoned.

        Raises:
            ConnectionAbortedError: the exchange was aborted meanwhile.
            Exception: raised by ``connect``.
        """
        future: Future[socket.socket] = Future()
        with self._lock:
            self._raise_if_cut()
            self._connecting = future
        threading.Thread(target=_fulfil, args=(future, connect), name="stream-scorer-connect", daemon=True).start()
        return future.result()

    def attach(self, line: SocketHandle) -> None:
        """Put a connection under this deadline.

        Raises:
            ConnectionAbortedError: the exchange was aborted already.
        """
        with self._lock:
            self._raise_if_cut()
            if self._socket_handle is not None and self._socket_handle is not line:
                self._socket_handle.release()
            line.retain()
            self._socket_handle = line
            self.connected = True

    def cut(self, reason: CutReason) -> None:
        """Abort the exchange from another thread."""
        with self._lock:
            self.cut_for = self.cut_for or reason
            if self._socket_handle is not None:
                self._socket_handle.shut_down()
            if self._connecting is not None:
                with contextlib.suppress(InvalidStateError):
                    self._connecting.set_exception(ConnectionAbortedError("cut while connecting"))

    def finish(self) -> None:
        """End the exchange; its connection may return to the pool."""
        with self._lock:
            if self._socket_handle is not None:
                self._socket_handle.release()
            self._socket_handle = None

    def disown(self) -> None:
        """Abort the exchange in a forked process; its connection belongs to the parent."""
        self._lock = threading.Lock()
        self._socket_handle = None
        self.cut("forked")

    def _raise_if_cut(self) -> None:
        if self.cut_for is not None:
            raise ConnectionAbortedError("cut before the connection was used")


class Watchdog:
    """Watchdog that aborts exchanges at their deadline. Its thread lives only while there are exchanges."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._active: set[Deadline] = set()
        self._thread: threading.Thread | None = None
        self._wakes_at = float("inf")
        self._closed = False

    @contextlib.contextmanager
    def run_with_deadline(self, seconds: float) -> Iterator[Deadline]:
        """Run the body of the ``with`` under a deadline ``seconds`` from now."""
        deadline = Deadline(time.monotonic() + seconds)
        self._watch(deadline)
        token = _current.set(deadline)
        try:
            yield deadline
        finally:
            _current.reset(token)
            with self._changed:
                self._active.discard(deadline)
            deadline.finish()

    def close(self) -> None:
        """Abort all exchanges in flight, and all later ones."""
        with self._changed:
            self._closed = True
            for deadline in self._active:
                deadline.cut("closed")
            self._changed.notify()

    def reset_after_fork(self) -> None:
        """Start without the exchanges and the thread of the parent process."""
        inherited, self._active = self._active, set()
        self._changed = threading.Condition()
        self._thread = None
        self._wakes_at = float("inf")
        for deadline in inherited:
            deadline.disown()

    def _watch(self, deadline: Deadline) -> None:
        with self._changed:
            if self._closed:
                deadline.cut("closed")
                return
            self._active.add(deadline)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stream-scorer-deadlines", daemon=True)
                self._thread.start()
            elif deadline.due < self._wakes_at:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while self._active and not self._closed:
                now = time.monotonic()
                for deadline in [one for one in self._active if one.due <= now]:
                    deadline.cut("deadline")
                    self._active.discard(deadline)
                self._wakes_at = min((one.due for one in self._active), default=now)
                self._changed.wait(self._wakes_at - now)
            self._thread = None


def _fulfil(future: Future[socket.socket], connect: Callable[[], socket.socket]) -> None:
    try:
        sock = connect()
    except Exception as error:  # noqa: BLE001 - of any kind: it is raised in the waiting thread
        with contextlib.suppress(InvalidStateError):
            future.set_exception(error)
        return
    try:
        future.set_result(sock)
    except InvalidStateError:  # the exchange was aborted meanwhile, so the socket is not used
        sock.close()
