"""Parts of the demo without Kafka: signals, metrics of the workers, incidents, the verdict."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from stream_scorer.core.reconciliation.score_report import FindingKind, PartitionReport, Report
from stream_scorer.core.scoring.types import Reason
from stream_scorer.errors import CheckFailed, LocalError
from stream_scorer.local.demo.checks import check_outcomes
from stream_scorer.local.demo.circuit_view import CircuitView
from stream_scorer.local.demo.environment import DemoEnvironment
from stream_scorer.local.demo.followed import FollowedContacts
from stream_scorer.local.demo.incidents import ApiOutage, Incidents, WorkerKill
from stream_scorer.local.demo.monitor import Snapshot, WorkerState, read_metrics, together
from stream_scorer.local.demo.outcomes import Outcome
from stream_scorer.local.demo.progress import ProgressView
from stream_scorer.local.demo.signals import Interrupted, Interrupts
from stream_scorer.local.demo.story import Story
from stream_scorer.local.demo.summary import Price
from stream_scorer.runtime import metric_definitions
from stream_scorer.telemetry.meter_provider import ServiceMetrics

if TYPE_CHECKING:
    from pathlib import Path

# --- signals


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_raised_in_the_main_thread(number: signal.Signals, code: int) -> None:
    given = signal.signal(number, signal.SIG_DFL)  # under nohup SIGHUP stays ignored
    try:
        with pytest.raises(Interrupted) as raised, Interrupts():
            send(number)
        assert raised.value.exit_code == code
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, given)


def test_a_signal_is_deferred_during_a_critical_section() -> None:
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(Interrupted), interrupts.deferred():  # noqa: PT012 - what comes after the signal is the point
            send(signal.SIGINT)
            done.append("to the end")
        send(signal.SIGINT)  # the second one has no effect
    assert done == ["to the end"]


def test_a_swallowed_signal_is_raised_at_the_next_check() -> None:
    with Interrupts() as interrupts:
        with suppress(KeyboardInterrupt):
            send(signal.SIGTERM)
        with pytest.raises(Interrupted):
            interrupts.check()


def test_no_signal_interrupts_the_cleanup() -> None:
    with Interrupts() as interrupts:
        interrupts.shield()
        send(signal.SIGINT)
        send(signal.SIGTERM)
        interrupts.check()
        assert interrupts.arrived is None


def test_sighup_is_ignored_under_nohup() -> None:
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
        assert stage.close(keep=True) is None  # there is no Kafka to inspect
    assert list(tmp_path.iterdir()) == []


def test_too_little_disk_space_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- the metrics of the worker


def test_a_scrape_is_read_by_the_names_that_the_worker_uses() -> None:
    metrics = ServiceMetrics("run")
    metrics.add(metric_definitions.CONSUMED, 900)
    metrics.add(metric_definitions.CONSUMED, 100)
    metrics.set(metric_definitions.REQUESTS_IN_FLIGHT, 3)
    metrics.set(metric_definitions.CONTACTS_UNCOMMITTED, 257)
    metrics.set(metric_definitions.QUOTA_ALLOWED, 1_200)
    metrics.set(metric_definitions.QUOTA_REMAINING, 1_150)
    metrics.set(metric_definitions.PARTITIONS, 4)
    metrics.add(metric_definitions.CONTROLS, 6)
    metrics.record(metric_definitions.BATCH_SIZE, 100)
    metrics.record(metric_definitions.BATCH_SIZE, 40)
    metrics.add(metric_definitions.CIRCUIT_BREAKER_PROBES, 2, {"outcome": "failed"})
    metrics.add(metric_definitions.CIRCUIT_BREAKER_PROBES, 1, {"outcome": "recovered"})
    metrics.set(metric_definitions.CIRCUIT_BREAKER_OPEN, 1, {"reason": "api"})
    assert read_metrics(metrics.exposition()[1].decode(), "circuit open: HTTP 503") == WorkerState(
        owned=4,
        read=1_000,
        in_flight=3,
        uncommitted=257,
        sent=140,
        controls=6,
        is_open=True,
        probes_failed=2,
        probes_recovered=1,
        quota_remaining=1_150,
        trouble="circuit open: HTTP 503",
    )


def test_a_throttled_worker_has_no_open_breaker() -> None:
    metrics = ServiceMetrics("run")
    metrics.set(metric_definitions.CIRCUIT_BREAKER_OPEN, 1, {"reason": "quota"})
    assert not read_metrics(metrics.exposition()[1].decode(), "").is_open


def test_a_new_worker_has_zero_counters_and_no_quota() -> None:
    snapshot = read_metrics(ServiceMetrics("run").exposition()[1].decode(), "starting")
    assert (snapshot.read, snapshot.sent, snapshot.quota_remaining) == (0, 0, None)


def test_only_the_counters_of_a_killed_worker_remain() -> None:
    killed = WorkerState(owned=2, read=900, in_flight=3, controls=4, is_open=True, quota_remaining=7, trouble="busy")
    other = WorkerState(owned=2, read=100, in_flight=1, controls=1, quota_remaining=9, trouble="")
    assert together({"1": killed, "2": other}).in_flight == 4
    assert together({"1": killed, "2": other}).quota_remaining == 7
    rest = together({"1": killed.as_ended(), "2": other})
    assert rest == WorkerState(owned=2, read=1_000, in_flight=1, controls=5, quota_remaining=9, trouble="")


SNAPSHOT = Snapshot(
    WorkerState(read=1_000, in_flight=3, quota_remaining=1_150, trouble="circuit open: HTTP 503"),
    outcomes={"scored": 700, "review": 35},
    called=120,
    queued=44,
)


def view(console: Console, contacts: int = 2_000) -> ProgressView:
    return ProgressView(console, contacts=contacts, quota=1_200, began=time.monotonic())


def test_without_a_terminal_there_are_few_lines_and_the_last_state() -> None:
    console = Console(force_terminal=False, width=40)
    with console.capture() as printed, view(console) as shown:
        for read in range(1_000):
            shown.show(Snapshot(WorkerState(read=read)))
        shown.show(SNAPSHOT)
    first, *_, numbers, state, trouble = printed.get().splitlines()
    assert "read 0 of 2,000  " in first
    assert numbers.endswith("read 1,000 of 2,000  scored 700  review 35  rejected 0")
    assert state.strip() == "called 120  queue 44  in flight 3  quota 50 of 1,200"
    assert trouble.strip() == "circuit open: HTTP 503"


def test_no_line_is_wider_than_80_columns() -> None:
    console = Console(force_terminal=False, width=200)
    worst = replace(SNAPSHOT, workers=replace(SNAPSHOT.workers, read=10**7, trouble="circuit open: " + "x" * 200))
    with console.capture() as printed, view(console, 10**7) as shown:
        shown.show(replace(worst, outcomes=dict.fromkeys(("scored", "review", "rejected"), 10**6), called=10**6))
    assert max(map(len, printed.get().splitlines())) <= 80


def test_on_a_terminal_it_is_a_panel_that_fits_into_80_columns() -> None:
    console = Console(force_terminal=True, width=80, color_system=None)
    with console.capture() as printed, view(console) as shown:
        shown.show(SNAPSHOT)
    *_, title, bar, read, scored, review, rejected, called, state, _bottom, _end = printed.get().splitlines()
    assert "scoring 2,000 contacts" in title
    assert bar.count("━") == 60 * 735 // 2_000
    assert read.strip("│ ").split() == ["read", "1,000", "requests", "in", "flight", "3"]
    assert scored.strip("│ ").split() == ["scored", "700", "not", "committed", "yet", "0"]
    assert review.strip("│ ").split() == ["review", "35", "quota", "used", "50", "of", "1,200"]
    assert rejected.strip("│ ").split()[:3] == ["rejected", "0", "elapsed"]
    assert called.strip("│ ").split() == ["called", "120", "dial", "queue", "44"]
    assert state.strip("│ ") == "● circuit open: HTTP 503"


# --- circuit breakers


def test_the_states_of_a_circuit_breaker_are_reported_once_each() -> None:
    circuits = CircuitView(max_contacts=50)

    def changes(**state: Any) -> list[str]:
        lines = list(circuits.changes("scorer-2", WorkerState(**{"trouble": "", **state})))
        return [line.removeprefix("circuit breaker of scorer-2: ").partition(",")[0] for line in lines]

    opened = "circuit open: HTTP 503; since 12:00; next probe in 2 s"
    assert changes(sent=400, in_flight=3) == []
    assert list(circuits.changes("scorer-2", WorkerState(sent=400, is_open=True, trouble=opened))) == [
        "circuit breaker of scorer-2: open, so only probes are sent (circuit open: HTTP 503)"
    ]
    assert changes(sent=400, is_open=True) == []
    assert changes(sent=401, is_open=True, probes_failed=1) == ["a probe"]
    assert changes(sent=401, is_open=True, probes_failed=1) == []
    assert changes(sent=402, probes_failed=1, probes_recovered=1, in_flight=1) == ["half-open"]
    assert changes(sent=480, in_flight=1) == []  # 1 + 2 + 4 + 8 + 16 + 32
    assert changes(sent=510, in_flight=3) == ["closed"]
    assert changes(sent=900, in_flight=3) == []
    assert changes(sent=900, is_open=True, trouble="circuit open") == ["open"]


# --- incidents


class FakeWorker:
    """A worker process that records its kill."""

    name = "scorer-1"
    killed = False

    def kill(self) -> None:
        self.killed = True


class FakeMonitor:
    """A monitor that records which workers it no longer reads."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def forget(self, name: str) -> None:
        self.forgotten.append(name)


