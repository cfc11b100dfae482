"""Simulated endpoints of Genesys Outbound: read a contact list, add contacts to it, read its contacts.

They are ``GET /api/v2/outbound/contactlists/{contactListId}``, and ``POST`` to ``…/contacts`` and ``…/contacts/bulk``.
`stream_scorer.local.simulator.contact_list` has the lists and their dial queues.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import orjson

from stream_scorer.core.parse_errors import parse_error_place
from stream_scorer.local.simulator.contact_list import AddOptions, ContactList
from stream_scorer.local.simulator.replies import Reply, platform_error
from stream_scorer.local.simulator.validation import BadRequest, Complaint, form_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.local.simulator.config import ListColumns, SimulatorConfig

LIST_PATH: Final = re.compile(r"/api/v2/outbound/contactlists/([^/]+)")
ADD_PATH: Final = re.compile(r"/api/v2/outbound/contactlists/([^/]+)/contacts")
READ_PATH: Final = re.compile(r"/api/v2/outbound/contactlists/([^/]+)/contacts/bulk")
MAX_CONTACTS: Final = 1000
_FIELDS: Final = {"id", "contactListId", "data", "callable"}
_PARAMETERS: Final = ("priority", "doNotQueue", "clearSystemData")


def described_list(listed: ContactList, config: SimulatorConfig, *, context_id: str) -> Reply:
    """Answer a request for the list itself: its columns, and its size."""
    columns = config.lists().get(listed.id)
    if columns is None:
        return platform_error(404, _unknown(listed.id), context_id=context_id)
    content = {
        "id": listed.id,
        "name": f"Simulated list {listed.id}",
        "columnNames": columns.columns,
        "phoneColumns": [{"columnName": name, "type": "cell"} for name in columns.phone_columns],
        "emailColumns": [],
        "size": len(listed.contacts),
    }
    return Reply(200, orjson.dumps(content))


def added_contacts(
    listed: ContactList,
    query: bytes,
    headers: Mapping[bytes, bytes],
    body: bytes,
    *,
    config: SimulatorConfig,
    context_id: str,
) -> Reply:
    """Answer an admitted request: add all of its contacts, or none."""
    try:
        columns = _columns(listed.id, headers, len(body), config)
        options = _options(query)
        contacts = _checked(orjson.loads(body), listed.id, columns, config)
        _check_size(listed, contacts, config)
    except _Refused as refused:
        return platform_error(refused.status, str(refused), context_id=context_id)
    except orjson.JSONDecodeError as error:
        return platform_error(400, f"The body is not JSON{parse_error_place(error)}.", context_id=context_id)
    except BadRequest as error:
        return _bad_request(error, context_id)
    return Reply(200, orjson.dumps(listed.add(contacts, options)))


def read_contacts(
    listed: ContactList, headers: Mapping[bytes, bytes], body: bytes, *, config: SimulatorConfig, context_id: str
) -> Reply:
    """Answer an admitted request for contacts by their ids; those that the list does not have are left out."""
    try:
        _columns(listed.id, headers, len(body), config)
        ids = orjson.loads(body)
        if not isinstance(ids, list) or not 0 < len(ids) <= MAX_CONTACTS or not all(isinstance(i, str) for i in ids):
            raise _bad("", f"the body must be an array of 1 to {MAX_CONTACTS} ids")
    except _Refused as refused:
        return platform_error(refused.status, str(refused), context_id=context_id)
    except orjson.JSONDecodeError as error:
        return platform_error(400, f"The body is not JSON{parse_error_place(error)}.", context_id=context_id)
    except BadRequest as error:
        return _bad_request(error, context_id)
    found = [listed.described(contact_id) for contact_id in dict.fromkeys(ids) if contact_id in listed.contacts]
    return Reply(200, orjson.dumps(found))


class _Refused(Exception):
    """The request is refused before its body is read."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _columns(list_id: str, headers: Mapping[bytes, bytes], size: int, config: SimulatorConfig) -> ListColumns:
    """Return the columns of the list of a request.

    Raises:
        _Refused: there is no such list, or the request has the wrong form.
    """
    columns = config.lists().get(list_id)
    if columns is None:
        raise _Refused(404, _unknown(list_id))
    if refusal := form_error(headers, size, config):
        raise _Refused(*refusal)
    return columns


def _unknown(list_id: str) -> str:
    return f"The contact list '{list_id}' was not found."


def _options(query: bytes) -> AddOptions:
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    if unknown := given.keys() - set(_PARAMETERS):
        raise _bad(min(unknown), f"unknown parameter '{min(unknown)}'")
    for name in _PARAMETERS:
        if given.get(name, ["false"]) not in (["true"], ["false"]):
            raise _bad(name, f"{name} must be true or false")
    return AddOptions(*(given.get(name) == ["true"] for name in _PARAMETERS))


def _checked(contacts: Any, list_id: str, columns: ListColumns, config: SimulatorConfig) -> list[dict[str, Any]]:
    """Return the contacts of a decoded body, each with an id.

    Raises:
        BadRequest: they violate the platform's format, or the configuration refuses one.
    """
    if not isinstance(contacts, list) or not 0 < len(contacts) <= MAX_CONTACTS:
        raise _bad("", f"the body must be an array of 1 to {MAX_CONTACTS} contacts")
    for contact in contacts:
        if not isinstance(contact, dict):
            raise _bad("", "a contact must be a JSON object")
        if extra := contact.keys() - _FIELDS:
            raise _bad(min(extra), f"unknown property '{min(extra)}'")
        if contact.get("contactListId") != list_id:
            raise _bad("contactListId", "contactListId must be that of the path")
        if not isinstance(contact.get("id", ""), str) or not isinstance(contact.get("callable", True), bool):
            raise _bad("id", "id must be a text and callable a boolean")
        data = contact.get("data")
        if not isinstance(data, dict) or not data or not all(isinstance(value, str) for value in data.values()):
            raise _bad("data", "data must be an object of texts")
        if unknown := data.keys() - set(columns.columns):
            raise _bad("data", f"the list has no column '{min(unknown)}'")
    _check_refused(contacts, config)
    return [{**contact, "id": contact.get("id") or str(uuid.uuid4())} for contact in contacts]


def _check_refused(contacts: list[dict[str, Any]], config: SimulatorConfig) -> None:
    """Check that the configuration refuses none of the contacts by the column ``contact_id``.

    Raises:
        BadRequest: names every refused contact with the naming prefix; without such, names none.
    """
    persons = [(contact["data"].get("contact_id", ""), contact.get("id")) for contact in contacts]
    text = "a contact of the request cannot be added"
    if (prefix := config.refuse_named_prefix) and (named := [i for who, i in persons if who.startswith(prefix)]):
        raise BadRequest(*(Complaint("invalid.value", "data", text, contact_id) for contact_id in named))
    if (prefix := config.refuse_prefix) and any(who.startswith(prefix) for who, _ in persons):
        raise _bad("data", text)


def _check_size(listed: ContactList, contacts: list[dict[str, Any]], config: SimulatorConfig) -> None:
    added = {contact["id"] for contact in contacts} - listed.contacts.keys()
    if len(listed.contacts) + len(added) > config.contact_list_limit:
        raise _bad("", f"the list has {len(listed.contacts)} contacts; its limit is {config.contact_list_limit}")


def _bad(field: str, message: str) -> BadRequest:
    return BadRequest(Complaint("invalid.value" if field else "bad.request", field, message))


def _bad_request(error: BadRequest, context_id: str) -> Reply:
    complaints = error.complaints
    return platform_error(400, str(error), context_id=context_id, code=complaints[0].code, complaints=complaints)
