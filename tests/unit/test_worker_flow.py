"""The scoring worker's loop beside a blocked partition: real ledger and flow control, Kafka and API are lists."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any
from unittest.mock import MagicMock

from support_core import TOPIC, contact, rejected

from stream_scorer.clock import Clock
from stream_scorer.core.events import Contact, Partition, Rejected, SourceRecord
from stream_scorer.core.ledger import Ledger
from stream_scorer.kafka.flow_control import FlowControl
from stream_scorer.scoring.worker import Worker

WINDOW = 800
PARTITIONS = [Partition(TOPIC, number) for number in range(4)]
BLOCKED = PARTITIONS[0]
HEADERS_BYTES = 90_000
MAX_BYTES = 100 * HEADERS_BYTES


class Source:
    """An endless topic. A poll delivers the partitions in order, as a client does that has fetched them in chunks."""

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

    def hold_back(self, partition: Partition) -> None:
        self.held.add(partition)

    def let_go(self, partition: Partition, offset: int) -> bool:
        self.held.discard(partition)
        self.at[partition] = offset
        return True


def examine(record: SourceRecord, now_ms: int) -> Contact | Rejected:
    """Contacts of one partition wait for the API; those of the others are finished immediately."""
    del now_ms
    if record.partition == BLOCKED.number:
        return contact(f"c-{record.offset}", source=record)
    return rejected(record)


class Bench:
    def __init__(self, headers_bytes: int = 0, max_bytes: int = 1 << 40) -> None:
        self.now = 0.0
        self.ledger = Ledger()
        source: Any = Source(headers_bytes)
        anything: Any = MagicMock()
        waits: Any = MagicMock(holds=lambda _: False, admits=lambda _: True)
        breaker: Any = MagicMock(open_state=None)
        intake: Any = MagicMock(examine=examine)
        self.worker = Worker(
            **dict.fromkeys(("batcher", "dispatcher", "quota", "observe", "trace", "publisher"), anything),
            intake=intake,
            breaker=breaker,
            source=source,
            waits=waits,
            flow=FlowControl(source, self.ledger, max_records=WINDOW, max_bytes=max_bytes),
            ledger=self.ledger,
            clock=Clock(lambda: self.now, lambda: 0, lambda: 0.5, lambda: "id"),
            stopping=threading.Event(),
            session_timeout_s=10.0,
            revoke_wait_s=5.0,
            shutdown_timeout_s=5.0,
        )
        for partition in PARTITIONS:
            self.ledger.own(partition, start_offset=0, next_offset=0)
        self.committed: Counter[Partition] = Counter()

    def round(self) -> None:
        """One round of the loop, and the transaction that ends it."""
        self.now += 0.01
        self.worker._take_in()
        heads = self.ledger.heads(WINDOW)
        for head in heads:
            self.committed[head.partition] += len(head.outcomes)
        self.ledger.confirm(heads)


def test_a_blocked_partition_does_not_take_the_window_of_the_others() -> None:
    bench = Bench()
    for _ in range(400):
        bench.round()
        assert bench.ledger.uncommitted <= WINDOW + len(PARTITIONS)
    assert bench.committed[BLOCKED] == 0
    assert WINDOW / 8 <= bench.ledger.size(BLOCKED)[0] <= WINDOW / 8 + WINDOW / 4
    assert min(bench.committed[partition] for partition in PARTITIONS[1:]) >= 400 * WINDOW / 8


def test_headers_count_as_memory() -> None:
    bench = Bench(headers_bytes=HEADERS_BYTES, max_bytes=MAX_BYTES)
    for _ in range(50):
        bench.round()
        assert bench.ledger.uncommitted_bytes <= MAX_BYTES + len(PARTITIONS) * (HEADERS_BYTES + 200)
    assert min(bench.committed[partition] for partition in PARTITIONS[1:]) >= 50 * 100 / 8
