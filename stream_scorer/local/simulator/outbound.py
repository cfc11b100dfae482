"""Simulated contact list: ``POST /api/v2/outbound/contactlists/{contactListId}/contacts``.

A contact with an existing ``id`` replaces the old one, as on the platform; one without an id gets one.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import orjson

from stream_scorer.core.parse_errors import parse_error_place
from stream_scorer.local.simulator.replies import Reply, platform_error
from stream_scorer.local.simulator.validation import BadRequest, Complaint, form_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.local.simulator.config import SimulatorConfig

OUTBOUND_PATH: Final = re.compile(r"/api/v2/outbound/contactlists/([^/]+)/contacts")
MAX_CONTACTS: Final = 1000
_FIELDS: Final = {"id", "contactListId", "data", "callable"}


@dataclass(frozen=True, slots=True)
class ListedContact:
    """Contact of the list, as ``GET /_simulator/contact-list`` returns it.

    Attributes:
        data: its columns.
        callable: whether it may be called.
        priority: the priority flag of its last request.
        times: number of requests that contained it.
    """

    data: dict[str, str]
    callable: bool
    priority: bool
    times: int


class ContactList:
    """The only contact list, by contact id."""

    def __init__(self) -> None:
        self.contacts: dict[str, ListedContact] = {}

    def add(
        self,
        list_id: str,
        query: bytes,
        headers: Mapping[bytes, bytes],
        body: bytes,
        *,
        config: SimulatorConfig,
        context_id: str,
    ) -> Reply:
        """Answer an admitted request: add all of its contacts, or none."""
        if refusal := _refusal(list_id, headers, len(body), config):
            return platform_error(*refusal, context_id=context_id)
        try:
            priority = _priority(query)
            contacts = _checked(orjson.loads(body), config)
        except orjson.JSONDecodeError as error:
            return platform_error(400, f"The body is not JSON{parse_error_place(error)}.", context_id=context_id)
        except BadRequest as error:
            complaints = error.complaints
            text, code = str(error), complaints[0].code
            return platform_error(400, text, context_id=context_id, code=code, complaints=complaints)
        return Reply(200, orjson.dumps([self._put(contact, priority) for contact in contacts]))

    def _put(self, contact: dict[str, Any], priority: bool) -> dict[str, Any]:
        contact_id: str = contact.get("id") or str(uuid.uuid4())
        known = self.contacts.get(contact_id)
        times = 1 if known is None else known.times + 1
        self.contacts[contact_id] = ListedContact(contact["data"], contact.get("callable", True), priority, times)
        return {"callable": True, **contact, "id": contact_id}


def _refusal(
    list_id: str, headers: Mapping[bytes, bytes], size: int, config: SimulatorConfig
) -> tuple[int, str] | None:
    """Return the error of a request before its body is read: status and message."""
    if list_id != config.contact_list_id:
        return 404, f"The contact list '{list_id}' was not found."
    return form_error(headers, size, config)


def _priority(query: bytes) -> bool:
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    if unknown := given.keys() - {"priority"}:
        raise _bad(min(unknown), f"unknown parameter '{min(unknown)}'")
    if given.get("priority", ["false"]) not in (["true"], ["false"]):
        raise _bad("priority", "priority must be true or false")
    return given.get("priority") == ["true"]


def _checked(contacts: Any, config: SimulatorConfig) -> list[dict[str, Any]]:
    """Return the contacts of a decoded body.

    Raises:
        BadRequest: they violate the platform's format.
    """
    if not isinstance(contacts, list) or not 0 < len(contacts) <= MAX_CONTACTS:
        raise _bad("", f"the body must be an array of 1 to {MAX_CONTACTS} contacts")
    for contact in contacts:
        if not isinstance(contact, dict):
            raise _bad("", "a contact must be a JSON object")
        if extra := contact.keys() - _FIELDS:
            raise _bad(min(extra), f"unknown property '{min(extra)}'")
        if contact.get("contactListId") != config.contact_list_id:
            raise _bad("contactListId", "contactListId must be that of the path")
        if not isinstance(contact.get("id", ""), str) or not isinstance(contact.get("callable", True), bool):
            raise _bad("id", "id must be a text and callable a boolean")
        data = contact.get("data")
        if not isinstance(data, dict) or not data or not all(isinstance(value, str) for value in data.values()):
            raise _bad("data", "data must be an object of texts")
    return contacts


def _bad(field: str, message: str) -> BadRequest:
    return BadRequest(Complaint("invalid.value" if field else "bad.request", field, message))
