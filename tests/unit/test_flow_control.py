from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_scorer.core.flow_control import FairShares
from stream_scorer.core.records import Partition, SourceRecord
from stream_scorer.kafka.consumer.flow_control import FlowControl
from stream_scorer.scoring.ports import OutcomeLedger

FEATURES = [Partition("features", number) for number in range(4)]
RETRIES = [Partition("retry-1", 0), Partition("retry-2", 0)]
WINDOW = 800
MAX_BYTES = 80_000
LARGEST = 30_000


class TestFairShares:
    def test_a_single_account_may_use_the_whole_limit(self) -> None:
        assert FairShares.of(800, [799]).ceiling_of(799) == 800
        assert FairShares.of(800, []).ceiling_of(0) == 800

    def test_one_of_four_holds_its_guarantee_and_half_of_the_shared_half(self) -> None:
        assert FairShares.of(800, [300, 0, 0, 0]).share_of(300) == 100 + 200

    def test_an_account_holds_at_most_what_it_leaves_free_of_the_shared_half(self) -> None:
        shares = FairShares.of(800, [300, 0, 0, 0])
        assert shares.share_of(0) == 100 + 100
        shares = FairShares.of(800, [300, 200, 0, 0])
        assert shares.share_of(0) == 100 + 50
        assert shares.share_of(300) == 100 + 150  # it releases its share

    def test_no_account_takes_the_guarantee_of_another(self) -> None:
        assert FairShares.of(800, [500, 0, 0, 0]).share_of(0) == 100

    def test_a_full_limit_leaves_no_ceiling_to_grow_to(self) -> None:
        shares = FairShares.of(800, [800, 0])
        assert shares.is_full
        assert shares.ceiling_of(0) == 0

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(limit=st.integers(1, 10_000), data=st.data())
    def test_accounts_that_fill_up_get_their_guarantee_and_stay_within_the_limit(
        self, limit: int, data: st.DataObject
    ) -> None:
        """In any order of growth of a fixed number of accounts."""
        used = data.draw(st.lists(st.just(0), min_size=1, max_size=6))
        for _ in range(data.draw(st.integers(1, 12))):
            one = data.draw(st.integers(0, len(used) - 1))
            if data.draw(st.booleans()):
                while used[one] < FairShares.of(limit, used).ceiling_of(used[one]):
                    used[one] += max(1, limit // 50)
            else:
                used[one] -= data.draw(st.integers(0, used[one]))
            step = max(1, limit // 50)
            assert sum(used) < limit + len(used) * step
        for one in range(len(used)):
            while used[one] < FairShares.of(limit, used).share_of(used[one]):
                used[one] += 1
        assert all(one >= limit / 2 / len(used) for one in used)


class Reader:
    """Consumer of endless topics; ``refuses``: it cannot seek at present."""

    def __init__(self) -> None:
        self.at: Counter[Partition] = Counter()
        self.paused: set[Partition] = set()
        self.pauses = 0
        self.refuses = False

    def pause_partition(self, partition: Partition) -> None:
        assert partition not in self.paused, "paused twice"
        self.paused.add(partition)
        self.pauses += 1

    def resume_from(self, partition: Partition, offset: int) -> bool:
        if self.refuses:
            return False
        self.paused.discard(partition)
        self.at[partition] = offset
        return True

    def next(self, partition: Partition, size: int) -> SourceRecord:
        offset = self.at[partition]
        self.at[partition] += 1
        return SourceRecord(*partition, offset, None, bytes(size), [])


class Harness:
    """Flow control over a real ledger; ``sizes``: bytes that a partition's records have."""

    def __init__(self, *partitions: Partition, max_records: int = WINDOW, max_bytes: int = MAX_BYTES) -> None:
        self.reader = Reader()
        self.ledger = OutcomeLedger()
        reader: Any = self.reader
        self.flow = FlowControl(
            reader, self.ledger, max_records=max_records, max_bytes=max_bytes, is_retry=lambda topic: "retry" in topic
        )
        self.assign(*partitions)

    def assign(self, *partitions: Partition) -> None:
        for partition in partitions:
            self.ledger.assign(partition, start_offset=0, next_offset=self.reader.at[partition])

    def revoke(self, partition: Partition) -> None:
        self.ledger.revoke(partition)
        self.flow.revoke([partition])
        self.reader.paused.discard(partition)

    def poll(self, partition: Partition, amount: int, size: int = 1) -> int:
        """Deliver records of one partition as one poll does; return the number of admitted ones."""
        self.flow.resume_with_room()
        return self.deliver(partition, amount, size)

    def deliver(self, partition: Partition, amount: int, size: int = 1) -> int:
        if partition in self.reader.paused:
            return 0
        admitted = 0
        for record in [self.reader.next(partition, size) for _ in range(amount)]:
            if self.flow.try_admit(record):
                assert self.ledger.read(record), "a record was skipped or delivered twice"
                admitted += 1
        return admitted

    def held(self, partition: Partition) -> int:
        return self.ledger.size(partition)[0]

    def commit(self, partition: Partition, amount: int) -> None:
        [front] = [front for front in self.ledger.commit_positions() if front.partition == partition]
        self.ledger.resolve({partition: front.offset + min(amount, self.held(partition))})


class TestFlowControl:
    def test_a_blocked_partition_leaves_the_others_their_share(self) -> None:
        harness = Harness(*FEATURES)
        blocked, *others = FEATURES
        assert harness.poll(blocked, 2 * WINDOW) == 300
        for _ in range(20):  # the others continue: each time, half of their records is committed
            for other in others:
                harness.poll(other, WINDOW)
                assert harness.held(other) >= WINDOW / 8
                harness.commit(other, (harness.held(other) + 1) // 2)
            assert harness.ledger.uncommitted <= WINDOW
        assert harness.held(blocked) == 300

    def test_one_partition_alone_uses_the_whole_window_and_is_not_paused_for_it(self) -> None:
        harness = Harness(FEATURES[0])
        for _ in range(5):
            assert harness.poll(FEATURES[0], harness.flow.room()) == WINDOW
            assert harness.flow.room() == 0
            harness.commit(FEATURES[0], WINDOW)
        assert harness.reader.pauses == 0

    def test_a_paused_partition_is_read_again_when_half_of_its_share_is_committed(self) -> None:
        harness = Harness(*FEATURES)
        assert harness.poll(FEATURES[0], WINDOW) == 300
        harness.commit(FEATURES[0], 149)
        assert harness.poll(FEATURES[0], WINDOW) == 0
        harness.commit(FEATURES[0], 1)
        assert harness.poll(FEATURES[0], WINDOW) == 150

    def test_a_partition_that_cannot_be_resumed_stays_paused(self) -> None:
        harness = Harness(*FEATURES)
        harness.poll(FEATURES[0], WINDOW)
        harness.commit(FEATURES[0], 300)
        harness.reader.refuses = True
        assert harness.poll(FEATURES[0], WINDOW) == 0
        assert harness.flow.is_blocking
        harness.reader.refuses = False
        assert harness.poll(FEATURES[0], WINDOW) == 300

    def test_a_partition_is_not_resumed_while_others_use_the_whole_limit(self) -> None:
        harness = Harness(FEATURES[0])
        harness.poll(FEATURES[0], WINDOW)
        harness.assign(FEATURES[1])
        assert [harness.poll(FEATURES[1], 5) for _ in range(9)] == [1, *[0] * 8]
        assert harness.reader.pauses == 1
        harness.commit(FEATURES[0], 50)
        assert harness.poll(FEATURES[1], WINDOW) == 49

    def test_bytes_are_shared_like_records(self) -> None:
        harness = Harness(*FEATURES)
        assert harness.poll(FEATURES[0], 100, size=1_000) == 30
        assert [harness.poll(other, 100, size=1_000) for other in FEATURES[1:]] == [20, 15, 13]
        assert harness.flow.used == pytest.approx(78 / 80)

    def test_an_empty_partition_admits_one_record_of_any_size(self) -> None:
        harness = Harness(*FEATURES)
        assert [harness.poll(one, 3, size=10 * MAX_BYTES) for one in FEATURES] == [1, 1, 1, 1]
        assert harness.flow.room() == 0
        harness.commit(FEATURES[2], 1)
        harness.flow.resume_with_room()
        assert harness.flow.room() > 0
        assert harness.poll(FEATURES[2], 3, size=10 * MAX_BYTES) == 1

    def test_retry_partitions_are_one_account_together(self) -> None:
        harness = Harness(*FEATURES[:3], *RETRIES)
        assert harness.poll(RETRIES[0], 200) == 200
        assert harness.poll(RETRIES[1], 200) == 100
        assert harness.held(RETRIES[0]) + harness.held(RETRIES[1]) == WINDOW / 8 + WINDOW / 4
        assert all(harness.poll(one, WINDOW) >= WINDOW / 8 for one in FEATURES[:3])

    def test_retry_partitions_count_only_while_they_hold_records(self) -> None:
        harness = Harness(FEATURES[0], *RETRIES)
        assert harness.poll(FEATURES[0], WINDOW) == WINDOW
        assert harness.poll(RETRIES[0], 5) == 1  # one record of a partition that holds nothing
        assert harness.poll(RETRIES[1], 5) == 1
        harness.commit(FEATURES[0], WINDOW)
        assert harness.poll(FEATURES[0], WINDOW) == WINDOW / 4 + WINDOW / 4
        harness.commit(FEATURES[0], WINDOW)
        harness.commit(RETRIES[0], 5)
        harness.commit(RETRIES[1], 5)
        assert harness.poll(FEATURES[0], WINDOW) == WINDOW

    def test_a_revoked_partition_releases_its_share(self) -> None:
        harness = Harness(*FEATURES[:2])
        assert harness.poll(FEATURES[0], WINDOW) == 400
        harness.revoke(FEATURES[0])
        assert not harness.flow.is_blocking
        assert harness.poll(FEATURES[1], WINDOW) == WINDOW
        harness.revoke(FEATURES[1])
        harness.assign(FEATURES[0])
        assert harness.poll(FEATURES[0], WINDOW) == WINDOW

    def test_the_consumer_is_read_before_anything_is_assigned(self) -> None:
        assert Harness().flow.room() == WINDOW

    def test_capacity_counts_only_partitions_that_can_be_read(self) -> None:
        harness = Harness(*FEATURES[:2])
        harness.poll(FEATURES[0], WINDOW)
        assert harness.flow.room() == WINDOW - 400
        harness.poll(FEATURES[1], WINDOW)
        assert harness.ledger.uncommitted < WINDOW
        assert harness.flow.room() == 0


class TestRandomOrder:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(data=st.data())
    def test_limits_are_kept_and_no_partition_stays_paused_without_need(self, data: st.DataObject) -> None:
        """Polls of several partitions, commits, and partitions that come and go."""
        harness = Harness(*FEATURES[:2])
        pool = [*FEATURES, *RETRIES]
        largest = 0
        for _ in range(data.draw(st.integers(1, 40))):
            owned = harness.ledger.partitions
            one = data.draw(st.sampled_from(pool))
            match data.draw(st.sampled_from(["poll", "poll", "poll", "commit", "commit", "assign", "revoke"])):
                case "commit" if one in owned:
                    harness.commit(one, data.draw(st.integers(1, WINDOW)))
                case "assign" if one not in owned:
                    harness.assign(one)
                case "revoke" if one in owned and data.draw(st.booleans()):
                    harness.revoke(one)
                case "poll" if owned:
                    harness.flow.resume_with_room()
                    for partition in data.draw(st.lists(st.sampled_from(owned), min_size=1, max_size=4)):
                        size = data.draw(st.sampled_from([0, 1, 100, 1_000, LARGEST]))
                        largest = max(largest, size)
                        self.poll(harness, partition, data.draw(st.integers(1, WINDOW)), size)
            self.check(harness, largest)

    def poll(self, harness: Harness, partition: Partition, amount: int, size: int) -> None:
        if partition in harness.reader.paused:
            return
        before = harness.held(partition)
        admitted = harness.deliver(partition, amount, size)
        assert before or admitted, "a partition that holds nothing was refused"
        if admitted == amount:
            return
        # Refused: its account has its guarantee, or nothing at all is free since there are more accounts than before.
        ledger = harness.ledger
        is_retry = partition in RETRIES
        account = RETRIES if is_retry else [partition]
        accounts = len([one for one in ledger.partitions if one not in RETRIES])
        accounts += any(harness.held(one) for one in RETRIES)
        records = sum(harness.held(one) for one in account)
        size = sum(ledger.size(one)[1] for one in account)
        has_guarantee = records >= WINDOW / 2 / accounts or size >= MAX_BYTES / 2 / accounts
        assert has_guarantee or ledger.uncommitted >= WINDOW or ledger.uncommitted_bytes >= MAX_BYTES

    def check(self, harness: Harness, largest: int) -> None:
        ledger = harness.ledger
        # A partition may have been revoked since, and taken its records along: then less is held, never more.
        assert ledger.uncommitted <= WINDOW + len(ledger.partitions)
        assert ledger.uncommitted_bytes <= MAX_BYTES + len(ledger.partitions) * largest
        harness.flow.resume_with_room()
        for one in ledger.partitions:
            assert harness.held(one) or one not in harness.reader.paused
        if any(one not in harness.reader.paused and not harness.held(one) for one in ledger.partitions):
            assert harness.flow.room() > 0
        elif ledger.partitions and set(ledger.partitions) <= harness.reader.paused:
            assert harness.flow.room() == 0
