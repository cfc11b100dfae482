"""Proxy that parses Kafka's wire protocol, so that a fault applies to exactly one step of it.

Every frame is four bytes of length and then, in a request, the API key, its version and a correlation id; a response
begins with the id of its request. Nothing is rewritten, since the broker has a listener of its own that advertises the
proxy's port (see `proxied_kafka.py`).

``proxy.plan(Step(Api.END_TXN, Act.HOLD))`` holds the next EndTxn request; ``step.release()`` delivers it late, even
if the client has disconnected.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, NamedTuple

from tcp_proxy import Connection, TcpProxy, end_hard

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_LENGTH = struct.Struct(">i")
_REQUEST = struct.Struct(">hhi")
_ID_AT = 4
# A broker closes a disconnected connection; a late request has to be answered before that.
_LATE_ANSWER_S = 5.0


class Api(IntEnum):
    """The requests of a transactional worker."""

    PRODUCE = 0
    FETCH = 1
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


class Act(Enum):
    """The action on a frame."""

    HOLD = "the request waits for `release`, and all that follow it on its connection"
    RESET_BEFORE = "the request is lost, the connection reset"
    RESET_AFTER = "the broker does it, the answer is lost, the connection reset"
    LOSE_ANSWER = "the broker does it, the answer is lost, the connection stays"
    NOTE_REQUEST = "nothing: it is only noticed, before it is passed on"
    NOTE_ANSWER = "nothing: it is only noticed, before its answer is passed on"


_AT_ANSWER = {Act.RESET_AFTER, Act.LOSE_ANSWER, Act.NOTE_ANSWER}


class Step:
    """A fault at a step of the protocol.

    Args:
        api: which request.
        act: the action.
        skip: number of frames that pass first.
        times: number of frames; None: every one until `Step.end`.
        then: called on the proxy's thread before the action, for example to kill the worker.
    """

    def __init__(
        self, api: Api, act: Act, *, skip: int = 0, times: int | None = 1, then: Callable[[], None] = lambda: None
    ) -> None:
        self.api, self.act = api, act
        self._skip, self._left = skip, times
        self._then = then
        self.seen = 0
        self._lock = threading.Lock()
        self._released = threading.Event()

    def takes(self, api: int) -> bool:
        """Return whether the action applies to this frame, and count it."""
        if api != self.api:
            return False
        with self._lock:
            if self._skip:
                self._skip -= 1
                return False
            if self._left == 0:
                return False
            if self._left is not None:
                self._left -= 1
            return True

    def happens(self) -> None:
        """Mark the step as reached."""
        self._then()
        self.seen += 1

    def release(self) -> None:
        """Deliver the held frames."""
        self._released.set()

    def end(self) -> None:
        """Stop the step and deliver the held frames."""
        with self._lock:
            self._left = 0
        self.release()

    def wait_released(self) -> None:
        """Wait for `release`."""
        self._released.wait()


class KafkaProxy(TcpProxy):
    """Proxy between clients and one listener of a broker."""

    def __init__(self, upstream_port: int) -> None:
        self._steps: list[Step] = []
        super().__init__(upstream_port)

    def plan(self, step: Step) -> Step:
        """Schedule a step and return it."""
        self._steps.append(step)
        return step

    def clear(self) -> None:
        """End all steps and deliver their held frames."""
        for step in self._steps:
            step.end()
        self._steps = []

    def close(self) -> None:
        self.clear()
        super().close()

    def step_for(self, api: int) -> Step | None:
        """Return the first step that applies to a request."""
        return next((step for step in self._steps if step.takes(api)), None)

    def connect(self, client: socket.socket) -> Connection:
        plain = super().connect(client)
        return _Frames(self, plain.client, plain.upstream)


class _Planned(NamedTuple):
    """A request in flight, and the step for its response."""

    step: Step | None
    answered: threading.Event


class _Frames(Connection):
    """One connection, frame by frame."""

    def __init__(self, proxy: KafkaProxy, client: socket.socket, upstream: socket.socket) -> None:
        super().__init__(proxy, client, upstream)
        self._kafka = proxy
        self._under_way: dict[int, _Planned] = {}

    def carry_requests(self) -> None:
        while True:
            frame = _read_frame(self.client)
            api, _, correlation_id = _REQUEST.unpack_from(frame, _LENGTH.size)
            step = self._kafka.step_for(api)
            planned = _Planned(step if step is not None and step.act in _AT_ANSWER else None, threading.Event())
            self._under_way[correlation_id] = planned
            if step is not None and step.act not in _AT_ANSWER:
                step.happens()
                if step.act is Act.RESET_BEFORE:
                    self.reset()
                    return
                if step.act is Act.HOLD:
                    step.wait_released()
            if not self._kafka.await_passage(len(frame)):
                return
            self.upstream.sendall(frame)
            if step is not None and step.act is Act.HOLD:
                planned.answered.wait(_LATE_ANSWER_S)  # a disconnect of the client is concealed from the broker

    def carry_answers(self) -> None:
        client_is_there = True
        while True:
            frame = _read_frame(self.upstream)
            (correlation_id,) = _LENGTH.unpack_from(frame, _ID_AT)
            planned = self._under_way.pop(correlation_id, _Planned(None, threading.Event()))
            planned.answered.set()
            step = planned.step
            if step is not None:
                step.happens()
                if step.act is Act.RESET_AFTER:
                    end_hard(self.client)
                if step.act is not Act.NOTE_ANSWER:
                    continue
            if client_is_there and self._kafka.await_passage(len(frame)):
                try:
                    self.client.sendall(frame)
                except OSError:
                    client_is_there = False


def _read_frame(source: socket.socket) -> bytes:
    """Read one frame with its length; raise EOFError at the end."""
    head = _read_exactly(source, _LENGTH.size)
    return head + _read_exactly(source, _LENGTH.unpack(head)[0])


def _read_exactly(source: socket.socket, size: int) -> bytes:
    parts = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while len(parts) < size:
            part = source.recv(size - len(parts))
            if not part:
                break
            parts += part
    if len(parts) < size:
        raise EOFError
    return bytes(parts)
