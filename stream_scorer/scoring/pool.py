"""Pool of threads for scoring requests. Each sends one request once and puts the response on a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stream_scorer.core.records import ApiResponse
from stream_scorer.core.scoring.request import Request
from stream_scorer.runtime.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Sequence


class ScoringApi(Protocol):
    """The scoring API: one attempt, one response. Failures of network and API are returned, not raised."""

    def ask(self, parts: Sequence[bytes], model_version: str | None) -> ApiResponse:
        """Send the contacts whose JSON is in ``parts``. Block until the response or the deadline."""


class RequestPool(WorkerPool[Request, ApiResponse]):
    """``size`` threads around one ``ScoringApi``."""

    def __init__(self, api: ScoringApi, size: int) -> None:
        def ask(request: Request) -> ApiResponse:
            return api.ask([contact.body for contact in request.contacts], request.key.model_version)

        super().__init__(ask, size, "scoring-request")
