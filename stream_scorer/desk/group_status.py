"""Status of the consumer groups, read from Kafka: commits, end offsets and what waits in retry topics.

It joins no group and changes nothing. A group without any commit is left out, except that of the scoring workers.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from stream_scorer.core.desk.group_lag import GroupOffsets, PartitionOffsets, Reading
from stream_scorer.core.retry_topics import state_of
from stream_scorer.desk.uncommitted_records import commits_of, uncommitted_ranges
from stream_scorer.errors import BrokerError, BrokerRefused, NothingToCheck, NotJudged
from stream_scorer.kafka.admin.acls import Permission, denied_message
from stream_scorer.kafka.admin.admin_client import ClusterAdmin
from stream_scorer.kafka.admin.group_members import members_of
from stream_scorer.kafka.consumer.log_reader import LogReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stream_scorer.core.records import SourceRecord
    from stream_scorer.settings import Settings

# More offsets of a retry topic are not read to count the records.
MAX_COUNTED: Final = 20_000


class GroupStatus:
    """Reader of the status.

    Args:
        settings: the cluster, its groups and topics.
        timeout_s: how long a broker may take, in seconds.
    """

    def __init__(self, settings: Settings, *, timeout_s: float) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._admin = ClusterAdmin(settings)
        self._logs: dict[str, LogReader] = {}

    def read(self) -> Reading:
        """Return the offsets of all groups.

        Raises:
            NothingToCheck: the scoring group has no commits.
            NotJudged: no broker answers, or no topic exists.
            BrokerRefused: a right is missing.
        """
        settings, topics = self._settings, self._settings.topics
        try:
            listed = self._admin.topics(self._timeout_s)
            partitions = {name: len(topic.partitions) for name, topic in listed.items()}
            scoring = self._group("scoring", settings.kafka.group_id, topics.features, partitions)
            if scoring is not None:
                scoring = self._with_waiting(scoring, topics.contact_retries(), partitions, self._is_of_group)
            planner = self._group("planner", settings.callbacks_group_id, topics.scores, partitions)
            deliverer = self._group("deliverer", settings.delivery_group_id, topics.callbacks, partitions)
            if deliverer is not None:
                deliverer = self._with_waiting(deliverer, topics.retries(), partitions, lambda _: True)
        except BrokerRefused:
            raise
        except BrokerError as error:
            # New clients next time: after a restart of the broker, an old one fails with a fenced leader epoch.
            self._admin, self._logs = ClusterAdmin(settings), {}
            raise NotJudged(str(error)) from None
        if scoring is None:
            self._check_has_topic(partitions, has_campaign=planner is not None or deliverer is not None)
        found = (scoring, planner, deliverer)
        return Reading(time.monotonic(), tuple(one for one in found if one is not None))

    def _check_has_topic(self, partitions: Mapping[str, int], *, has_campaign: bool) -> None:
        """Raise an error if the scoring group should have commits and has none, or cannot be seen."""
        topic = self._settings.topics.features
        if topic in partitions:
            raise NothingToCheck(
                f"group {self._settings.kafka.group_id} has no commits on {topic}: kafka.group_id is mistyped, no"
                " worker has run, or its commits have expired"
            )
        # A topic without any right of this user is not listed.
        if (denied := denied_message(self._settings, [Permission("Describe", "topic", topic)])) is not None:
            raise BrokerRefused(denied)
        if not has_campaign:
            servers = self._settings.kafka.bootstrap_servers
            raise NotJudged(
                f"topic {topic} is missing on {servers}: run `stream-scorer topics create`, or check topics.* in the"
                " settings"
            )

    def _group(self, loop: str, group_id: str, topic: str, partitions: Mapping[str, int]) -> GroupOffsets | None:
        """Return the offsets of a group; None: the topic is missing, or the group has no commits."""
        if topic not in partitions:
            return None
        # Before the ends: a lag is never negative.
        log = self._log(group_id)
        commits, is_former = commits_of(log, topic, partitions[topic])
        notes = [f"topic {topic} was created again: the commits of the former one do not count"] if is_former else []
        if not commits and not is_former:
            return None
        offsets = {
            number: PartitionOffsets(one.begin, commits.get(number), one.end)
            for number, one in log.stable_ranges(topic, partitions[topic]).items()
        }
        notes += [
            f"{topic}/{number}: the records from {one.committed} to {one.begin} are deleted and were not read"
            for number, one in offsets.items()
            if one.committed is not None and one.committed < one.begin
        ]
        members = members_of(self._admin.client, group_id, topic, timeout_s=self._timeout_s)
        return GroupOffsets(loop, group_id, topic, offsets, members, notes=tuple(notes))

    def _with_waiting(
        self,
        group: GroupOffsets,
        topics: Iterable[str],
        partitions: Mapping[str, int],
        belongs: Callable[[SourceRecord], bool],
    ) -> GroupOffsets:
        """Return the group with the number of records in each retry topic that exists."""
        log = self._log(group.group_id)
        waiting, notes = {}, list(group.notes)
        for topic in topics:
            if topic not in partitions:
                continue
            ranges = uncommitted_ranges(log, topic, partitions[topic])
            span = sum(one.end - one.begin for one in ranges.values())
            if span > MAX_COUNTED:
                waiting[topic] = span
                notes.append(f"topic {topic}: offsets, not records: over {MAX_COUNTED:,} are not counted one by one")
                continue
            records = (record for batch in log.read(topic, ranges) for record in batch) if span else iter(())
            waiting[topic] = sum(belongs(record.as_source_record(topic)) for record in records)
        return replace(group, waiting=waiting, notes=tuple(notes))

    def _is_of_group(self, record: SourceRecord) -> bool:
        """Return whether a record of a retry topic waits for this group: other groups skip those of each other."""
        return state_of(record).group in (None, self._settings.kafka.group_id)

    def _log(self, group_id: str) -> LogReader:
        if group_id not in self._logs:
            self._logs[group_id] = LogReader(self._settings, group_id, timeout_s=self._timeout_s)
        return self._logs[group_id]
