"""Decisions of operators, the values of the decisions topic, and the index that answers what is decided already.

The decisions topic is the only state of a job. A record of a decided topic has one decision at most: its key is the
record's place, and only the job that has fenced all others of that partition writes it (`stream_scorer.desk.job`).
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.records import Headers

NO_CHANGES: Final[Mapping[str, str]] = MappingProxyType({})
# On what a decision publishes.
DECISION_HEADER: Final = "stream-scorer-decision"
DECIDED_AT_HEADER: Final = "stream-scorer-decided-at"
# Change of a decision: id of the callback whose contacts are called under a new one.
RETARGETED: Final = "retargeted"


class Action(StrEnum):
    """Action of a decision; later releases may write others, which count as decided, too."""

    REPLAYED = "REPLAYED"
    DISCARDED = "DISCARDED"
    ACCEPTED = "ACCEPTED"
    REDELIVERED = "REDELIVERED"
    JOB = "JOB"


class Decision(NamedTuple):
    """Value of the decisions topic (schemas/decision.avsc).

    Attributes:
        decision_id: a UUID.
        place: ``topic/partition/offset`` of the decided record; of a JOB ``topic/job/name``.
        topic_id: id of that topic; None: the brokers have none.
        action: what was decided.
        job: name of the job.
        operator: who ran it.
        note: the operator's reason.
        decided_at_ms: Unix milliseconds.
        result_place: place of the record published in the same transaction; None: none was.
        changes: what was changed in the published record; of a JOB its selection. May be personal data.
    """

    decision_id: str
    place: str
    topic_id: str | None
    action: str
    job: str
    operator: str
    note: str
    decided_at_ms: int
    result_place: str | None = None
    changes: Mapping[str, str] = NO_CHANGES

    @property
    def headers(self) -> Headers:
        """Headers of an accepted score and of a redelivered callback."""
        return [(DECISION_HEADER, self.decision_id.encode()), (DECIDED_AT_HEADER, b"%d" % self.decided_at_ms)]

    def as_fields(self) -> dict[str, Any]:
        """Return the fields of the schema."""
        fields = self._asdict()
        fields["decided_at"] = fields.pop("decided_at_ms")
        fields["changes"] = dict(self.changes)
        return fields


# Its headers are as large as those of any decision, for a size check before there is one.
SIZED_DECISION: Final = Decision("-" * 36, "", None, "", "", "", "", 10**13)


def decision_of(fields: Mapping[str, Any]) -> Decision:
    """Return the decision of a decoded value."""
    others = {name: fields[name] for name in Decision._fields if name != "decided_at_ms"}
    return Decision(decided_at_ms=fields["decided_at"], **others)


def job_place(topic: str, job: str) -> str:
    """Return the place of a job's selection, which no record has."""
    return f"{topic}/job/{job}"


class DecidedRecords:
    """Index of the decisions about one topic.

    Args:
        topic: the decided topic.
        topic_id: its present id. Decisions about a former topic of the same name do not count; None: all do.
    """

    def __init__(self, topic: str, topic_id: str | None) -> None:
        self._prefix = f"{topic}/"
        self._topic_id = topic_id
        self._actions: dict[str, str] = {}
        self._retargeted_by: dict[str, str] = {}
        self._jobs: dict[str, Decision] = {}
        self._former_jobs: set[str] = set()
        self._decided_by: Counter[str] = Counter()

    def concerns(self, key: bytes | None) -> bool:
        """Return whether a record of the decisions topic is about this topic, by its key."""
        return key is not None and key.startswith(self._prefix.encode())

    def add(self, decision: Decision) -> None:
        """Add a decision; the first one about a place counts."""
        if None not in (self._topic_id, decision.topic_id) and decision.topic_id != self._topic_id:
            if decision.action == Action.JOB:
                self._former_jobs.add(decision.job)
            return
        if decision.action == Action.JOB:
            self._jobs.setdefault(decision.job, decision)
        elif decision.place not in self._actions:
            self._actions[decision.place] = decision.action
            self._decided_by[decision.job] += 1
            if RETARGETED in decision.changes:
                self._retargeted_by[decision.place] = decision.decision_id

    def action(self, place: str) -> str | None:
        """Return what was decided about a record; None: nothing."""
        return self._actions.get(place)

    def retargeted_by(self, place: str) -> str | None:
        """Return the id of the decision by which a callback got a new id; None: it has none."""
        return self._retargeted_by.get(place)

    def decided_by(self, job: str) -> int:
        """Return how many records a job has decided."""
        return self._decided_by[job]

    def job(self, name: str) -> Decision | None:
        """Return the selection of a job; None: there is no such job.

        Raises:
            UsageError: it decided a former topic of this name. A resumption, which has no options, would otherwise
                begin a job that selects every record of the present topic.
        """
        if name in self._former_jobs and name not in self._jobs:
            topic = self._prefix.removesuffix("/")
            raise UsageError(
                f"job {name} decided a former topic {topic}, which was created again: give a new job another name"
            )
        return self._jobs.get(name)
