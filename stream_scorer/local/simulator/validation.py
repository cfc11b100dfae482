"""Validation of requests by the simulated model, with the exact error texts.

`scoring` validates a contact only if its cache has no plan for the contact's shape.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.local.simulator.config import FeatureType, SimulatorConfig

REQUEST_FIELDS = {"contacts", "modelVersion"}
CONTACT_FIELDS = {"contactId", "features"}
PYTHON_TYPES: dict[FeatureType, frozenset[type]] = {
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "string": frozenset({str}),
}
SCALARS = frozenset({int, float, bool, str})


class Complaint(NamedTuple):
    """Entry of a 400's ``details``. ``entity_id`` is None if the platform does not name the contact."""

    code: str
    field: str
    message: str
    entity_id: str | None = None


class BadRequest(Exception):
    """The request violates the contract; answered with a 400."""

    def __init__(self, *complaints: Complaint) -> None:
        super().__init__(complaints[0].message)
        self.complaints = complaints


class UnknownVersion(Exception):
    """The model has no such version; answered with a 404."""


def form_error(headers: Mapping[bytes, bytes], size: int, config: SimulatorConfig) -> tuple[int, str] | None:
    """Return the error of a request of ``size`` bytes before its body is read: status and message."""
    if size > config.max_request_bytes:
        return 413, f"The request is larger than {config.max_request_bytes} bytes."
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
        return 415, "Content-Type must be application/json."
    if headers.get(b"content-encoding", b"identity") != b"identity":
        return 415, "Content-Encoding is not supported."
    return None


def open_envelope(request: Any, config: SimulatorConfig) -> tuple[list[Any], str | None]:
    """Return the contacts, not yet validated, and the ``modelVersion`` of a decoded body.

    Raises:
        BadRequest: there are other fields, or these are malformed.
        UnknownVersion: the model has no such version.
    """
    if not isinstance(request, dict):
        raise BadRequest(Complaint("bad.request", "", "the body must be a JSON object"))
    if extra := request.keys() - REQUEST_FIELDS:
        raise BadRequest(Complaint("bad.request", min(extra), f"unknown property '{min(extra)}'"))
    contacts, version = request.get("contacts"), request.get("modelVersion")
    if not isinstance(contacts, list) or not 1 <= len(contacts) <= config.max_contacts:
        text = f"'contacts' must be an array of 1 to {config.max_contacts} contacts"
        raise BadRequest(Complaint("invalid.value", "contacts", text))
    if "modelVersion" in request and (not isinstance(version, str) or not version):
        raise BadRequest(Complaint("invalid.value", "modelVersion", "'modelVersion' must be a non-empty string"))
    if version is not None and config.known_versions is not None and version not in config.known_versions:
        raise UnknownVersion(version)
    return contacts, version


def examine_contact(contact: Any, config: SimulatorConfig) -> tuple[str, dict[str, Any]]:
    """Return the contact's id and its features, with values not yet validated.

    Raises:
        BadRequest: the fields are not exactly ``contactId`` and ``features``, or the features not exactly the model's.
    """
    if not isinstance(contact, dict):
        raise BadRequest(Complaint("bad.request", "contacts", "a contact must be an object"))
    contact_id, features = contact.get("contactId"), contact.get("features")
    if not isinstance(contact_id, str) or not contact_id:
        raise BadRequest(Complaint("invalid.value", "contactId", "'contactId' must be a non-empty string"))
    if contact.keys() != CONTACT_FIELDS or not isinstance(features, dict):
        text = "a contact must have 'contactId' and an object 'features', nothing else"
        raise BadRequest(Complaint("bad.request", "features", text, _named(contact_id, config)))
    if len(features) > config.max_features:
        text = f"a contact may have {config.max_features} features"
        raise BadRequest(Complaint("invalid.value", "features", text, _named(contact_id, config)))
    model = config.features
    if model is not None and (different := features.keys() ^ model.keys()):
        name = min(different)
        text = f"feature '{name}' is {'missing' if name in model else 'unknown to the model'}"
        raise BadRequest(Complaint("invalid.value", f"features.{name}", text, _named(contact_id, config)))
    return contact_id, features


def is_always_valid(contact_id: str, features: Mapping[str, Any], config: SimulatorConfig) -> bool:
    """Return whether all values of these types are valid for these features; False: these are, others may not be.

    Raises:
        BadRequest: a value is invalid.
    """
    always = True
    for name, value in features.items():
        kinds = SCALARS if config.features is None else PYTHON_TYPES[config.features[name]]
        if type(value) in kinds:
            continue
        if int in kinds and isinstance(value, float) and value.is_integer():
            always = False  # JSON has no integer type: 3.0 is valid, 3.5 is not
            continue
        expected = "not be null, an array or an object" if config.features is None else f"be {config.features[name]}"
        text = f"feature '{name}' must {expected}"
        raise BadRequest(Complaint("invalid.value", f"features.{name}", text, _named(contact_id, config)))
    return always


def check_ids(ids: list[str], config: SimulatorConfig) -> None:
    """Check that no id occurs twice and the configuration refuses none.

    Raises:
        BadRequest: names every refused contact with the naming prefix; without such, names none.
    """
    if len(set(ids)) != len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        text = "a contactId occurs twice in the request"
        raise BadRequest(Complaint("invalid.value", "contacts", text, _named(twice, config)))
    prefixes = tuple(filter(None, (config.refuse_named_prefix, config.refuse_prefix)))
    if not prefixes or not (refused := [contact_id for contact_id in ids if contact_id.startswith(prefixes)]):
        return
    if config.refuse_named_prefix and (named := [i for i in refused if i.startswith(config.refuse_named_prefix)]):
        raise BadRequest(*(Complaint("invalid.value", "contacts", "the contact cannot be scored", i) for i in named))
    raise BadRequest(Complaint("invalid.value", "contacts", "a contact of the request cannot be scored"))


def _named(contact_id: str, config: SimulatorConfig) -> str | None:
    return contact_id if config.names_invalid_contacts else None
