"""OpenAPI description of the simulated endpoints, for the current configuration: ``GET /openapi.json``."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_scorer.local.simulator.validation import SCALARS

if TYPE_CHECKING:
    from stream_scorer.local.simulator.config import SimulatorConfig

SCORE_PATH: Final = "/api/v2/predictiveengagement/models/{modelId}/score"
LIST_PATH: Final = "/api/v2/outbound/contactlists/{contactListId}"
_JSON_TYPES: Final = {int: "integer", float: "number", bool: "boolean", str: "string"}


def describe(config: SimulatorConfig) -> dict[str, Any]:
    """Return the packaged description, with the model, features and limits of this configuration."""
    description: dict[str, Any] = orjson.loads((resources.files(__package__) / "openapi.json").read_bytes())
    schemas = description["components"]["schemas"]
    schemas["Features"] |= _features(config)
    request = schemas["ScoreRequest"]["properties"]
    request["contacts"]["maxItems"] = config.max_contacts
    if config.known_versions is not None:
        request["modelVersion"]["enum"] = list(config.known_versions)
    [model_id] = description["paths"][SCORE_PATH]["post"]["parameters"]
    model_id["schema"]["enum"] = [config.model_id]
    # One list, since a contact's `contactListId` is that of the path.
    for path, method in ((LIST_PATH, "get"), (f"{LIST_PATH}/contacts", "post"), (f"{LIST_PATH}/contacts/bulk", "post")):
        list_id = description["paths"][path][method]["parameters"][0]
        list_id["schema"]["enum"] = [config.contact_list_id]
    listed = schemas["ListedContact"]["properties"]
    listed["contactListId"]["enum"] = [config.contact_list_id]
    columns = config.lists()[config.contact_list_id].columns
    listed["data"] |= {"properties": {name: {"type": "string"} for name in columns}, "additionalProperties": False}
    return description


def _features(config: SimulatorConfig) -> dict[str, Any]:
    if config.features is None:
        return {
            "maxProperties": config.max_features,
            "additionalProperties": {"type": [_JSON_TYPES[kind] for kind in sorted(SCALARS, key=str)]},
        }
    properties = {name: {"type": kind} for name, kind in config.features.items()}
    return {"properties": properties, "required": list(properties)}
