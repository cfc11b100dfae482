"""Batch audits: one event for those contacts of one request that one transaction publishes.

`build_events` builds the events; `stream_scorer.core.audit.hash_chain` numbers, links and encodes them. A scored
contact stays an outcome until then, because no dict is needed to encode it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.core.audit.hash_chain import AuditChain, AuditEvent, AuditPlan, counts_of, verify_chain
from stream_scorer.core.scoring.types import Deferred, RequestAudit, Scored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_scorer.core.audit.hash_chain import Entry
    from stream_scorer.core.scoring.types import Outcome, Rejected

__all__ = ["AuditBatch", "AuditChain", "AuditEvent", "AuditPlan", "build_events", "verify_chain"]

MAX_ID_BYTES: Final = 256
_SUCCESS_CLASS: Final = 2


class AuditBatch(NamedTuple):
    """Result of `build_events`.

    Attributes:
        events: ``BatchAudit`` values without their position in a chain, for `AuditChain.plan`.
        batch_ids: for each outcome, in order, the ``batch_id`` of the event that lists it; empty for a deferred one,
            which is audited when it is finished.
    """

    events: list[AuditEvent]
    batch_ids: list[str]


def build_events(
    outcomes: Sequence[Outcome],
    *,
    model_id: str,
    model_version: str | None,
    new_batch_id: Callable[[], str],
    now_ms: int,
) -> AuditBatch:
    """Group the outcomes of one transaction by the request that finished them, in the order they first appear.

    Args:
        outcomes: the outcomes of one transaction.
        model_id: the worker's model, for contacts rejected before any request.
        model_version: the worker's model version, for the same contacts.
        new_batch_id: called at most once, for the event of those contacts.
        now_ms: the time of that event, in Unix milliseconds, UTC.
    """
    groups: dict[str, tuple[RequestAudit, list[Entry]]] = {}
    batch_ids: list[str] = []
    without_request: RequestAudit | None = None
    for outcome in outcomes:
        if isinstance(outcome, Deferred):
            batch_ids.append("")
            continue
        request = outcome.request
        if request is None:
            if without_request is None:
                without_request = _no_request(new_batch_id(), model_id, model_version, now_ms)
            request = without_request
        batch_id = request.batch_id
        group = groups.get(batch_id)
        if group is None:
            group = groups[batch_id] = (request, [])
        group[1].append(outcome if isinstance(outcome, Scored) else _rejected(outcome))
        batch_ids.append(batch_id)
    return AuditBatch([_event(request, entries) for request, entries in groups.values()], batch_ids)


def _no_request(batch_id: str, model_id: str, model_version: str | None, now_ms: int) -> RequestAudit:
    return RequestAudit(
        batch_id=batch_id,
        model_id=model_id,
        model_version=model_version,
        request_contacts=0,
        started_at_ms=now_ms,
        finished_at_ms=now_ms,
        latency_ms=None,
        attempts=0,
        api_status=None,
        correlation_id=None,
    )


def _rejected(outcome: Rejected) -> dict[str, Any]:
    return {
        "source": outcome.record.source,
        "contact_id": audited_id(outcome.contact_id),
        "outcome": "REJECTED",
        "score": None,
        "confidence_lower": None,
        "confidence_upper": None,
        "imputed_features": (),
        "reasons": outcome.reasons,
        "event_id": audited_id(outcome.event_id),
        "features_hash": outcome.features_hash,
        "reused_from": None,
        "billed": outcome.request is not None and is_success(outcome.request.api_status),
    }


def audited_id(text: str) -> str:
    """Return a contact or event id, truncated for an audit entry: a longer one would make the event too large."""
    if len(text) * 4 <= MAX_ID_BYTES:
        return text
    return text.encode()[:MAX_ID_BYTES].decode(errors="ignore")


def is_success(status: int | None) -> bool:
    """Return whether a status is a 2xx, which the platform bills."""
    return status is not None and status // 100 == _SUCCESS_CLASS


def _event(request: RequestAudit, entries: list[Entry]) -> AuditEvent:
    return {
        "batch_id": request.batch_id,
        "model_id": request.model_id,
        "model_version": request.model_version,
        "request_contacts": request.request_contacts,
        "started_at": request.started_at_ms,
        "finished_at": request.finished_at_ms,
        "latency_ms": request.latency_ms,
        "attempts": request.attempts,
        "api_status": request.api_status,
        "correlation_id": request.correlation_id,
        "counts": counts_of(entries),
        "contacts": entries,
    }