class FakeApi:
    """An API that is healthy, or has a fault."""

    is_failing = False

    def add_fault(self, **_: Any) -> None:
        self.is_failing = True

    def clear_faults(self) -> None:
        self.is_failing = False


def test_one_worker_is_killed_and_then_the_api_fails_until_the_breaker_was_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 90.0)
    worker, monitor, api, refusals_over = FakeWorker(), FakeMonitor(), FakeApi(), False
    console = Console(force_terminal=False, width=200)
    story = Story(console, began=time.monotonic())
    kill = WorkerKill(worker, "scorer-2", partitions=4, at=400, monitor=monitor, story=story)  # type: ignore[arg-type]
    incidents = Incidents(kill, ApiOutage(api, at=600, may_begin=lambda: refusals_over, story=story))  # type: ignore[arg-type]
    busy, other = WorkerState(owned=2, in_flight=3), WorkerState(owned=2)
    with console.capture() as printed:
        incidents.step(399, {"scorer-1": busy, "scorer-2": other})
        assert not worker.killed
        incidents.step(401, {"scorer-1": busy, "scorer-2": other})
        assert worker.killed
        assert monitor.forgotten == ["scorer-1"]
        ended = busy.as_ended()
        incidents.step(700, {"scorer-1": ended, "scorer-2": other})
        assert not api.is_failing, "the takeover comes first"
        incidents.step(700, {"scorer-1": ended, "scorer-2": replace(other, owned=4)})
        assert not api.is_failing, "so do the contacts that the API refuses"
        refusals_over = True
        incidents.step(700, {"scorer-1": ended, "scorer-2": replace(other, owned=4)})
        assert api.is_failing
        opened = replace(other, owned=4, is_open=True)
        for now in (100.0, 104.0):
            monkeypatch.setattr("time.monotonic", lambda now=now: now)
            incidents.step(700, {"scorer-1": ended, "scorer-2": opened})
            assert api.is_failing
        monkeypatch.setattr("time.monotonic", lambda: 105.5)
        for _ in range(2):
            incidents.step(700, {"scorer-1": ended, "scorer-2": opened})
            assert not api.is_failing
    events = [line[10:] for line in printed.get().splitlines() if line[:10].strip()]
    assert [event.partition(" (")[0].partition(":")[0] for event in events] == [
        "scorer-1 is killed",
        "scorer-2 has taken over",
        "the API fails",
        "the API works again",
    ]


