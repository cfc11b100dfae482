"""Sources of the columns of a contact list: the fields of a score, and its attributes."""

from __future__ import annotations

from typing import Final

from stream_scorer.core.attributes import ATTRIBUTE_PREFIX

# The platform's limit of a contact list.
MAX_COLUMNS: Final = 50
# Without ``callbacks.columns``: each column has the name of its field.
DEFAULT_FIELDS: Final = (
    *("contact_id", "event_id", "campaign_id", "score", "confidence_lower", "confidence_upper"),
    *("model_id", "model_version", "occurred_at", "scored_at"),
)
SCORE_FIELDS: Final = (*DEFAULT_FIELDS, "latency_ms", "imputed_features", "batch_id")


def attribute_of(source: str) -> str | None:
    """Return the name of the attribute that a column is filled from; None: it is no attribute."""
    name = source.removeprefix(ATTRIBUTE_PREFIX)
    return name if name and name != source else None


def source_problem(source: str) -> str | None:
    """Return why a column cannot be filled from a source; None: it can."""
    if source in SCORE_FIELDS or attribute_of(source) is not None:
        return None
    return f"must be {ATTRIBUTE_PREFIX}NAME or a field of a score ({', '.join(SCORE_FIELDS)})"
