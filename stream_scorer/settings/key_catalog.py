"""Catalog of settings, derived from the sections themselves, so that no second list can differ."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from stream_scorer.settings.settings import Settings
from stream_scorer.settings.types import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.settings.names import KeyPath


def _section_keys() -> dict[str, tuple[str, ...]]:
    keys = {}
    for name, info in Settings.model_fields.items():
        section = info.annotation
        if not (isinstance(section, type) and issubclass(section, Section)):
            raise TypeError(f"Settings.{name} is no section")
        # An excluded field is not a key of its own: it belongs to another one (`REREAD`).
        keys[name] = tuple(key for key, field in section.model_fields.items() if not field.exclude)
    return keys


# Every section with its keys, in the order of the contract.
SECTIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(_section_keys())

SECRETS: Final = frozenset({("genesys", "client_secret"), ("callbacks", "secret"), ("callbacks", "secret_previous")})

# Secrets whose file is read again while the service runs: the section keeps the file's path beside the value.
REREAD: Final = frozenset({("genesys", "client_secret")})

# Keys that can be read from a file of their own: a secret, or a table with secret properties, as JSON.
IN_FILES: Final = SECRETS | {("kafka", "properties"), ("schema_registry", "properties")}

# Keys that are tables of free names: sources are merged name by name.
MAPPINGS: Final = frozenset(
    {
        *(("kafka", "properties"), ("schema_registry", "properties"), ("model", "features")),
        *(("callbacks", "contact_lists"), ("callbacks", "columns")),
    }
)

# Keys whose variable holds JSON, each with an example.
STRUCTURED: Final[Mapping[KeyPath, str]] = MappingProxyType(
    {
        ("kafka", "properties"): '{"security.protocol": "SSL"}',
        ("schema_registry", "properties"): '{"basic.auth.user.info": "name:secret"}',
        ("model", "features"): '{"age": {"type": "integer", "impute": 40}}',
        ("scoring", "retry_delays_s"): "[60, 600]",
        ("callbacks", "retry_delays_s"): "[60, 600]",
        ("callbacks", "contact_lists"): '{"spring": "id of a contact list"}',
        ("callbacks", "columns"): '{"phone": "attributes.phone"}',
    }
)
