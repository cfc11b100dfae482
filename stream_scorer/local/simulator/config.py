"""What the simulated platform is: its client, its model, its limits, its speed; all changeable at run time."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stream_scorer.core.charset import decode_text
from stream_scorer.core.parse_errors import parse_error_place
from stream_scorer.errors import InputError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FeatureType: TypeAlias = Literal["integer", "number", "boolean", "string"]

SCORE_SCOPE = "predictiveengagement:score"
OUTBOUND_SCOPE = "outbound"
DEFAULT_SECRET = "simulator-secret"  # noqa: S105 - it opens nothing but the simulator  # nosec B105
TUTORIAL_FEATURES: dict[str, FeatureType] = {
    "previous_calls": "integer",
    "avg_handle_time": "number",
    "last_contact_days": "integer",
    "segment_id": "string",
}

Milliseconds: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class SimulatorConfig(BaseModel):
    """One frozen description of the simulated platform; a change at run time is a new one.

    Attributes:
        client_id: the one OAuth client there is.
        client_secret: its secret; in no repr.
        scopes: what the client may do; without ``predictiveengagement:score`` every score request is a 403,
            without ``outbound`` every request that adds contacts to a contact list.
        expires_in: life of a token in seconds.
        model_id: the one model there is; any other is a 404.
        contact_list_id: the one contact list there is; any other is a 404.
        known_versions: the values of ``modelVersion`` that are no 404; None accepts every one.
        features: the model's features by name; None accepts any features that are not null.
        refuse_prefix: a contact whose id starts with it is refused (400) and not named; empty refuses none.
        refuse_named_prefix: the same, but ``details[].entityId`` names it. Wins over ``refuse_prefix``.
        names_invalid_contacts: whether the 400 for a malformed contact names it.
        narrow_share: share of contacts whose interval is narrower than 0.15.
        inconsistent_share: share of contacts whose bounds are swapped or whose score lies outside.
        quota: requests the client may make in a window.
        quota_window_s: length of a window in seconds; it opens with the first request after the last one closed.
        latency_ms: time from the last byte of a request to its answer.
        latency_jitter_ms: up to this much more, evenly distributed.
        max_contacts: contacts a request may hold.
        max_features: features a contact may have.
        max_request_bytes: bytes a request body may have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_id: Annotated[str, Field(min_length=1)] = "simulator-client"
    client_secret: Annotated[str, Field(min_length=1, repr=False)] = DEFAULT_SECRET
    scopes: tuple[str, ...] = (SCORE_SCOPE, OUTBOUND_SCOPE)
    expires_in: Annotated[int, Field(gt=0)] = 86400
    model_id: Annotated[str, Field(min_length=1, pattern="^[^/]+$")] = "simulator-model"
    contact_list_id: Annotated[str, Field(min_length=1, pattern="^[^/]+$")] = "simulator-list"
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

    def changed(self, changes: Mapping[str, Any]) -> SimulatorConfig:
        """A configuration with these fields replaced.

        Raises:
            SettingsError: unknown field or impossible value, in one line.
        """
        try:
            return SimulatorConfig.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            raise SettingsError(f"simulator configuration: {one_line(error)}") from None


def one_line(error: ValidationError) -> str:
    """A validation error as ``field: what is wrong; …``, without the value: it may be a secret."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors()
    )


def read_features(path: Path) -> dict[str, FeatureType]:
    """The model's features from a TOML or JSON file.

    The file maps names to types, either ``name = "integer"`` or ``name = {type = "integer", …}``; it may hold that map
    under ``[model.features]``, so that the worker's own settings file serves.

    Raises:
        InputError: the file cannot be read or does not describe features.
    """
    try:
        text = decode_text(path.read_bytes())
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
        raise InputError(f"features file {path}: {one_line(error)}") from None
