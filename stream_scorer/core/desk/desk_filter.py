"""Filter of the records that an operator decides, the same for each desk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from stream_scorer.core.desk.expression import Expression
    from stream_scorer.core.desk.record_filter import RecordFilter, RecordIds
    from stream_scorer.core.records import SourceRecord


class DeskRecord(Protocol):
    """Record of a decided topic, decoded as far as it can be."""

    @property
    def record(self) -> SourceRecord:
        """The record as it was read."""

    @property
    def reasons(self) -> Collection[str]:
        """Why it is on this topic; the first counts in a list."""

    @property
    def ids(self) -> RecordIds:
        """Its ids; without any if its value cannot be decoded."""

    @property
    def campaign(self) -> str:
        """Its campaign, as `core.desk.record_counts.campaign_name`."""

    @property
    def values(self) -> Mapping[str, Any]:
        """The values for an expression, by the names of `core.desk.expression`; those that it lacks are null."""


Found = TypeVar("Found", bound=DeskRecord)


@dataclass(frozen=True, slots=True)
class DeskFilter(Generic[Found]):
    """Filter of a decided topic; an empty part matches all.

    Attributes:
        records: the common options.
        reasons: one of which the record must have.
        expression: must be true for the record; None: there is none.
        parse: decodes a record; None: it is not one that this desk decides.
    """

    records: RecordFilter
    reasons: frozenset[str]
    expression: Expression | None
    parse: Callable[[SourceRecord], Found | None]

    def read(self, record: SourceRecord) -> Found | None:
        """Return a decoded record; None: it is not selected."""
        found = self.parse(record)
        if found is None or (self.reasons and self.reasons.isdisjoint(found.reasons)):
            return None
        if not self.records.matches(record, found.ids):
            return None
        return found if self.expression is None or self.expression.matches(found.values) else None

    def selects(self, record: SourceRecord) -> bool:
        """Return whether a record is selected."""
        return self.read(record) is not None
