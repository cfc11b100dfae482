"""Loop of the scoring worker with a blocked partition: real ledger and flow control, in-memory Kafka and API.

Also with retry partitions, whose heads wait until they are due.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

from support_core import TOPIC, contact, rejected

from stream_scorer.core.records import Partition, SourceRecord
from stream_scorer.core.retry_topics import RetryDelays, RetryState, StartBounds, state_headers
from stream_scorer.kafka.consumer.flow_control import FlowControl
from stream_scorer.kafka.consumer.paused_retry_partitions import PausedRetryPartitions
from stream_scorer.runtime.clock import Clock
from stream_scorer.scoring.ports import OutcomeLedger
from stream_scorer.scoring.retry_intake import RetryIntake
from stream_scorer.scoring.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_scorer.core.scoring.types import Contact, Rejected

WINDOW = 800
PARTITIONS = [Partition(TOPIC, number) for number in range(4)]
BLOCKED = PARTITIONS[0]
HEADERS_BYTES = 90_000
MAX_BYTES = 100 * HEADERS_BYTES
RETRY = Partition("contact-features-retry-1", 0)
GROUP = "scorer"


class Source:
    """An endless topic. A poll delivers the partitions in order, as a client with fetched chunks does."""

    def __init__(self, headers_bytes: int = 0) -> None:
        self.at: Counter[Partition] = Counter()
        self.held: set[Partition] = set()
        self.paused = False
        self._headers_bytes = headers_bytes

    def read(self, max_records: int, wait_s: float) -> list[SourceRecord]:
        del wait_s
        found: list[SourceRecord] = []
        for partition in PARTITIONS:
            if self.paused or partition in self.held:
                continue
            amount = min(max_records - len(found), 150)
            found += [self.record(partition, self.at[partition] + n) for n in range(amount)]
            self.at[partition] += amount
        return found

    def record(self, partition: Partition, offset: int) -> SourceRecord:
        headers: Any = [("x", bytes(self._headers_bytes))] if self._headers_bytes else []
        return SourceRecord(*partition, offset, b"key", b"value", headers)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def pause_partition(self, partition: Partition) -> None:
        self.held.add(partition)

    def resume_from(self, partition: Partition, offset: int) -> bool:
        self.held.discard(partition)
        self.at[partition] = offset
        return True


def examine(record: SourceRecord, now_ms: int) -> Contact | Rejected:
    """Keep contacts of one partition waiting for the API; finish those of the others immediately."""
    del now_ms
    if record.partition == BLOCKED.number:
        return contact(f"c-{record.offset}", source=record)
    return rejected(record)


class RetrySource(Source):
    """One retry partition: seven records each are due at the same time, every 50 ms."""

    def __init__(self, amount: int) -> None:
        super().__init__()
        self._amount = amount
        self.max_records = 20

    def read(self, max_records: int, wait_s: float) -> list[SourceRecord]:
        del max_records, wait_s
        if self.paused or RETRY in self.held:
            return []
        begin = self.at[RETRY]
        self.at[RETRY] = end = min(begin + self.max_records, self._amount)
        return [self.record(RETRY, offset) for offset in range(begin, end)]

    def record(self, partition: Partition, offset: int) -> SourceRecord:
        state = RetryState(f"{TOPIC}/0/{offset}", 1, offset // 7 * 50, GROUP, "")
        return SourceRecord(*partition, offset, b"key", b"value", state_headers(state), timestamp_ms=0)


class Harness:
    def __init__(
        self,
        headers_bytes: int = 0,
        max_bytes: int = 1 << 40,
        *,
        window: int = WINDOW,
        partitions: Sequence[Partition] = PARTITIONS,
        source: Any = None,
        examine: Callable[[SourceRecord, int], Contact | Rejected] = examine,
    ) -> None:
        self.now = 0.0
        self.ledger = OutcomeLedger()
        source = source or Source(headers_bytes)
        anything: Any = MagicMock()
        waits: Any = MagicMock(is_paused=lambda _: False, admits=lambda _: True)
        breaker: Any = MagicMock(open_state=None)
        intake: Any = MagicMock(examine=examine)
        self.worker = Worker(
            **dict.fromkeys(("dispatcher", "quota", "observe", "trace", "publisher"), anything),
            intake=intake,
            breaker=breaker,
            source=source,
            pending_schemas=waits,
            flow=FlowControl(source, self.ledger, max_records=window, max_bytes=max_bytes, is_retry=RETRY.topic.__eq__),
            retry_partitions=PausedRetryPartitions(source),
            retries=RetryIntake({RETRY.topic: 1}, GROUP, RetryDelays((60.0,)), StartBounds()),
            ledger=self.ledger,
            clock=Clock(lambda: self.now, lambda: round(self.now * 1000), lambda: 0.5, lambda: "id"),
            stopping=threading.Event(),
            session_timeout_s=10.0,
            revoke_wait_s=5.0,
            shutdown_timeout_s=5.0,
        )
        for partition in partitions:
            self.ledger.assign(partition, start_offset=0, next_offset=0)
        self.committed: Counter[Partition] = Counter()
        anything.flush = self.commit
        anything.in_flight = anything.batched = 0

    def round(self) -> None:
        """Run one round of the loop with its transaction."""
        self.now += 0.01
        self.worker._poll()
        self.commit()

    def commit(self) -> None:
        heads = self.ledger.committable(WINDOW)
        for head in heads:
            self.committed[head.partition] += len(head.outcomes)
        self.ledger.mark_committed(heads)


def test_a_blocked_partition_does_not_take_the_window_of_the_others() -> None:
    harness = Harness()
    for _ in range(400):
        harness.round()
        assert harness.ledger.uncommitted <= WINDOW + len(PARTITIONS)
    assert harness.committed[BLOCKED] == 0
    assert WINDOW / 8 <= harness.ledger.size(BLOCKED)[0] <= WINDOW / 8 + WINDOW / 4
    assert min(harness.committed[partition] for partition in PARTITIONS[1:]) >= 400 * WINDOW / 8


def test_outcomes_that_block_others_are_committed_before_the_interval_ends() -> None:
    harness = Harness(examine=lambda record, _: rejected(record))
    for _ in range(20):
        harness.worker._process()  # the transactions of the interval are not part of it
    assert min(harness.committed[partition] for partition in PARTITIONS) >= WINDOW / 4


def test_few_outcomes_wait_for_the_end_of_the_interval() -> None:
    finished: list[SourceRecord] = []

    def examine_few(record: SourceRecord, now_ms: int) -> Contact | Rejected:
        del now_ms
        if record.partition == BLOCKED.number and record.offset < WINDOW / 8:
            finished.append(record)
            return rejected(record)
        return contact(f"c-{record.partition}-{record.offset}", source=record)

    harness = Harness(examine=examine_few)
    for _ in range(20):
        harness.worker._process()
    assert finished
    assert not harness.committed


def test_headers_count_as_memory() -> None:
    harness = Harness(headers_bytes=HEADERS_BYTES, max_bytes=MAX_BYTES)
    for _ in range(50):
        harness.round()
        assert harness.ledger.uncommitted_bytes <= MAX_BYTES + len(PARTITIONS) * (HEADERS_BYTES + 200)
    assert min(harness.committed[partition] for partition in PARTITIONS[1:]) >= 50 * 100 / 8


def test_a_head_that_is_not_due_skips_no_record_that_was_read_before_it_and_not_admitted() -> None:
    """One poll delivers both. The flow control has paused the partition at the first one, where it is read again."""
    amount = 60
    harness = Harness(
        window=5, partitions=[RETRY], source=RetrySource(amount), examine=lambda record, _: rejected(record)
    )
    for _ in range(amount):
        harness.round()
    assert harness.committed[RETRY] == amount
