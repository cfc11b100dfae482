"""Workers with a temporarily wrong system clock, on a real broker."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic
from environment import build_clock
from scoring_harness import contact, contacts, wait_until

from stream_scorer.reconciliation import reconcile
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from worker_harness import WorkerHarness, WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

HOUR_S = 3600


class WrongClock:
    """A system clock of processes with the offset in seconds that is in its file."""

    def __init__(self, folder: Path) -> None:
        library = build_clock(folder)
        if library is None:
            pytest.skip("a wrong clock needs a C compiler and Linux")
        self._file = folder / "shift"
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": str(self._file)}

    def set(self, seconds: int) -> None:
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("q", seconds))


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    return WrongClock(tmp_path)


def has_a_wrong_clock(worker: WorkerProcess) -> bool:
    return any("clock is wrong" in said["detail"] for said in worker.said("transaction failed"))


@pytest.mark.parametrize("hours", [26, -26])
def test_fresh_contacts_that_were_read_with_a_wrong_clock_are_scored(
    stage: WorkerHarness, clock: WrongClock, hours: int
) -> None:
    """2,000 contacts that were seconds old were rejected as expired once the clock was right again (script 29)."""
    now_ms = time.time_ns() // 1_000_000
    stage.produce(contact(f"C-{n:06}", n % stage.partitions, occurred_at=now_ms) for n in range(2000))
    clock.set(hours * HOUR_S)
    stage.changes |= clock.environment
    worker = stage.start_ready("--from", "earliest", scoring__max_event_age_s="7200")
    if hours > 0:  # the broker rejects times more than an hour ahead
        stage.wait(lambda: has_a_wrong_clock(worker), "the worker to name its clock", needs=worker)
        stage.wait(lambda: "clock is wrong" in worker.why_not_ready(), "the reason in /readyz", needs=worker)
        assert all(commit.offset == 0 for commit in stage.commits().values())
        clock.set(0)
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    report = reconcile(load_settings(environ=stage.settings()))
    assert report.is_balanced, report.findings
    assert (report.totals.inputs, report.totals.rejected) == (2000, 0)
    assert stage.simulator.scored(minimum=2) == {}, "what was paid for is kept"


def replace_topic(stage: WorkerHarness, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": stage.bootstrap_servers})
    admin.delete_topics([topic], operation_timeout=30)[topic].result(30)

    def is_created() -> bool:
        [future] = admin.create_topics([NewTopic(topic, 1, 1)], operation_timeout=30).values()
        return future.exception(30) is None  # the topic exists until the deletion has reached the broker

    wait_until(is_created, f"topic {topic} to be created again")
    wait_until(lambda: stage.commits() == {}, "the commits of the former topic to be dropped")


@pytest.mark.parametrize("minutes", [50, -50])
def test_a_new_topic_that_is_accepted_with_a_wrong_clock_is_judged(
    make_stage: Callable[..., WorkerHarness], clock: WrongClock, minutes: int
) -> None:
    """`since` was that clock's time: early by an hour, it hid the outputs of an hour; late, it kept former ones."""
    stage = make_stage(partitions=1)
    settings = load_settings(environ=stage.settings())
    stage.produce(contacts(20, 1))
    worker = stage.start_ready()
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    replace_topic(stage, stage.topics["features"])
    stage.produced = 0
    clock.set(60 * minutes)
    accepting = dict(stage.changes)
    stage.changes |= clock.environment
    worker = stage.start_ready("--new-topic", "--from", "earliest")
    assert worker.stop() == 0
    stage.changes = accepting
    stage.produce(contacts(20, 1))  # the same contacts at the same offsets
    report = reconcile(settings)
    assert (report.totals.inputs, report.totals.waiting, report.counts) == (0, 20, {}), report.findings
    worker = stage.start_ready()
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    report = reconcile(settings)
    assert report.is_balanced, report.findings
    assert (report.totals.inputs, report.before) == (20, 20)
