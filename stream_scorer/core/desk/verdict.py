"""Verdicts of a job about the records of its topic."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from stream_scorer.core.desk.decisions import NO_CHANGES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.core.desk.decisions import Decision
    from stream_scorer.core.records import Headers


class SkipReason(StrEnum):
    """Why a selected record is not decided."""

    DONE_BEFORE = "decided before"
    PARKED = "parked: replayed --max-replays times"
    FOREIGN = "of another program or group"
    NOT_DECIDABLE = "its value is missing or cannot be decoded"
    TOO_LARGE = "too large for the topic: raise its max.message.bytes"
    BODY_TOO_LARGE = "not retargetable: its new body is too large for the target"
    DELETED = "offsets that retention has deleted"
    ONLY_DISCARDABLE = "cannot be accepted: its score is not finite, or not from 0 to 1"
    NO_SCORES = "not retargetable: its scores are deleted, or are those of other contacts"
    NOT_DELIVERABLE = "not deliverable: only a callback that was refused or given up is delivered again"


class Output(NamedTuple):
    """Record to publish with a decision; ``partition``: -1 for that of the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int


class Decide(NamedTuple):
    """Verdict: decide the record, and publish with the decision what ``publish`` returns; None: nothing."""

    publish: Callable[[Decision], Output] | None = None
    changes: Mapping[str, str] = NO_CHANGES


class Skip(NamedTuple):
    """Verdict: the record is selected, and not decided."""

    reason: SkipReason


class NotSelected(NamedTuple):
    """Verdict: the selection does not contain the record."""


Verdict: TypeAlias = Decide | Skip | NotSelected
