"""Where the Avro schemas are read from: inside the wheel, or beside the package in a checkout."""

from __future__ import annotations

import json
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

from stream_scorer.errors import SettingsError


class SchemaFile(StrEnum):
    """The schemas of the contract (section 3), by the stem of their file."""

    CONTACT_FEATURES = "contact-features"
    CONTACT_SCORE = "contact-score"
    BATCH_AUDIT = "batch-audit"
    CAMPAIGN_CALLBACK = "campaign-callback"
    CALLBACK_RECEIPT = "callback-receipt"


def load_schema(schema: SchemaFile) -> dict[str, Any]:
    """Return the schema as it stands in its file, with documentation and logical types.

    Raises:
        SettingsError: the package was installed without its schemas.
    """
    name = f"{schema.value}.avsc"
    package = resources.files("stream_scorer")
    in_wheel = package / "schemas" / name
    in_checkout = Path(str(package)).parent / "schemas" / name
    for place in (in_wheel, in_checkout):
        if place.is_file():
            parsed: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
            return parsed
    raise SettingsError(f"schema {name} is not part of this installation of stream_scorer: install the wheel again")
