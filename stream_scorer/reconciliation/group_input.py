"""Input topic of a reconciliation with the group's commits on it: read before the outputs, and again after them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.core.reconciliation.lost_offsets import Lost
from stream_scorer.core.reconciliation.scores import CommittedRange
from stream_scorer.doc_pages import docs_command
from stream_scorer.errors import CheckFailed
from stream_scorer.kafka.consumer.log_reader import OffsetRange
from stream_scorer.reconciliation.topic_reader import check_not_set_back

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.kafka.consumer.log_reader import Commit, LogReader
    from stream_scorer.kafka.registry.serde import Serde
    from stream_scorer.settings import Settings


class GroupStart(NamedTuple):
    """Facts about the beginning of a group on its input topic, by partition.

    Attributes:
        lost: offsets that were deleted before the group read them.
        unknown_starts: partitions whose commit has no start offset of the group.
        since_ms: for a topic that was created again, the time behind the former one's outputs, in Unix milliseconds.
    """

    lost: Mapping[int, tuple[Lost, ...]]
    unknown_starts: list[int]
    since_ms: Mapping[int, int]


class GroupInput:
    """See the module docstring. The commits are read at construction.

    The ends of the topic are read with `read_ends`, once the outputs' ends are known, and the commits again with
    `committed_now`: the order is explained in ``reconciliation.scores``.
    """

    def __init__(self, log: LogReader, group_id: str, topic: str, partitions: int) -> None:
        self._log = log
        self._group_id = group_id
        self._topic = topic
        self._partitions = partitions
        # Before the commits: a later range may begin above a commit that has advanced since.
        self._before = log.stable_ranges(topic, partitions)
        self._commits = log.commits(topic, partitions)
        self._extents: Mapping[int, OffsetRange] = {}

    @property
    def has_commits(self) -> bool:
        """Whether the group has a commit on the topic."""
        return bool(self._commits)

    def check_identity(self) -> None:
        """Check that the commits belong to the present topic, not to a former one of the same name.

        Raises:
            CheckFailed: the topic was deleted and created again; gives the number of records without an outcome.
        """
        present_id = self._log.topic_id(self._topic)
        former = {commit.topic_id for commit in self._commits.values() if commit.topic_id is not None}
        if present_id is None or not former - {present_id}:
            return
        ranges = self._log.stable_ranges(self._topic, self._partitions)
        waiting = sum(extent.end - extent.begin for extent in ranges.values())
        raise CheckFailed(
            f"topic {self._topic} was deleted and created again: the commits of group {self._group_id} are those of the"
            f" former topic (id {', '.join(sorted(former - {present_id}))}), not of the present one (id {present_id}),"
            f" and none of its {waiting} records counts as finished. Start the worker once with --new-topic and --from"
            f" ({docs_command('operations', 'topic-created-again')})"
        )

    def read_ends(self) -> dict[int, CommittedRange]:
        """Read the ends of the topic, and return the range of each partition that is checked."""
        self._extents = self._log.stable_ranges(self._topic, self._partitions)
        return {number: _checked_range(self._commits.get(number), extent) for number, extent in self._extents.items()}

    def readable(self, checked: Mapping[int, CommittedRange]) -> dict[int, OffsetRange]:
        """Return the offset ranges to read: from the start of each range that is checked to the end of the log."""
        return {
            number: OffsetRange(checked[number].start, max(checked[number].start, extent.end))
            for number, extent in self._extents.items()
        }

    def start(self) -> GroupStart:
        """Return the facts about the group's beginning."""
        lost = {}
        for number, commit in self._commits.items():
            begin = self._before[number].begin
            lost[number] = commit.lost + ((Lost(commit.offset, begin),) if commit.offset < begin else ())
        return GroupStart(
            {number: gaps for number, gaps in lost.items() if gaps},
            [number for number, commit in self._commits.items() if commit.start is None],
            {number: commit.since_ms for number, commit in self._commits.items() if commit.since_ms is not None},
        )

    def committed_now(self) -> dict[int, int]:
        """Read the commits again, and return their offsets.

        Raises:
            NotJudged: they were reset to earlier ones in the meantime.
        """
        now = self._log.commits(self._topic, self._partitions)
        check_not_set_back(self._group_id, self._topic, self._commits, now)
        return {number: commit.offset for number, commit in now.items()}

    def notes(self) -> list[str]:
        """Return notes on the records below the commits that could not be checked."""
        notes = []
        for number, commit in self._commits.items():
            begin = self._extents[number].begin
            if commit.start is None:
                notes.append(
                    f"{self._topic}/{number}: the commit {commit.offset} has no start offset of its group, so it is not"
                    " the worker's: nothing below it was checked"
                )
            elif commit.start < begin:
                notes.append(
                    f"{self._topic}/{number}: the group began at {commit.start}, and the log holds only what is from"
                    f" {begin} on: nothing below that was checked"
                )
        return notes


class ReconciledGroup(NamedTuple):
    """A group that is reconciled, and what reads and decodes its topics."""

    settings: Settings
    log: LogReader
    framing: Serde
    input: GroupInput


def _checked_range(commit: Commit | None, extent: OffsetRange) -> CommittedRange:
    """Return the range of a partition that is checked: records that are deleted from its log are not.

    A commit without a start offset is not the worker's (an operator's reset); a worker that reads it starts there.
    """
    if commit is None:
        return CommittedRange(extent.begin, extent.begin)
    start = max(commit.offset if commit.start is None else commit.start, extent.begin)
    return CommittedRange(start, max(start, commit.offset))
