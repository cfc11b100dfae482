"""Reconciliation of decisions: each one published what it states, and what was published by a decision has one.

A decision and its record are written in one transaction. So a decision that is visible has its record, unless that is
deleted; and a record that carries the marks of a decision has that decision, unless decisions are deleted.

A replayed contact has the key of its rejection, and its value too, unless the decision names changes.

Order of the calls: the records of the published topics and of the rejected topic; then the decisions, whose end must
have been read last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.reconciliation.outcome_values import is_other_key, is_other_value
from stream_scorer.core.reconciliation.score_report import Finding, FindingKind
from stream_scorer.core.records import Partition
from stream_scorer.core.retry_topics import parse_source
from stream_scorer.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.desk.decisions import Decision
    from stream_scorer.core.reconciliation.record_states import RecordLocation
    from stream_scorer.core.reconciliation.score_report import Findings

# What they publish names the decision, and not the decided record: that one may be on a topic of a former name.
_NAMED_BY_ID: Final = frozenset({Action.ACCEPTED, Action.REDELIVERED})


class PublishedRecord(NamedTuple):
    """Record that carries the marks of a decision.

    Attributes:
        place: its location.
        decided_place: the decided record that it names; empty: it names none.
        decision_id: the decision that it names; empty: it names none.
        written_ms: its Kafka timestamp.
        payload: digest of key and value, to be compared with the decided record; 0: it is not compared.
    """

    place: RecordLocation
    decided_place: str = ""
    decision_id: str = ""
    written_ms: int = 0
    payload: int = 0


@dataclass(frozen=True, slots=True)
class DecisionTopics:
    """Topics of decisions.

    Attributes:
        name: the decisions topic.
        published: the topic to which each checked action publishes.
        decided: the topics whose records are decided, with their present ids; None: the brokers have none.
        readable: for each partition of a published topic the first offset that is read, and the one behind the last.
        expired: the partitions of the decisions topic whose first records are deleted.
        since_ms: for partitions of a published topic that was created again, the time behind the former one's records.
    """

    name: str
    published: Mapping[str, str]
    decided: Mapping[str, str | None]
    readable: Mapping[str, Mapping[int, tuple[int, int]]]
    expired: frozenset[int] = frozenset()
    since_ms: Mapping[Partition, int] = field(default_factory=dict)


class DecisionReconciliation:
    """See the module docstring."""

    def __init__(self, topics: DecisionTopics) -> None:
        self._topics = topics
        # By partition of a published topic, Kafka's timestamp of its first record; earlier decisions published to a
        # former topic of the same name.
        self._since_ms = dict(topics.since_ms)
        # The same for the decisions topic.
        self._first_ms: dict[int, int] = {}
        self._published: dict[str, PublishedRecord] = {}
        self._replayed: dict[str, int | None] = {}
        self._decided: set[tuple[str, str | None]] = set()
        self._results: dict[str, tuple[Decision, RecordLocation]] = {}
        self._by_id: dict[str, Decision] = {}
        self._found: list[Finding] = []
        self._undecided: list[RecordLocation] = []

    # --- input

    def observe(self, place: RecordLocation, written_ms: int) -> None:
        """Observe any record of a published topic; each partition's in order."""
        self._since_ms.setdefault(Partition(place.topic, place.partition), written_ms)

    def published(self, record: PublishedRecord) -> None:
        """Add a record with the marks of a decision."""
        self._published[str(record.place)] = record
        if record.payload:
            self._replayed.setdefault(record.decided_place, None)

    def is_published(self, place: RecordLocation) -> bool:
        """Return whether a record was added with `published`."""
        return str(place) in self._published

    def is_replayed(self, place: RecordLocation) -> bool:
        """Return whether a contact that was read names this record as its rejection."""
        return bool(self._replayed) and str(place) in self._replayed

    def rejection(self, place: RecordLocation, payload: int | None) -> None:
        """Add a rejection that was replayed; ``payload``: digest of key and value, None: they are not known."""
        self._replayed[str(place)] = payload

    def observe_decision(self, place: RecordLocation, written_ms: int) -> None:
        """Observe any record of the decisions topic; each partition's in order."""
        self._first_ms.setdefault(place.partition, written_ms)

    def decision(self, decision: Decision, where: RecordLocation, written_ms: int) -> None:
        """Add a decision; ``written_ms``: the Kafka timestamp of its record."""
        if not self._is_checked(decision):
            return
        self._by_id[decision.decision_id] = decision
        result = None if decision.result_place is None else parse_source(decision.result_place)
        if result is not None and written_ms < self._since_ms.get(Partition(result.topic, result.partition), 0):
            return  # what it published stood on a former topic of the same name
        place = _shown(decision.place)
        decided = decision.place, decision.topic_id
        is_first = decided not in self._decided
        if not is_first:
            self._found.append(Finding(FindingKind.DECIDED_TWICE, place, "has one more decision", str(where)))
        self._decided.add(decided)
        if decision.action == Action.DISCARDED:
            return
        if decision.result_place is None:
            if is_first:
                what = f"was {decision.action}, and names no record"
                self._found.append(Finding(FindingKind.NOT_PUBLISHED, place, what, str(where)))
        elif is_first and decision.result_place in self._results:
            what = f"was decided, and names the record of another decision at {_shown(decision.result_place)}"
            self._found.append(Finding(FindingKind.NOT_PUBLISHED, place, what, str(where)))
        else:
            self._results[decision.result_place] = decision, where

    def _is_checked(self, decision: Decision) -> bool:
        """Return whether a decision is about the records of these topics."""
        if decision.action not in (*self._topics.published, Action.DISCARDED):
            return False
        decided = parse_source(decision.place)
        return decision.action in _NAMED_BY_ID or (decided is not None and decided.topic in self._topics.decided)

    # --- result

    def find(self, decision_id: str) -> Decision | None:
        """Return a decision by its id; None: it was not read."""
        return self._by_id.get(decision_id)

    def may_be_gone(self, written_ms: int) -> bool:
        """Return whether the decision of a record that was written then may be deleted, or on a former topic."""
        return self._is_expired(written_ms) or written_ms < min(self._first_ms.values(), default=written_ms + 1)

    def _is_expired(self, written_ms: int) -> bool:
        first_ms = map(self._first_ms.get, self._topics.expired)
        return any(first is None or written_ms <= first for first in first_ms)

    def close(self, findings: Findings) -> None:
        """Add all findings."""
        self._undecided.clear()
        for one in self._found:
            findings.add(one)
        for record in self._published.values():
            self._check_decided(record, findings)
        for place, (decision, where) in self._results.items():
            if place not in self._published and self._is_readable(place):
                what = f"was decided, and what it published at {_shown(place)} is not there"
                findings.add(Finding(FindingKind.NOT_PUBLISHED, _shown(decision.place), what, str(where)))

    def notes(self) -> list[str]:
        """Return a note about published records whose decision is gone; call it after `close`."""
        if not self._undecided:
            return []
        name = self._topics.name
        if self._topics.expired:
            cause = "retention deleted them"
        elif self._first_ms:
            cause = "the topic was deleted and created again, or is another one than before"
        else:
            cause = "the topic is empty or absent"
        count, first = len(self._undecided), self._undecided[0]
        what = f"the decisions that published {count:,} records are not there ({cause}), the first of them at {first}"
        return [f"{name}: {what}; what they decided counts as open, and can be decided once more"]

    def _is_readable(self, place: str) -> bool:
        """Return whether a record with this location was read, if it is there."""
        result = parse_source(place)
        if result is None:
            return True  # no record has such a location
        extent = self._topics.readable.get(result.topic, {}).get(result.partition)
        is_empty = Partition(result.topic, result.partition) not in self._since_ms
        return extent is not None and not is_empty and extent[0] <= result.offset < extent[1]

    def _check_decided(self, record: PublishedRecord, findings: Findings) -> None:
        place = str(record.place)
        found = self._results.get(place)
        if found is None:
            if self.may_be_gone(record.written_ms):
                self._undecided.append(record.place)
            else:
                what = "was published by a decision, and no decision names it"
                findings.add(Finding(FindingKind.NOT_DECIDED, place, what, _shown(record.decided_place)))
            return
        decision, _ = found
        is_named = record.decided_place in ("", decision.place) and record.decision_id in ("", decision.decision_id)
        if not is_named:
            what = f"names another decision than that about {_shown(decision.place)}, which published it"
            findings.add(Finding(FindingKind.NOT_DECIDED, place, what, _shown(record.decided_place)))
        elif record.payload:
            self._compare(record, decision, findings)
        if self._topics.published[decision.action] != record.place.topic:
            what = f"was {decision.action}, and that does not publish to {record.place.topic}"
            findings.add(Finding(FindingKind.NOT_DECIDED, _shown(decision.place), what, place))

    def _compare(self, record: PublishedRecord, decision: Decision, findings: Findings) -> None:
        """Compare a replayed contact with its rejection, if that was read and is not on a former topic."""
        rejected = self._replayed.get(decision.place)
        decided = parse_source(decision.place)
        present_id = None if decided is None else self._topics.decided.get(decided.topic)
        if rejected is None or (None not in (present_id, decision.topic_id) and decision.topic_id != present_id):
            return
        parts = ["key"] if is_other_key(record.payload, rejected) else []
        if not decision.changes and is_other_value(record.payload, rejected):
            parts.append("value")
        if parts:
            differ = "differ" if len(parts) > 1 else "differs"
            what = f"was replayed, and its {' and '.join(parts)} {differ}; the decision does not name that change"
            findings.add(Finding(FindingKind.WRONG_VALUE, _shown(decision.place), what, str(record.place)))


def _shown(text: str) -> str:
    """Return an untrusted text as part of a one-line message."""
    return printable(text[:300])
