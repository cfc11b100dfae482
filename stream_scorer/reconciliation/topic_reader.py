"""Reader for both reconciliations: topics one after the other, and commits that were not reset in the meantime."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from stream_scorer.core.avro.confluent import schema_id_of
from stream_scorer.core.reconciliation.log_gaps import LogGaps
from stream_scorer.core.reconciliation.score_report import Provenance
from stream_scorer.core.reconciliation.scores import RecordLocation
from stream_scorer.core.records import Partition
from stream_scorer.errors import NotJudged, SettingsError
from stream_scorer.kafka.admin.admin_client import ClusterAdmin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_scorer.core.reconciliation.callback_report import CallbackReport
    from stream_scorer.core.reconciliation.score_report import Report
    from stream_scorer.kafka.consumer.log_reader import Commit, LogReader, OffsetRange, Record
    from stream_scorer.settings import Settings


class Progress(Protocol):
    """Callback for the progress of a reconciliation."""

    def __call__(self, doing: str, done: int, total: int) -> None:
        """Report that ``done`` of about ``total`` offsets are read; ``doing``: the topic."""


class Reading:
    """Reader of topics, one after another, that reports its progress."""

    def __init__(
        self, log: LogReader, topics: Mapping[str, Mapping[int, OffsetRange]], progress: Progress | None
    ) -> None:
        self._log = log
        self._topics = topics
        self._progress = progress
        self._total = sum(extent.end - extent.begin for extents in topics.values() for extent in extents.values())
        self._done = 0

    def records(self, topic: str) -> Iterator[Record]:
        """Yield the records of a topic, each partition's in order."""
        extents = self._topics[topic]
        before = self._done
        for batch in self._log.read(topic, extents):
            yield from batch
            self._done += len(batch)
            self._report(topic)
        # Markers and gaps count as read, too.
        self._done = before + sum(extent.end - extent.begin for extent in extents.values())
        self._report(topic)

    def _report(self, topic: str) -> None:
        if self._progress is not None:
            self._progress(topic, self._done, self._total)


class Queues:
    """Topics whose records wait until a group has committed them.

    Args:
        log: reads the commits of the group.
        group_id: the group.
        partitions: number of partitions of each topic.
    """

    def __init__(self, log: LogReader, group_id: str, partitions: dict[str, int]) -> None:
        self.partitions = partitions
        self._group_id = group_id
        self._log = log
        self._before: dict[str, dict[int, Commit]] = {}

    def taken(self) -> dict[Partition, int]:
        """Return the committed offsets; a partition without a commit is left out.

        So is a commit of a former topic of the same name: the worker reads the present one from its first record.

        Raises:
            NotJudged: they were reset to earlier offsets since the last call.
        """
        now = {name: self._commits(name, count) for name, count in self.partitions.items()}
        for name, before in self._before.items():
            check_not_set_back(self._group_id, name, before, now[name])
        self._before = now
        return {
            Partition(name, number): commit.offset
            for name, commits in now.items()
            for number, commit in commits.items()
        }

    def _commits(self, name: str, partitions: int) -> dict[int, Commit]:
        commits = self._log.commits(name, partitions)
        if all(commit.topic_id is None for commit in commits.values()):
            return commits
        present_id = self._log.topic_id(name)
        return {
            n: one for n, one in commits.items() if None in (present_id, one.topic_id) or one.topic_id == present_id
        }


class RegistryCheck:
    """Check for records framed for a schema registry while none is set: without it, own records look unrelated.

    Other programs may write such records, so the check fails only if the report is not balanced.
    """

    def __init__(self, settings: Settings) -> None:
        self._unknown = settings.schema_registry.url is None
        self._first: RecordLocation | None = None

    def observe(self, record: Record, topic: str) -> None:
        """Examine a record that must be decoded."""
        if self._unknown and self._first is None and schema_id_of(record.value) is not None:
            self._first = RecordLocation(topic, record.partition, record.offset)

    def check(self, report: Report | CallbackReport) -> None:
        """Reject a report that is based on records that could not be decoded.

        Raises:
            SettingsError: the report is not balanced, and own records may have been classified as unrelated.
        """
        if self._first is not None and not report.is_balanced:
            raise SettingsError(
                f"topic {self._first.topic} is framed for a schema registry (the record at {self._first} is in the"
                " Confluent wire format), so nothing can be judged without one: set schema_registry.url as the workers"
                " have it"
            )


def provenance(settings: Settings, version: str, *, timeout_s: float = 5.0) -> Provenance:
    """Return the provenance of a report that is made now; ``version``: of this package.

    Raises:
        BrokerError: Kafka cannot be reached.
    """
    return Provenance(
        judged_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        cluster_id=ClusterAdmin(settings).cluster_id(timeout_s),
        version=version,
        group_id=settings.kafka.group_id,
        callbacks_group_id=settings.callbacks_group_id,
    )


def gaps_of(log: LogReader, outputs: Mapping[str, Mapping[int, OffsetRange]]) -> LogGaps:
    """Return the gaps of topics: deleted and compacted records."""
    truncated = {
        Partition(name, number)
        for name, extents in outputs.items()
        for number, extent in extents.items()
        if extent.begin > 0
    }
    return LogGaps(truncated, {name for name in outputs if log.is_compacted(name)})


def gap_notes(outputs: Mapping[str, Mapping[int, OffsetRange]], gaps: LogGaps) -> list[str]:
    """Return a note for each output partition whose first records are deleted, and for each compacted topic."""
    notes = [f"{name}: is compacted; what was removed is not judged" for name in outputs if gaps.is_compacted(name)]
    notes += [
        f"{name}/{number}: records below {extent.begin} are deleted; what stood there is not judged"
        for name, extents in outputs.items()
        for number, extent in extents.items()
        if extent.begin > 0
    ]
    return notes


def check_not_set_back(group_id: str, topic: str, first: Mapping[int, Commit], second: Mapping[int, Commit]) -> None:
    """Check that a group's offsets have only advanced between two readings.

    Raises:
        NotJudged: they have not; names the partition.
    """
    for number, commit in first.items():
        again = second.get(number)
        if again is None or again.offset < commit.offset:
            raise NotJudged(
                f"{topic}/{number}: group {group_id} had committed {commit.offset}, and then"
                f" {'nothing' if again is None else again.offset}: it was set back meanwhile, run this again"
            )
