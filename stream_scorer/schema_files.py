"""Where the Avro schemas are read from: inside the wheel, or beside the package in a checkout."""

from __future__ import annotations

import json
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


class SchemaFile(StrEnum):
    """The schemas of the contract (section 3), by the stem of their file."""

    CONTACT_FEATURES = "contact-features"
    CONTACT_SCORE = "contact-score"
    BATCH_AUDIT = "batch-audit"
    CAMPAIGN_CALLBACK = "campaign-callback"
    CALLBACK_RECEIPT = "callback-receipt"
    DECISION = "decision"


def load_schema(schema: SchemaFile) -> dict[str, Any]:
    """Return the schema as it stands in its file, with documentation and logical types.

    Raises:
        SettingsError: the package was installed without its schemas.
    """
    return _read(_folder() / f"{schema.value}.avsc")


def released_schemas(schema: SchemaFile) -> dict[str, dict[str, Any]]:
    """Return every version of a schema that was released, by the release's name (``v0.1.0``), the oldest first.

    Raises:
        SettingsError: the package was installed without its schemas.
    """
    releases = [place for place in (_folder() / "released").iterdir() if place.is_dir()]
    files = {place.name: place / f"{schema.value}.avsc" for place in releases}
    return {name: _read(files[name]) for name in sorted(files, key=_version) if files[name].is_file()}


def _folder() -> Traversable:
    package = resources.files("stream_scorer")
    for place in (package / "schemas", Path(str(package)).parent / "schemas"):
        if place.is_dir():
            return place
    raise SettingsError("the schemas are not part of this installation of stream_scorer: install the wheel again")


def _read(file: Traversable) -> dict[str, Any]:
    if not file.is_file():
        raise SettingsError(
            f"schema {file.name} is not part of this installation of stream_scorer: install the wheel again"
        )
    parsed: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return parsed


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.removeprefix("v").split(".") if part.isdigit())
