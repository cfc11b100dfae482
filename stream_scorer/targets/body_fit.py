"""Fit of a callback's body to a target, by the target it was planned for. One that does not fit is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from stream_scorer.core.text import quoted

if TYPE_CHECKING:
    from stream_scorer.core.callbacks.types import Callback
    from stream_scorer.settings import Settings

OUTBOUND_KIND: Final = "genesys-outbound "
_WEBHOOK_KIND: Final = "webhook "


def fits_webhook(planned_for: str) -> bool:
    """Return whether a webhook accepts the body of a callback that was planned for this target."""
    return not planned_for.startswith(OUTBOUND_KIND.strip())


def fits_log(planned_for: str) -> bool:
    """Return whether the log may take such a callback: not one that was planned for a target that calls.

    It is logged only, and would count as delivered.
    """
    return not planned_for.startswith((_WEBHOOK_KIND, OUTBOUND_KIND))


def fits_list(planned_for: str, list_id: str) -> bool:
    """Return whether such a body is for this contact list, in any region."""
    return planned_for.startswith(OUTBOUND_KIND) and planned_for.endswith(list_suffix(list_id))


def list_suffix(list_id: str) -> str:
    """Return the end of the name of a target with this contact list."""
    return f"/contactlists/{list_id}"


def misfit(settings: Settings, callback: Callback) -> str | None:
    """Return why a callback would be held under these settings; None: it would be sent.

    Whether a contact list still has former columns is not known here: the deliverer reads the list.
    """
    callbacks = settings.callbacks
    other = f"its body was made for {quoted(callback.target)}"
    if callbacks.target == "webhook":
        return None if fits_webhook(callback.target) else other
    if callbacks.target == "log":
        return None if fits_log(callback.target) else other
    list_id = callbacks.contact_lists.get(callback.campaign_id or "", callbacks.contact_list_id or "")
    if not fits_list(callback.target, list_id):
        return other
    if _columns(callback.body) not in (None, frozenset(callbacks.columns)):
        return "its body was made for other columns than callbacks.columns has now, unless the list still has these"
    return None


def _columns(body: bytes) -> frozenset[str] | None:
    """Return the columns of the contacts in a body; None: it has another form, so the platform judges it."""
    try:
        return frozenset(column for contact in orjson.loads(body) for column in contact["data"])
    except (ValueError, KeyError, TypeError):
        return None
