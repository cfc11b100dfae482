"""Decisions to deliver callbacks again: each has one callback, and each callback that was delivered again has one.

A decision and its callback are written in one transaction, and the decision names the callback's place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.desk.redelivery import RETARGETED
from stream_scorer.core.reconciliation.score_report import Finding, FindingKind
from stream_scorer.core.retry_topics import parse_source
from stream_scorer.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_scorer.core.desk.decisions import Decision
    from stream_scorer.core.reconciliation.record_states import RecordLocation
    from stream_scorer.core.retry_topics import Source


class RedeliveryTopics(NamedTuple):
    """Topics of redeliveries.

    Attributes:
        rejected: the callbacks' rejected topic, whose records are decided.
        rejected_id: its present id; None: the brokers have none.
        callbacks: the callbacks topic.
        extents: for each of its partitions the first offset that is read, and the one behind the last.
    """

    rejected: str
    rejected_id: str | None
    callbacks: str
    extents: Mapping[int, tuple[int, int]]


class RedeliveryDecisions:
    """See the module docstring.

    Args:
        topics: the topics; None: no decisions are read.
    """

    def __init__(self, topics: RedeliveryTopics | None) -> None:
        self._topics = topics or RedeliveryTopics("", None, "", {})
        self._decisions: dict[str, Decision] = {}
        self._places: dict[str, str] = {}
        self._published: dict[str, list[RecordLocation]] = {}
        # By partition of the callbacks topic, Kafka's timestamp of its first record.
        self._first_ms: dict[int, int] = {}
        self._findings: list[Finding] = []

    def __contains__(self, decision_id: str) -> bool:
        """Return whether there is such a decision."""
        return decision_id in self._decisions

    def former_id(self, decision_id: str) -> str | None:
        """Return the id of the callback whose contacts a decision calls under a new one; None: the id stays."""
        decision = self._decisions.get(decision_id)
        return None if decision is None else decision.changes.get(RETARGETED)

    def add(self, decision: Decision, place: RecordLocation) -> None:
        """Add a record of the decisions topic; those about other topics and other actions do not matter."""
        if decision.action != Action.REDELIVERED or not decision.place.startswith(f"{self._topics.rejected}/"):
            return
        self._decisions[decision.decision_id] = decision
        if not self._is_current(decision):
            return
        other = self._places.setdefault(decision.place, decision.decision_id)
        if other != decision.decision_id:
            what = f"was decided to be delivered again twice, as {_shown(other)} and as {_shown(decision.decision_id)}"
            self._findings.append(Finding(FindingKind.DOUBLED, _shown(decision.place), what, str(place)))

    def callback(self, decision_id: str, place: RecordLocation, written_ms: int) -> None:
        """Add a record of a callback topic; ``decision_id``: of its header, empty without one."""
        if place.topic != self._topics.callbacks:
            return
        self._first_ms.setdefault(place.partition, written_ms)
        if decision_id:
            self._published.setdefault(decision_id, []).append(place)

    def findings(self) -> Iterator[Finding]:
        """Yield decisions without their callback, and callbacks that stand there twice for one decision."""
        yield from self._findings
        for decision_id, places in self._published.items():
            if len(places) > 1:
                what = f"is the second callback of decision {_shown(decision_id)}, after that at {places[0]}"
                yield Finding(FindingKind.DOUBLED, "", what, str(places[1]))
        for decision in self._decisions.values():
            result = None if decision.result_place is None else parse_source(decision.result_place)
            if not self._is_current(decision) or (result is not None and not self._is_read(result, decision)):
                continue
            places = self._published.get(decision.decision_id, [])
            if decision.result_place not in {str(place) for place in places}:
                what = f"was decided to be delivered again ({_shown(decision.decision_id)}), and its callback is not at"
                yield Finding(
                    FindingKind.MISSING, _shown(decision.place), f"{what} {_shown(str(decision.result_place))}"
                )

    def _is_current(self, decision: Decision) -> bool:
        """Return whether a decision is about the present topic, not about a former one of the same name."""
        present = self._topics.rejected_id
        return None in (present, decision.topic_id) or decision.topic_id == present

    def _is_read(self, result: Source, decision: Decision) -> bool:
        """Return whether the place of a decision's callback was read: not if it is deleted, or was written later.

        A first record that is younger than the decision stands on a topic that was created again.
        """
        begin, end = self._topics.extents.get(result.partition, (0, 0))
        first_ms = self._first_ms.get(result.partition)
        return begin <= result.offset < end and first_ms is not None and first_ms <= decision.decided_at_ms


def _shown(text: str) -> str:
    """Return an untrusted text as part of a one-line message."""
    return printable(text[:300])
