"""Answer of a fault with a status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.local.http_server.models import BODILESS
from stream_scorer.local.simulator.replies import Reply, html_error, oauth_error, platform_error
from stream_scorer.local.simulator.response_faults import select
from stream_scorer.local.simulator.validation import Complaint

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.local.simulator.fault_script import RequestSummary
    from stream_scorer.local.simulator.faults import FaultAction, FaultPath

OAUTH_STATUSES: Final = {400, 401}
LEVELS: Final = 100_000
_BODIES: Final = {
    "empty": b"",
    "not_json": b'{"results": [{"contactId": "',
    "wrong_shape": b'{"answers": {"contactId": 1}}',
    "nested": b'{"results": ' + b"[" * LEVELS + b"]" * LEVELS + b"}",
}


def scripted_reply(
    path: FaultPath, action: FaultAction, asked: Callable[[], RequestSummary], *, context_id: str
) -> Reply:
    """Return the answer; ``asked`` is called only if it depends on the contacts of the request.

    Raises:
        ValueError: the action has no status.
    """
    if action.status is None:
        raise ValueError("the action has no status")
    reply = _reply(path, action.status, action, asked, context_id)
    body = b"" if action.status in BODILESS else reply.body
    more = tuple(action.headers.items())
    if action.retry_after is not None:
        more = (("Retry-After", action.retry_after), *more)
    return Reply(reply.status, body, reply.content_type, (*reply.headers, *more))


def _reply(
    path: FaultPath, status: int, action: FaultAction, asked: Callable[[], RequestSummary], context_id: str
) -> Reply:
    text = f"Scripted answer {status}."
    if action.body == "html":
        return html_error(status)
    if action.body != "platform":
        return Reply(status, _BODIES.get(action.body, action.body.encode()))
    if path == "token" and status in OAUTH_STATUSES:
        return oauth_error(status, text, error=action.code or "invalid_client")
    complaints = [Complaint("invalid.value", "contacts", text, contact_id) for contact_id in _named(action, asked)]
    return platform_error(status, text, context_id=context_id, code=action.code, complaints=complaints)


def _named(action: FaultAction, asked: Callable[[], RequestSummary]) -> tuple[str, ...]:
    """Return the ids in the error, in the order of the request."""
    if action.names is None or isinstance(action.names, tuple):
        return action.names or ()
    ids = asked().contact_ids
    meant = select(ids, action.names)
    return tuple(contact_id for contact_id in ids if contact_id in meant)
