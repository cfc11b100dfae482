"""Limits of a contact's attributes: texts for the campaign, such as a phone number, that the scoring API never gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.core.text import is_text

if TYPE_CHECKING:
    from collections.abc import Mapping

# Before the name of an attribute: a column of a CSV file, the source of a column of a contact list.
ATTRIBUTE_PREFIX: Final = "attributes."
MAX_ATTRIBUTES: Final = 64
MAX_ATTRIBUTE_BYTES: Final = 16_384


def attributes_problem(attributes: Mapping[str, str]) -> str | None:
    """Return why attributes are invalid, without their names and values, which are personal data; None: valid."""
    if len(attributes) > MAX_ATTRIBUTES:
        return f"are {len(attributes)}, more than the {MAX_ATTRIBUTES} allowed"
    texts = [*attributes, *attributes.values()]
    if not all(map(is_text, texts)):
        return "are not valid Unicode"
    size = sum(len(text.encode()) for text in texts)
    return f"have {size} bytes, more than the {MAX_ATTRIBUTE_BYTES} allowed" if size > MAX_ATTRIBUTE_BYTES else None
