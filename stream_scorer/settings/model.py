"""Section ``[model]``: the features that a contact must have. `core.scoring.feature_types` has their rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Final, Self

from pydantic import Field, model_validator
from pydantic_core import CoreSchema, core_schema

from stream_scorer.core.scoring.feature_types import Feature
from stream_scorer.errors import SettingsError
from stream_scorer.settings.names import did_you_mean
from stream_scorer.settings.types import Count, Section, conflict

_PARTS: Final = tuple(field.name for field in fields(Feature) if field.name != "name")


def tutorial_features() -> dict[str, Feature]:
    """Return the features of the tutorial's model, used if the settings name no feature."""
    features = (
        Feature("previous_calls", "integer", impute=0),
        Feature("avg_handle_time", "number", impute=180.0),
        Feature("last_contact_days", "integer", impute=30),
        Feature("segment_id", "string", impute="default"),
    )
    return {feature.name: feature for feature in features}


def _feature(name: str, table: Any) -> Feature:
    key = f"model.features.{name}"
    if isinstance(table, Feature):
        return table
    if not isinstance(table, dict):
        raise conflict(f'{key} must be a table, such as {{ type = "integer", impute = 0 }}', key)
    for part in table:
        if part not in _PARTS:
            raise conflict(f"{key} has no key {part!r}{did_you_mean(str(part), _PARTS)}", key)
    if table.get("type") is None:
        raise conflict(f"{key}.type is missing: use integer, number, boolean or string", key)
    choices = table.get("choices")
    if choices is not None and not isinstance(choices, list | tuple):
        raise conflict(f"{key}.choices must be a list of values", key)
    if not all(_is_scalar(value) for value in (table.get("impute"), *(choices or ()))):
        raise conflict(f"{key}: impute and choices must be numbers, booleans or strings", key)
    try:
        return Feature(name, **{**table, "choices": None if choices is None else tuple(choices)})
    except SettingsError as error:
        raise conflict(str(error), key) from None


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _features(tables: Any) -> dict[str, Feature]:
    if not isinstance(tables, Mapping):
        raise conflict("model.features must be a table of features", "model.features")
    if not tables:
        text = "model.features is empty: name at least one feature, or leave it out to use the tutorial's model"
        raise conflict(text, "model.features")
    return {name: _feature(name, table) for name, table in tables.items()}


class _Features:
    """Marker that keeps pydantic from inspecting `Feature`, a class of the core with checks of its own."""

    @staticmethod
    def __get_pydantic_core_schema__(_source: Any, _handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_features)


class ModelSettings(Section):
    """Features of the model, in the order of the requests."""

    max_features: Annotated[Count, Field(le=10_000)] = 50
    """Features of a contact."""
    features: Annotated[Mapping[str, Feature], _Features] = Field(
        default_factory=tutorial_features,
    )
    """One table for each feature, in the order of the requests: `type` (`integer`, `number`, `boolean`, `string`),
    optional `impute`, `minimum`, `maximum` and `choices`.
    """

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.features) > self.max_features:
            text = (
                f"model.max_features ({self.max_features}) is less than the {len(self.features)} features in"
                " model.features: no contact would fit"
            )
            raise conflict(text, "model.max_features")
        return self

    @property
    def is_default(self) -> bool:
        """Whether the settings name no feature, so that the tutorial's model is used."""
        return "features" not in self.model_fields_set
