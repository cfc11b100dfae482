"""Decision that closes records: nothing is published, and they stay on their topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.desk.verdict import Decide, NotSelected, Skip, SkipReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.desk.verdict import Verdict
    from stream_scorer.core.records import SourceRecord


class Discard:
    """Judge that closes the records that are selected and not decided.

    Args:
        selects: whether a record is selected.
    """

    action = Action.DISCARDED

    def __init__(self, selects: Callable[[SourceRecord], bool]) -> None:
        self._selects = selects

    def judge(self, record: SourceRecord, action: str | None) -> Verdict:
        """Return the verdict about a record."""
        if not self._selects(record):
            return NotSelected()
        return Decide() if action is None else Skip(SkipReason.DONE_BEFORE)
