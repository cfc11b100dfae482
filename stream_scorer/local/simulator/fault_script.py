"""Active script of the simulator's faults: matches path, contacts, model version and share of the requests."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from stream_scorer.local.http_server.fault_script import FaultScript
from stream_scorer.local.simulator.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from stream_scorer.local.simulator.faults import FaultAction, FaultMatch, FaultPath


class RequestSummary(NamedTuple):
    """Content of a score request, as far as faults depend on it."""

    contact_ids: tuple[str, ...] = ()
    model_version: str | None = None


def asked_in(body: bytes) -> RequestSummary:
    """Return the summary of a request body; empty if it is malformed."""
    try:
        request = orjson.loads(body)
        contacts, version = request["contacts"], request.get("modelVersion")
        ids = tuple(contact["contactId"] for contact in contacts)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return RequestSummary()
    if not all(isinstance(contact_id, str) for contact_id in ids):
        return RequestSummary()
    return RequestSummary(ids, version if isinstance(version, str) else None)


class FaultBook(FaultScript[Fault]):
    """Active faults of the simulator."""

    def __init__(self) -> None:
        super().__init__(seed_of=lambda fault: fault.match.seed)

    def take(self, path: FaultPath, asked: Callable[[], RequestSummary] = RequestSummary) -> FaultAction | None:
        """Return the action for this request; None: no fault is due.

        ``asked`` is called at most once, and only if a fault depends on the body, which must then be parsed.
        """
        summary = cache(asked)

        def concerns(fault: Fault, draw: Random) -> bool:
            match = fault.match
            if match.path != path or (match.needs_body and not _concerns(match, summary())):
                return False
            return match.share >= 1 or draw.random() < match.share

        fault = self.next_due(concerns)
        return None if fault is None else fault.action

    def _described(self, fault: Fault) -> dict[str, Any]:
        content = super()._described(fault)
        return {**content, "match": {"path": fault.match.path, **content.get("match", {})}}


def _concerns(match: FaultMatch, request: RequestSummary) -> bool:
    ids = request.contact_ids
    if match.contact_id is not None and match.contact_id not in ids:
        return False
    if match.contact_prefix is not None and not any(map(_starts_with(match.contact_prefix), ids)):
        return False
    if match.model_version is not None and match.model_version != (request.model_version or ""):
        return False
    return match.min_contacts is None or len(ids) >= match.min_contacts


def _starts_with(prefix: str) -> Callable[[str], bool]:
    return lambda contact_id: contact_id.startswith(prefix)
