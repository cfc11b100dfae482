"""The demo's parts that need no Kafka: its signals, what it reads from the worker, how it judges, what it refuses."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from stream_scorer.core.reconciliation.score_report import FindingKind, PartitionReport, Report
from stream_scorer.core.scoring.types import Reason
from stream_scorer.errors import CheckFailed, LocalError
from stream_scorer.local.demo.checks import check_outcomes
from stream_scorer.local.demo.environment import DemoEnvironment
from stream_scorer.local.demo.monitor import Snapshot, read_metrics
from stream_scorer.local.demo.progress import ProgressView
from stream_scorer.local.demo.signals import Interrupted, Interrupts
from stream_scorer.runtime import metric_definitions
from stream_scorer.telemetry.meter_provider import ServiceMetrics

if TYPE_CHECKING:
    from pathlib import Path

# --- signals


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_raised_where_the_program_is(number: signal.Signals, code: int) -> None:
    given = signal.signal(number, signal.SIG_DFL)  # under nohup SIGHUP is ignored, and stays so
    try:
        with pytest.raises(Interrupted) as raised, Interrupts():
            send(number)
        assert raised.value.exit_code == code
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, given)


def test_a_signal_waits_until_what_must_not_be_torn_apart_is_done() -> None:
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(Interrupted), interrupts.deferred():  # noqa: PT012 - what comes after the signal is the point
            send(signal.SIGINT)
            done.append("to the end")
        send(signal.SIGINT)  # the second changes nothing
    assert done == ["to the end"]


def test_a_signal_that_other_code_swallowed_is_raised_at_the_next_check() -> None:
    with Interrupts() as interrupts:
        with suppress(KeyboardInterrupt):
            send(signal.SIGTERM)
        with pytest.raises(Interrupted):
            interrupts.check()


def test_no_signal_disturbs_the_cleaning_up() -> None:
    with Interrupts() as interrupts:
        interrupts.shield()
        send(signal.SIGINT)
        send(signal.SIGTERM)
        interrupts.check()
        assert interrupts.arrived is None


def test_who_starts_it_with_nohup_can_close_the_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            send(signal.SIGHUP)
            assert interrupts.arrived is None
    finally:
        signal.signal(signal.SIGHUP, before)


# --- the folder


def test_the_folder_is_made_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Interrupts() as interrupts:
        stage = DemoEnvironment(interrupts)
        stage.prepare(10)
        [folder] = tmp_path.iterdir()
        assert folder.name.startswith("stream-scorer-demo-")
        assert stage.close(keep=True) is None  # there is no Kafka to look at
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: SimpleNamespace(free=5_000_000))
    with Interrupts() as interrupts:
        stage = DemoEnvironment(interrupts)
        with pytest.raises(LocalError, match=r"^the demo needs 240 MB in \S+, and 5 MB are free: set TMPDIR to "):
            stage.prepare(20_000)
        stage.close(keep=False)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with Interrupts() as interrupts:
        stage = DemoEnvironment(interrupts)
        with pytest.raises(LocalError, match=r"cannot make a folder in .*missing: No such file or directory"):
            stage.prepare(10)
        stage.close(keep=False)


# --- what the worker says


def test_a_scrape_is_read_by_the_names_that_the_worker_uses() -> None:
    metrics = ServiceMetrics("run")
    metrics.add(metric_definitions.CONSUMED, 900)
    metrics.add(metric_definitions.CONSUMED, 100)
    metrics.add(metric_definitions.CONTACTS, 700, {"outcome": "scored", "reason": ""})
    metrics.add(metric_definitions.CONTACTS, 30, {"outcome": "review", "reason": "narrow_interval"})
    metrics.add(metric_definitions.CONTACTS, 5, {"outcome": "review", "reason": "wide_interval"})
    metrics.add(metric_definitions.CONTACTS, 8, {"outcome": "rejected", "reason": "undecodable"})
    metrics.set(metric_definitions.REQUESTS_IN_FLIGHT, 3)
    metrics.set(metric_definitions.CONTACTS_UNCOMMITTED, 257)
    metrics.set(metric_definitions.QUOTA_ALLOWED, 1_200)
    metrics.set(metric_definitions.QUOTA_REMAINING, 1_150)
    snapshot = read_metrics(metrics.exposition()[1].decode(), "circuit open: HTTP 503")
    assert snapshot == Snapshot(
        read=1_000,
        in_flight=3,
        uncommitted=257,
        outcomes={"scored": 700, "review": 35, "rejected": 8},
        quota_remaining=1_150,
        trouble="circuit open: HTTP 503",
    )
    assert snapshot.settled == 743


def test_a_worker_that_has_done_nothing_yet_says_so() -> None:
    snapshot = read_metrics(ServiceMetrics("run").exposition()[1].decode(), "starting")
    assert (snapshot.read, snapshot.settled, snapshot.quota_remaining) == (0, 0, None)


SNAPSHOT = Snapshot(
    read=1_000,
    in_flight=3,
    outcomes={"scored": 700, "review": 35},
    quota_remaining=1_150,
    trouble="circuit open: HTTP 503",
    called=120,
)


def test_without_a_terminal_there_are_few_lines_and_the_last_state() -> None:
    console = Console(force_terminal=False, width=40)
    with console.capture() as printed, ProgressView(console, contacts=2_000, quota=1_200) as view:
        for read in range(1_000):
            view.show(Snapshot(read=read))
        view.show(SNAPSHOT)
    first, last = printed.get().splitlines()
    assert "read 0 of 2,000  " in first
    assert last.endswith(
        "in flight 3  scored 700  review 35  rejected 0  called 120  quota 50 of 1,200  circuit open: HTTP 503"
    )


def test_on_a_terminal_it_is_a_panel() -> None:
    console = Console(force_terminal=True, width=100, color_system=None)
    with console.capture() as printed, ProgressView(console, contacts=2_000, quota=1_200) as view:
        view.show(SNAPSHOT)
    *_, title, bar, read, scored, review, rejected, called, state, _bottom, _end = printed.get().splitlines()
    assert "scoring 2,000 contacts" in title
    assert bar.count("━") == 60 * 735 // 2_000
    assert read.strip("│ ").split() == ["read", "1,000", "requests", "in", "flight", "3"]
    assert scored.strip("│ ").split() == ["scored", "700", "not", "committed", "yet", "0"]
    assert review.strip("│ ").split() == ["review", "35", "quota", "used", "50", "of", "1,200"]
    assert rejected.strip("│ ").split()[:3] == ["rejected", "0", "elapsed"]
    assert called.strip("│ ").split() == ["called", "120"]
    assert state.strip("│ ") == "● circuit open: HTTP 503"


# --- the verdict


def report(*, counts: dict[FindingKind, int] | None = None, scored: int = 90, review: int = 5) -> Report:
    partition = PartitionReport(0, 0, 100, inputs=100, scored=scored, review=review, rejected=5, audited=100)
    return Report("features", "group", (partition,), counts or {}, (), 0, 0, 3, 1)


GENERATED = Counter({None: 95, Reason.UNDECODABLE: 3, Reason.WRONG_TYPE: 2})


def test_outcomes_as_generated_are_fine() -> None:
    check_outcomes(report(), {"undecodable": 3, "wrong_type": 2}, GENERATED)
    check_outcomes(report(scored=85, review=10), {"undecodable": 3, "wrong_type": 2}, GENERATED)


@pytest.mark.parametrize(
    ("made", "rejected", "said"),
    [
        (report(counts={FindingKind.MISSING: 2}), {"undecodable": 3, "wrong_type": 2}, "does not hold.*2 missing"),
        (report(scored=89), {"undecodable": 3, "wrong_type": 2}, "94 contacts with a score instead of 95"),
        (report(), {"undecodable": 2, "wrong_type": 3}, "2 rejected as undecodable instead of 3; 3 rejected as wrong_"),
        (report(), {"undecodable": 3, "no_result": 2}, "0 rejected as wrong_type instead of 2; 2 rejected for other"),
    ],
)
def test_any_other_outcome_is_named(made: Report, rejected: dict[str, int], said: str) -> None:
    with pytest.raises(CheckFailed, match=said):
        check_outcomes(made, rejected, GENERATED)
