"""A proxy that reads Kafka's wire protocol, so that a fault meets exactly one step of it.

Every frame is four bytes of length and then, in a request, the API's key, its version and a correlation id; an answer
begins with the id of its request. That is all that has to be known: nothing is rewritten, since the broker has a
listener of its own that advertises the proxy's port (see `proxied_kafka.py`).

``proxy.plan(Step(Api.END_TXN, Act.HOLD))`` holds the next EndTxn request; ``step.release()`` delivers it late, also
when the client has long gone.
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
# A broker closes a connection whose client has gone; what is delivered late has to be answered before that.
_LATE_ANSWER_S = 5.0


class Api(IntEnum):
    """The requests that a transactional worker makes."""

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
    """What happens to a frame."""

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
        act: what happens to it.
        skip: so many of them pass first.
        times: it meets so many; None: every one until `Step.end`.
        then: is called on the proxy's thread at that very moment, before anything goes on: to kill the worker.
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
        """Whether this is one of its frames; counts."""
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
        """The moment has come."""
        self._then()
        self.seen += 1

    def release(self) -> None:
        """Delivers what is held."""
        self._released.set()

    def end(self) -> None:
        """Meets no more frames, and delivers what is held."""
        with self._lock:
            self._left = 0
        self.release()

    def wait_released(self) -> None:
        """Waits for `release`."""
        self._released.wait()


class KafkaProxy(TcpProxy):
    """Stands between clients and one listener of a broker."""

    def __init__(self, upstream_port: int) -> None:
        self._steps: list[Step] = []
        super().__init__(upstream_port)

    def plan(self, step: Step) -> Step:
        """Lets a step come true; returns it."""
        self._steps.append(step)
        return step

    def clear(self) -> None:
        """Ends all steps; what they hold is delivered."""
        for step in self._steps:
            step.end()
        self._steps = []

    def close(self) -> None:
        self.clear()
        super().close()

    def step_for(self, api: int) -> Step | None:
        """The first step that takes a request."""
        return next((step for step in self._steps if step.takes(api)), None)

    def connect(self, client: socket.socket) -> Connection:
        plain = super().connect(client)
        return _Frames(self, plain.client, plain.upstream)


class _Planned(NamedTuple):
    """A request under way, and what is to happen at its answer."""

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
                planned.answered.wait(_LATE_ANSWER_S)  # the client may have gone long ago: the broker must not know

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
    """One frame with its length. Raises EOFError at the end."""
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