# --- followed contacts


def score(contact_id: str, value: float) -> Outcome:
    return Outcome("scored", contact_id, {"score": value})


def test_the_first_contact_of_each_kind_is_traced_to_its_outcome() -> None:
    followed = FollowedContacts(0.75)
    refused = Outcome("rejected", "DEMO-4", {"reason": "wrong_type", "detail": "'previous_calls' is a string"})
    seen = [
        score("DEMO-1", 0.5),
        score("DEMO-2", 0.8),
        score("DEMO-3", 0.9),
        Outcome("review", "DEMO-5", {"review_reasons": ["narrow_interval"]}),
        Outcome("rejected", "DEMO-6", {"reason": "undecodable", "detail": ""}),
        refused,
    ]
    events = [event for outcome in seen for event in followed.observe(outcome)]
    assert events == [
        "DEMO-2 scored 0.800, to be called",
        "DEMO-5 in review: narrow_interval, so a person decides",
        "DEMO-4 rejected: wrong_type ('previous_calls' is a string)",
    ]
    assert followed.rejected_id == "DEMO-4"
    assert list(followed.observe(score("DEMO-4", 0.8))) == [], "another event of the contact, before its repair"
    followed.expect_repaired()
    assert list(followed.observe(score("DEMO-4", 0.3))) == ["DEMO-4 scored 0.300, below 0.75: not called"]
    calls = [SimpleNamespace(data={"contact_id": one}) for one in ("DEMO-3", "DEMO-2")]
    assert list(followed.summary(calls)) == [  # type: ignore[arg-type]
        "DEMO-2  scored 0.800, to be called; call 2 of 2",
        "DEMO-5  in review: narrow_interval, so a person decides",
        f"{events[2].replace(' ', '  ', 1)}; repaired, replayed, scored 0.300, below 0.75: not called",
    ]


# --- the price


@pytest.mark.parametrize(
    ("price", "sentence"),
    [
        (Price(95, 95, 0, None, scenario=False), "95 contacts paid = 95 with a score + 0 billed again"),
        (Price(98, 95, 3, None, scenario=False), "+ 3 billed again (3 as controls, evidence that the API works while "),
        (Price(99, 95, 0, "w", scenario=False), "+ 4 billed again (4 sent by w and not committed when it was killed)"),
        (Price(99, 95, 1, "w", scenario=False), "; 3 sent by w and not committed when it was killed)"),
        (Price(99, 95, 0, "w", scenario=True), "killed or whose response was lost or cut by the scenario)"),
    ],
)
def test_the_bill_has_its_sum_and_its_reasons(price: Price, sentence: str) -> None:
    assert sentence in str(price)


# --- the verdict


def report(*, counts: dict[FindingKind, int] | None = None, scored: int = 90, review: int = 5) -> Report:
    partition = PartitionReport(0, 0, 100, inputs=100, scored=scored, review=review, rejected=5, audited=100)
    return Report("features", "group", (partition,), counts or {}, (), 0, 0, 3, 1)


GENERATED = Counter({None: 95, Reason.UNDECODABLE: 3, Reason.WRONG_TYPE: 2})


def test_outcomes_as_generated_are_accepted() -> None:
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
