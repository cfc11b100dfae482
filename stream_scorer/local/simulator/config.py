"""Configuration of the simulated platform: client, model, limits, latency; all can change at run time."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationError, model_validator

from stream_scorer.core.charset import decode_text
from stream_scorer.core.parse_errors import parse_error_place
from stream_scorer.errors import InputError, SettingsError
from stream_scorer.file_reader import read_file
from stream_scorer.local.http_server.models import Frozen, Milliseconds, Share, validation_message

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FeatureType: TypeAlias = Literal["integer", "number", "boolean", "string"]

SCORE_SCOPE = "predictiveengagement:score"
OUTBOUND_SCOPE = "outbound"
DEFAULT_SECRET = "simulator-secret"  # noqa: S105 - protects nothing but the simulator  # nosec B105
TUTORIAL_FEATURES: dict[str, FeatureType] = {
    "previous_calls": "integer",
    "avg_handle_time": "number",
    "last_contact_days": "integer",
    "segment_id": "string",
}

LIST_COLUMNS = (
    *("contact_id", "event_id", "campaign_id", "score", "confidence_lower", "confidence_upper"),
    *("model_id", "model_version", "occurred_at", "scored_at", "phone"),
)
MAX_LIST_COLUMNS = 50


class ListColumns(Frozen):
    """Columns of a contact list.

    Attributes:
        columns: all columns, at most 50.
        phone_columns: those with a number to call, at least one. The dialler calls the first that has a value.
    """

    columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_LIST_COLUMNS)] = LIST_COLUMNS
    phone_columns: Annotated[tuple[str, ...], Field(min_length=1)] = ("phone",)

    @model_validator(mode="after")
    def _phone_columns_exist(self) -> ListColumns:
        if unknown := set(self.phone_columns) - set(self.columns):
            raise ValueError(f"phone_columns: '{min(unknown)}' is no column")
        return self


class SimulatorConfig(Frozen):
    """Frozen configuration of the simulated platform; a change at run time replaces it.

    Attributes:
        client_id: id of the only OAuth client.
        client_secret: its secret; the repr does not show it.
        scopes: scopes of the client; without ``predictiveengagement:score`` every score request gets a 403,
            without ``outbound`` every request that adds contacts to a contact list.
        expires_in: lifetime of a token in seconds.
        model_id: id of the only model; any other gets a 404.
        contact_list_id: id of the first contact list, with the default columns.
        contact_lists: columns of more contact lists, by id; also of the first. Any other list gets a 404.
        contact_list_limit: maximum number of contacts of a list.
        dials_per_s: calls that the dialler makes in each list, in a second; 0: only those by ``POST /dial``.
        max_attempts: number of calls for a contact that does not answer.
        known_versions: accepted values of ``modelVersion``, others get a 404; None accepts all.
        features: the model's features by name; None accepts any features that are not null.
        refuse_prefix: a contact whose id starts with it is refused (400) and not named; empty refuses none. In a
            contact list, the id is the column ``contact_id``.
        refuse_named_prefix: as ``refuse_prefix``, but ``details[].entityId`` names the contact. Takes precedence.
        names_invalid_contacts: whether the 400 for a malformed contact names it.
        narrow_share: share of contacts whose interval is narrower than 0.15.
        inconsistent_share: share of contacts whose bounds are swapped or whose score lies outside.
        quota: requests in a window.
        quota_window_s: length of a window in seconds; it opens with the first request after the last one closed.
        latency_ms: time from the last byte of a request to its answer.
        latency_jitter_ms: maximum extra latency, uniformly distributed.
        max_contacts: maximum number of contacts of a request.
        max_features: maximum number of features of a contact.
        max_request_bytes: maximum size of a request body, in bytes.
    """

    client_id: Annotated[str, Field(min_length=1)] = "simulator-client"
    client_secret: Annotated[str, Field(min_length=1, repr=False)] = DEFAULT_SECRET
    scopes: tuple[str, ...] = (SCORE_SCOPE, OUTBOUND_SCOPE)
    expires_in: Annotated[int, Field(gt=0)] = 86400
    model_id: Annotated[str, Field(min_length=1, pattern="^[^/]+$")] = "simulator-model"
    contact_list_id: Annotated[str, Field(min_length=1, pattern="^[^/]+$")] = "simulator-list"
    contact_lists: dict[Annotated[str, Field(min_length=1, pattern="^[^/]+$")], ListColumns] = Field(
        default_factory=dict
    )
    contact_list_limit: Annotated[int, Field(ge=0)] = 1_000_000
    dials_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    max_attempts: Annotated[int, Field(gt=0)] = 1
    known_versions: tuple[str, ...] | None = ("v1", "v2")
    features: dict[str, FeatureType] | None = Field(default_factory=lambda: dict(TUTORIAL_FEATURES))
    refuse_prefix: str = "REFUSE-"
    refuse_named_prefix: str = "REFUSE-NAMED-"
    names_invalid_contacts: bool = True
    narrow_share: Share = 0.03
    inconsistent_share: Share = 0.005
    quota: Annotated[int, Field(ge=0)] = 300
    quota_window_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    latency_ms: Milliseconds = 0.0
    latency_jitter_ms: Milliseconds = 0.0
    max_contacts: Annotated[int, Field(gt=0)] = 1000
    max_features: Annotated[int, Field(gt=0, le=200)] = 200
    max_request_bytes: Annotated[int, Field(gt=0)] = 512_000

    def lists(self) -> dict[str, ListColumns]:
        """Return the columns of all contact lists, by id."""
        return {self.contact_list_id: ListColumns(), **self.contact_lists}

    def changed(self, changes: Mapping[str, Any]) -> SimulatorConfig:
        """Return a configuration with these fields replaced.

        Raises:
            SettingsError: unknown field or invalid value, in one line.
        """
        try:
            return SimulatorConfig.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            raise SettingsError(f"simulator configuration: {validation_message(error)}") from None


def read_features(path: Path) -> dict[str, FeatureType]:
    """Return the model's features from a TOML or JSON file.

    The file maps names to types, either ``name = "integer"`` or ``name = {type = "integer", …}``. The map may be under
    ``[model.features]``, so that the worker's own settings file can be used.

    Raises:
        InputError: the file cannot be read or does not describe features.
    """
    try:
        text = decode_text(read_file(path))
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InputError(f"features file {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        what = "JSON" if path.suffix == ".json" else "TOML"
        raise InputError(f"features file {path}: it is not {what}{parse_error_place(error)}") from None
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"].get("features")
    if not isinstance(content, dict) or not content:
        raise InputError(f'features file {path}: it must map feature names to types, as in previous_calls = "integer"')
    named = {name: value.get("type") if isinstance(value, dict) else value for name, value in content.items()}
    try:
        return SimulatorConfig.model_validate({"features": named}).features or {}
    except ValidationError as error:
        raise InputError(f"features file {path}: {validation_message(error)}") from None
