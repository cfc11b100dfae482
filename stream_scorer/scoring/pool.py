"""The threads that talk HTTP. They get a request, ask the API once, and put the answer on a queue: nothing else."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.core.events import Answer
    from stream_scorer.core.requests import Request


class ScoringApi(Protocol):
    """What the worker needs of the API: one attempt, one answer; nothing a network or an API does is raised."""

    def ask(self, parts: Sequence[bytes], model_version: str | None) -> Answer:
        """Asks about the contacts whose JSON stands in ``parts``. Blocks until the answer or the deadline."""


class RequestPool:
    """``size`` daemon threads around one ``ScoringApi``.

    Not ``concurrent.futures``: its threads are joined when the interpreter exits, so one hanging request would hold up
    a shutdown for its whole deadline.
    """

    def __init__(self, api: ScoringApi, size: int) -> None:
        self._api = api
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        # Not SimpleQueue: CPython 3.11's get(timeout=…) never returns if a signal's handler outlasts the time-out.
        self._answers: queue.Queue[tuple[Request, Answer | BaseException]] = queue.Queue()
        self.size = size
        for number in range(size):
            threading.Thread(target=self._work, name=f"scoring-request-{number}", daemon=True).start()

    def submit(self, request: Request) -> None:
        """Hands a request to the next free thread."""
        self._requests.put(request)

    def answers(self, wait_s: float = 0.0) -> list[tuple[Request, Answer]]:
        """The answers that have arrived; waits up to ``wait_s`` for the first one.

        Raises:
            BaseException: whatever a thread raised. That is a bug, and must not look like a lost request.
        """
        arrived: list[tuple[Request, Answer]] = []
        try:
            while True:
                wait = wait_s if not arrived else 0.0
                request, answer = self._answers.get(block=wait > 0, timeout=wait or None)
                if isinstance(answer, BaseException):
                    raise answer
                arrived.append((request, answer))
        except queue.Empty:
            return arrived

    def close(self) -> None:
        """Lets the idle threads end; one that is in a request ends with its process."""
        for _ in range(self.size):
            self._requests.put(None)

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                parts = [contact.body for contact in request.contacts]
                self._answers.put((request, self._api.ask(parts, request.lane.model_version)))
            except BaseException as error:  # noqa: BLE001 - it is raised again in the worker's own thread
                self._answers.put((request, error))
