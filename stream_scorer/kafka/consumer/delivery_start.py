"""Start of a new delivery group: it continues where a former group stopped, and delivers no callback again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.core.callbacks.delivery_start import CallbackPart, CallbackRecord, RetryStarts
from stream_scorer.core.callbacks.records import THRESHOLD_HEADER
from stream_scorer.core.desk.decisions import DECISION_HEADER
from stream_scorer.core.retry_topics import ROUNDS_HEADER
from stream_scorer.errors import BrokerRefused
from stream_scorer.kafka.admin.topics import check_topics
from stream_scorer.kafka.consumer.initial_offsets import InitialOffsets, has_commits
from stream_scorer.kafka.consumer.log_reader import LogReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_scorer.settings import Settings

_TIMEOUT_S: Final = 60.0
# In memory at a time: about 30 MB. If the log has more, it is read in several passes.
MAX_CALLBACKS: Final = 100_000


def delivery_start(settings: Settings, retry_topics: Sequence[str]) -> InitialOffsets:
    """Return the start of the deliverer's group.

    A new group starts on the callbacks topic at ``kafka.start_from``. On the retry topics it starts at the first
    callback that waits there without a receipt, so a group that was renamed continues where the former one stopped.

    Raises:
        BrokerRefused: the group is new, and callbacks from its start on have a receipt or wait in a retry topic; or
            the planner's group is new, too, and would plan their scores again.
        BrokerUnavailable: no answer within the time limit.
    """
    kafka, topics = settings.kafka, settings.topics
    partitions = check_topics(settings, [topics.callbacks, *retry_topics, topics.receipts])
    is_new = not has_commits(settings, settings.delivery_group_id, topics.callbacks)
    return InitialOffsets(
        group_id=settings.delivery_group_id,
        topics=(topics.callbacks,),
        start_from=kafka.start_from,
        start_at_ms=kafka.start_at_ms,
        outputs=(),
        key="callbacks.group_id",
        price="repeat callbacks",
        is_allowed=True,
        retry_topics=tuple(retry_topics),
        retry_offsets=_CallbackLog(settings, retry_topics, partitions).starts() if is_new else {},
    )


class _CallbackLog:
    """Callbacks, their retries and receipts, up to the last stable offset at one time.

    Records that are written later do not matter: the new group reads them, since it starts at these offsets at most.
    """

    def __init__(self, settings: Settings, retry_topics: Sequence[str], partitions: Mapping[str, int]) -> None:
        self._settings = settings
        self._topics = settings.topics
        self._retry_topics = retry_topics
        self._reader = LogReader(settings, settings.delivery_group_id, timeout_s=_TIMEOUT_S)
        self._ranges = {topic: self._reader.stable_ranges(topic, number) for topic, number in partitions.items()}

    def starts(self) -> dict[tuple[str, int], int]:
        """Return the offset at which a new group starts, for every retry partition.

        Raises:
            BrokerRefused: callbacks would be delivered again.
        """
        ranges = {(topic, number): one for topic in self._retry_topics for number, one in self._ranges[topic].items()}
        if next(self._receipts(), None) is None and next(self._retries(), None) is None:
            # No deliverer has ever written anything: other programs may have.
            self._refuse_second_plan()
            return {place: one.begin for place, one in ranges.items()}
        starts = RetryStarts()
        parts = [CallbackPart(starts)]
        is_whole = True
        while parts and not starts.repeated:
            part = parts.pop()
            if self._fill(part):
                self._finish(part)
            else:
                parts += part.halves()
                is_whole = False
        self._refuse_repeats(starts, is_whole=is_whole)
        self._refuse_second_plan()
        return {**{place: one.end for place, one in ranges.items()}, **starts.first_waiting}

    def _fill(self, part: CallbackPart) -> bool:
        """Add what is planned and retried; return False if that is too much for one part."""
        for record in self._planned():
            part.add_planned(record)
            if len(part) > MAX_CALLBACKS:
                return False
        for record in self._retries():
            part.add_retry(record)
            if len(part) > MAX_CALLBACKS:
                return False
        return True

    def _finish(self, part: CallbackPart) -> None:
        for receipt in self._receipts() if len(part) else ():
            part.add_receipt(receipt)
        part.end()

    def _planned(self, header: str | None = None) -> Iterator[CallbackRecord]:
        """Yield the callbacks from the new group's start on, all or those with a header."""
        if self._settings.kafka.start_from != "latest":
            since_ms = self._settings.kafka.start_at_ms or 0
            yield from (one for one in self._read(self._topics.callbacks, header) if one.written_ms >= since_ms)

    def _retries(self) -> Iterator[CallbackRecord]:
        for topic in self._retry_topics:
            yield from self._read(topic, ROUNDS_HEADER)

    def _receipts(self) -> Iterator[CallbackRecord]:
        return self._read(self._topics.receipts)

    def _read(self, topic: str, header: str | None = None) -> Iterator[CallbackRecord]:
        for batch in self._reader.read(topic, self._ranges[topic]):
            for one in batch:
                key = one.key
                if key is not None and (header is None or any(name == header for name, _ in one.headers)):
                    decision = next((value for name, value in one.headers if name == DECISION_HEADER), None) or b""
                    yield CallbackRecord(topic, one.partition, one.offset, key, one.timestamp_ms, decision)

    def _refuse_repeats(self, starts: RetryStarts, *, is_whole: bool) -> None:
        partitions = starts.repeated_partitions
        count = max(starts.repeated, partitions)
        if count:
            number = f"{count}" if is_whole and not partitions else f"at least {count}"
            raise BrokerRefused(
                f"group {self._settings.delivery_group_id!r} has no committed offsets, and {number} callbacks from its"
                " start on have a receipt or wait in a retry topic: they would be delivered again. Set"
                " callbacks.group_id back to the former group; or start with --from latest, or --from and an ISO time"
                " after the former group's end: what waits in the retry topics is delivered all the same"
            )

    def _refuse_second_plan(self) -> None:
        """Refuse a start from which the planner would plan the scores of undelivered callbacks again.

        Only a planner's records have the header: those of other programs may be about anything. A callback that is
        delivered again by a decision does not count: its score was planned long before. The commits are read
        after the log, so what a group without commits finds there is not its own.
        """
        count = sum(not one.decision for one in self._planned(THRESHOLD_HEADER))
        group_id = self._settings.callbacks_group_id
        if count and not has_commits(self._settings, group_id, self._topics.scores):
            raise BrokerRefused(
                f"group {group_id!r} has no committed offsets, and {count} callbacks from its start on are not"
                " delivered yet: their scores would be planned again, and delivered twice. Set callbacks.group_id back"
                " to the former group until it has delivered them; or start with --from latest, or --from and an ISO"
                " time after the former group's end: they are left out then"
            )
