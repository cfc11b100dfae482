"""Requests in flight: sent on threads of their own, their responses taken by the thread of the calculation.

Only that thread changes the state of a calculation, so neither audit file, callbacks nor order need a lock. A pool of
threads was rejected: the interpreter waits for its threads at exit, for up to the deadline of a request after Ctrl-C.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.scoring.api_response import ApiResponse
    from stream_scorer.core.scoring.request import Request


class InFlight:
    """Requests in flight, at most ``limit``. With a limit of 1 the calling thread sends, so that Ctrl-C aborts it."""

    def __init__(self, limit: int, send: Callable[[Request], ApiResponse]) -> None:
        """Store the limit and the function that sends one request and returns its response."""
        self._limit = limit
        self._send = send
        self._open = 0
        # Not a semaphore: Ctrl-C in the middle of its Python code could leave its lock held, and `collect` would hang.
        self._arrived: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._responses: deque[tuple[Request, ApiResponse | BaseException]] = deque()
        self._taken: tuple[Request, ApiResponse | BaseException] | None = None

    @property
    def is_full(self) -> bool:
        """Whether no further request may be started."""
        return self._open >= self._limit

    @property
    def is_empty(self) -> bool:
        """Whether every response has been taken."""
        return self._open == 0

    def start(self, request: Request) -> None:
        """Send a request."""
        if self._limit == 1:
            self._responses.append((request, self._send(request)))
            self._arrived.put(None)
            self._open += 1
            return
        context = contextvars.copy_context()  # of a tracer, for example
        name = "stream-scorer-request"
        thread = threading.Thread(target=context.run, args=(self._run, request), name=name, daemon=True)
        self._open += 1
        try:
            thread.start()
        except BaseException:
            self._open -= 1
            raise

    def take(self, timeout_s: float | None) -> tuple[Request, ApiResponse] | None:
        """Wait for a response and return it; None: none within ``timeout_s``. Raises what sending has raised."""
        try:
            self._arrived.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self._taken = self._responses[0]  # before it is removed: Ctrl-C may come between any two of these lines
        self._responses.popleft()
        self._open -= 1
        request, response = self._taken
        if isinstance(response, BaseException):
            raise response
        return request, response

    def collect(self, timeout_s: float | None) -> list[tuple[Request, ApiResponse]]:
        """Return the last response taken, and all others that arrive within ``timeout_s``; None: all in flight.

        A response may occur twice. A request that is still in flight after that ends by its own deadline.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while len(self._responses) < self._open:
            left_s = None if until is None else max(0.0, until - time.monotonic())
            try:
                self._arrived.get(timeout=left_s)
            except queue.Empty:
                break
        found = [*self._responses] if self._taken is None else [self._taken, *self._responses]
        return [(request, got) for request, got in found if not isinstance(got, BaseException)]

    def _run(self, request: Request) -> None:
        response: ApiResponse | BaseException
        try:
            response = self._send(request)
        except BaseException as error:  # noqa: BLE001 - raised by `take`, on the thread of the calculation
            response = error
        self._responses.append((request, response))
        self._arrived.put(None)
