"""The threads that talk HTTP. They get a request, ask the API once, and put the answer on a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stream_scorer.core.records import ApiResponse
from stream_scorer.core.scoring.request import Request
from stream_scorer.runtime.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Sequence


class ScoringApi(Protocol):
    """What the worker needs of the API: one attempt, one answer; nothing a network or an API does is raised."""

    def ask(self, parts: Sequence[bytes], model_version: str | None) -> ApiResponse:
        """Asks about the contacts whose JSON stands in ``parts``. Blocks until the answer or the deadline."""


class RequestPool(WorkerPool[Request, ApiResponse]):
    """``size`` threads around one ``ScoringApi``."""

    def __init__(self, api: ScoringApi, size: int) -> None:
        def ask(request: Request) -> ApiResponse:
            return api.ask([contact.body for contact in request.contacts], request.key.model_version)

        super().__init__(ask, size, "scoring-request")
