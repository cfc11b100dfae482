"""Contacts of a contact list, filled from scores: their columns and their ids. Equal scores give equal contacts."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from stream_scorer.core.callbacks.columns import DEFAULT_FIELDS, attribute_of
from stream_scorer.targets.payload import iso_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.core.callbacks.types import Score

DEFAULT_COLUMNS: Final[Mapping[str, str]] = {name: name for name in DEFAULT_FIELDS}
DERIVED_ID: Final = "derived"
_FIELDS: Final[Mapping[str, Callable[[Score], str]]] = {
    "contact_id": lambda score: score.contact_id,
    "event_id": lambda score: score.event_id,
    "campaign_id": lambda score: score.campaign_id or "",
    "score": lambda score: repr(score.score),
    "confidence_lower": lambda score: repr(score.confidence_lower),
    "confidence_upper": lambda score: repr(score.confidence_upper),
    "model_id": lambda score: score.model_id,
    "model_version": lambda score: score.model_version or "",
    "occurred_at": lambda score: iso_time(score.occurred_at_ms),
    "scored_at": lambda score: iso_time(score.scored_at_ms),
    "latency_ms": lambda score: repr(score.latency_ms),
    "imputed_features": lambda score: ",".join(score.imputed_features),
    "batch_id": lambda score: score.batch_id,
}


class ContactColumns:
    """Columns and ids of contacts.

    Args:
        columns: by column of the list a field of a score, or ``attributes.NAME``.
        contact_id: what a contact's id is made of: ``derived`` (a UUIDv5 of list and contact id), ``contact_id`` or
            ``attributes.NAME``.
    """

    def __init__(self, columns: Mapping[str, str] = DEFAULT_COLUMNS, contact_id: str = DERIVED_ID) -> None:
        self._columns = [(column, _reader(source)) for column, source in columns.items()]
        self._id = None if contact_id == DERIVED_ID else _reader(contact_id)
        self._scored_at = next((column for column, source in columns.items() if source == "scored_at"), None)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the list, in order."""
        return tuple(column for column, _ in self._columns)

    @property
    def scored_at(self) -> str | None:
        """The column with the time of the score; None: there is none."""
        return self._scored_at

    def data(self, score: Score) -> dict[str, str]:
        """Return the columns of a contact; all are texts, the only type of a contact list."""
        return {column: read(score) for column, read in self._columns}

    def contact_id(self, score: Score, list_id: str) -> str:
        """Return the id of a contact in a list; empty: the score has no such attribute."""
        if self._id is not None:
            return self._id(score).strip()
        return str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, f"genesys-contact-list:{list_id}"), score.contact_id))


def _reader(source: str) -> Callable[[Score], str]:
    name = attribute_of(source)
    return _FIELDS[source] if name is None else lambda score: score.attributes.get(name, "")
