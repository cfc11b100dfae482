"""Thread pool for blocking calls: a thread takes a job, runs it, and puts the result on a queue."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

JobT = TypeVar("JobT")
AnswerT = TypeVar("AnswerT")


class WorkerPool(Generic[JobT, AnswerT]):
    """``size`` daemon threads that run one blocking function.

    Not ``concurrent.futures``: its threads are joined when the interpreter exits, so one hanging request would delay a
    shutdown by its whole deadline.

    Args:
        work: runs a job; called by several threads at once.
        size: number of threads.
        name: prefix of the threads' names.
    """

    def __init__(self, work: Callable[[JobT], AnswerT], size: int, name: str) -> None:
        self._do = work
        self._jobs: queue.SimpleQueue[JobT | None] = queue.SimpleQueue()
        # Not SimpleQueue: CPython 3.11's get(timeout=…) never returns if a signal's handler outlasts the time-out.
        self._answers: queue.Queue[tuple[JobT, AnswerT | BaseException]] = queue.Queue()
        self.size = size
        for number in range(size):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def submit(self, job: JobT) -> None:
        """Submit a job to the next free thread."""
        self._jobs.put(job)

    def answers(self, wait_s: float = 0.0) -> list[tuple[JobT, AnswerT]]:
        """Return the results that have arrived; wait up to ``wait_s`` for the first one.

        Raises:
            BaseException: raised by a job. That is a bug, and must not look like a lost job.
        """
        arrived: list[tuple[JobT, AnswerT]] = []
        try:
            while True:
                wait = wait_s if not arrived else 0.0
                job, answer = self._answers.get(block=wait > 0, timeout=wait or None)
                if isinstance(answer, BaseException):
                    raise answer
                arrived.append((job, answer))
        except queue.Empty:
            return arrived

    def close(self) -> None:
        """Let idle threads end; one that runs a job ends with the process."""
        for _ in range(self.size):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._answers.put((job, self._do(job)))
            except BaseException as error:  # noqa: BLE001 - raised again in the service's own thread
                self._answers.put((job, error))
