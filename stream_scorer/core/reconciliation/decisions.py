"""Reconciliation of decisions: each one published what it states, and what was published by a decision has one.

A decision and its record are written in one transaction. So a decision that is visible has its record, unless that is
deleted; and a record that carries the marks of a decision has that decision, unless decisions are deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.reconciliation.score_report import Finding, FindingKind
from stream_scorer.core.retry_topics import parse_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.core.desk.decisions import Decision
    from stream_scorer.core.reconciliation.record_states import RecordLocation
    from stream_scorer.core.reconciliation.score_report import Findings


class PublishedRecord(NamedTuple):
    """Record that carries the marks of a decision.

    Attributes:
        place: its location.
        decided_place: the decided record that it names; empty: it names none.
        decision_id: the decision that it names; empty: it names none.
    """

    place: RecordLocation
    decided_place: str = ""
    decision_id: str = ""


class DecisionReconciliation:
    """See the module docstring.

    Args:
        actions: the actions that are checked, each with the topic to which it publishes.
        is_readable: whether a place was read, by topic, partition and offset.
        has_all: whether no decision has been deleted.
    """

    def __init__(
        self, actions: Mapping[str, str], is_readable: Callable[[str, int, int], bool], *, has_all: bool
    ) -> None:
        self._actions = actions
        self._is_readable = is_readable
        self._has_all = has_all
        self._published: dict[str, PublishedRecord] = {}
        self._decided: set[tuple[str, str | None]] = set()
        self._results: dict[str, Decision] = {}
        self._due: dict[str, str] = {}
        self._found: list[Finding] = []

    def published(self, record: PublishedRecord) -> None:
        """Add a record with the marks of a decision; call it before `decision`."""
        self._published[str(record.place)] = record

    def decision(self, decision: Decision, where: RecordLocation, *, is_due: bool) -> None:
        """Add a decision.

        Args:
            decision: the decision.
            where: its location.
            is_due: it was visible before the published topics were read.
        """
        if decision.action not in (*self._actions, Action.DISCARDED):
            return
        decided = decision.place, decision.topic_id
        is_first = decided not in self._decided
        if not is_first:
            self._found.append(Finding(FindingKind.DECIDED_TWICE, decision.place, "has one more decision", str(where)))
        self._decided.add(decided)
        if decision.action not in self._actions:
            return
        result = decision.result_place
        if result is None:
            if is_first:
                what = f"was {decision.action}, and names no record"
                self._found.append(Finding(FindingKind.NOT_PUBLISHED, decision.place, what, str(where)))
            return
        # Not of accepted ones: on a scores topic that was created again, places return.
        if is_first and result in self._results and decision.action == Action.REPLAYED:
            what = f"was decided, and names the record of another decision at {result}"
            self._found.append(Finding(FindingKind.NOT_PUBLISHED, decision.place, what, str(where)))
            return
        self._results[result] = decision
        if is_due:
            self._due[result] = str(where)

    def close(self, findings: Findings) -> None:
        """Add all findings."""
        for one in self._found:
            findings.add(one)
        for place, record in self._published.items():
            self._check_decided(place, record, findings)
        for place, where in self._due.items():
            result = parse_source(place)
            if place in self._published or result is None or not self._is_readable(*result):
                continue
            what = f"was decided, and what it published at {place} is not there"
            findings.add(Finding(FindingKind.NOT_PUBLISHED, self._results[place].place, what, where))

    def _check_decided(self, place: str, record: PublishedRecord, findings: Findings) -> None:
        decision = self._results.get(place)
        if decision is None:
            if self._has_all:
                what = "was published by a decision, and no decision names it"
                findings.add(Finding(FindingKind.NOT_DECIDED, place, what, record.decided_place))
            return
        is_named = record.decided_place in ("", decision.place) and record.decision_id in ("", decision.decision_id)
        if not is_named:
            what = f"names another decision than that about {decision.place}, which published it"
            findings.add(Finding(FindingKind.NOT_DECIDED, place, what, record.decided_place))
        if self._actions[decision.action] != record.place.topic:
            what = f"was {decision.action}, and that does not publish to {record.place.topic}"
            findings.add(Finding(FindingKind.NOT_DECIDED, decision.place, what, place))
