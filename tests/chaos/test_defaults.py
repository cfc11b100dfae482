"""Faults of the API against a worker with default settings: a full window, full batches, real backoff.

The other scenarios have a small window and short waits, for short tests. The cost of a full
window, and waits between partitions, show only here.
"""

# ruff: noqa: T201 - measured figures are printed

from __future__ import annotations

import random
import signal
import time
from functools import partial
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from output_verifier import verify_outputs
from scoring_harness import contact, contacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker_harness import WorkerHarness, WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]

QUOTA: Final = 300
WINDOW: Final = 16_000
IN_FLIGHT: Final = 8 * 1_000
MAX_CONTROLS: Final = 20
# No setting but those of Kafka, which only shorten what happens when a worker is killed.
DEFAULTS: Final[dict[str, Any]] = dict.fromkeys(
    (
        "genesys__requests_per_minute",
        "genesys__backoff_base_s",
        "genesys__max_backoff_s",
        "genesys__probe_interval_s",
        "genesys__timeout_s",
        "scoring__retry_delays_s",
    )
)
PHASE_S: Final = 15.0
PER_SECOND: Final = 100
# Half of the nodes behind the API fail in one way; in the last case a shard of the contact ids is unavailable.
PHASES: Final[dict[str, dict[str, Any]]] = {
    "400": {"status": 400, "share": 0.5},
    "404-html": {"status": 404, "body": "html", "share": 0.5},
    "503": {"status": 503, "share": 0.5},
    "empty-200": {"status": 200, "body": '{"results": []}', "share": 0.5},
    "no-shard": {"results": [{"do": "omit", "of": {"share": 0.2}}]},
}
VERSIONS: Final = 40


class End(NamedTuple):
    """The exit of a worker within a backlog, and the behaviour of the API meanwhile."""

    name: str
    signal: signal.Signals
    code: int
    fault: dict[str, Any]
    is_open: bool = False


ENDS: Final = (
    End("SIGTERM", signal.SIGTERM, 0, {}),
    End("SIGINT", signal.SIGINT, 0, {}),
    End("SIGTERM in a search", signal.SIGTERM, 0, {"contact_id": "BAD", "status": 500, "times": None}),
    End("SIGTERM before a Retry-After", signal.SIGTERM, 0, {"status": 503, "retry_after": 600, "times": 1}),
    End("SIGTERM while the breaker is open", signal.SIGTERM, 0, {"status": 503, "times": None}, is_open=True),
    End("SIGKILL", signal.SIGKILL, -signal.SIGKILL, {}),
)


@pytest.fixture
def stage(make_stage: Callable[..., WorkerHarness]) -> WorkerHarness:
    """As many retry partitions as `topics create` makes, and the platform's quota."""
    stage = make_stage(retry_partitions=4)
    stage.simulator.configure(quota=QUOTA, latency_ms=100)
    return stage


def warm_up(stage: WorkerHarness, **settings: Any) -> WorkerProcess:
    worker = stage.start_ready(**{**DEFAULTS, **settings})
    stage.produce(contacts(400, stage.partitions, "WARM"))
    stage.wait_done(needs=worker)
    return worker


def ticks(seconds: float, every_s: float) -> Iterator[int]:
    """Yield numbers at a fixed rate, independent of the load of the machine."""
    began, number = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        yield number
        number += 1
        time.sleep(max(0.0, began + number * every_s - time.monotonic()))


def test_a_contact_that_hangs_blocks_no_other_partition(stage: WorkerHarness) -> None:
    """Each request with it ends at its deadline of 30 s, until it is isolated and deferred."""
    worker = warm_up(stage)
    stage.simulator.add_fault(contact_id="HANGS", times=None, delay_ms=40_000)
    stage.produce([contact("HANGS", 0), *contacts(40_000, stage.partitions)])
    began, progress, ends = time.monotonic(), stage.watch(), stage.ends()
    moved = dict.fromkeys(range(stage.partitions), began)
    longest = dict.fromkeys(moved, 0.0)
    last: dict[int, int] = {}
    done_at: dict[int, float] = {}

    def all_done() -> bool:
        now = time.monotonic()
        for number, offset in progress.by_partition().items():
            if offset != last.get(number) and number not in done_at:
                longest[number] = max(longest[number], now - moved[number])
                last[number], moved[number] = offset, now
            if offset == ends[number]:
                done_at.setdefault(number, now - began)
        return len(done_at) == stage.partitions

    stage.wait(all_done, "every partition to be committed", needs=worker, limit_s=900)
    progress.close()
    print(f"\ndone after {done_at}; stood still for at most {longest} s")
    assert all(longest[number] < 10.0 for number in (1, 2, 3))
    assert worker.stop() == 0
    verdict = verify_outputs(stage, may_wait=True)
    assert [message.key() for message in verdict.waiting.values()] == [b"HANGS"]
    assert verdict.count("rejected") == 0


def test_half_of_the_nodes_broken_and_a_shard_away_reject_no_contact(stage: WorkerHarness) -> None:
    worker = warm_up(stage)
    fired: dict[str, int] = {}
    for phase, action in PHASES.items():
        stage.simulator.add_fault(min_contacts=1, times=None, **action)
        for tick in ticks(PHASE_S, 1.0):
            stage.produce(contact(f"{phase}-{tick:03}-{n:03}", n % 4) for n in range(PER_SECOND))
        fired[phase] = stage.simulator.faults()[0]["fired"]
        stage.simulator.clear_faults()
    began = time.monotonic()
    stage.wait_done(needs=worker, limit_s=240)
    after_s = time.monotonic() - began
    assert worker.stop() == 0
    verdict = verify_outputs(stage)
    deferred = sum(output.header("deferred") is not None for output in verdict.outputs.values())
    billed = stage.simulator.stats().contacts_scored
    print(f"\n{stage.produced} contacts, {billed} billed, {deferred} deferred; all done {after_s:.0f} s after the end")
    print(f"requests that failed: {fired}; breaker opened {len(worker.said('circuit opened'))} times")
    assert all(fired.values())
    assert len(verdict.outputs) == stage.produced
    assert verdict.count("rejected") == 0
    assert billed <= 1.6 * stage.produced


def test_an_api_that_is_slow_with_large_requests_is_billed_1_6_times_at_most(stage: WorkerHarness) -> None:
    """It answers requests of 600 contacts and more after their time-out, and bills them."""
    worker = warm_up(stage, genesys__timeout_s="3")
    stage.simulator.add_fault(min_contacts=600, times=None, delay_ms=4_000)
    stage.produce(contacts(30_000, stage.partitions))
    took_s = stage.wait_done(needs=worker, limit_s=600)
    assert worker.stop() == 0
    verdict = verify_outputs(stage)
    billed = stage.simulator.stats().contacts_scored
    print(f"\n{stage.produced} contacts, {billed} billed; done after {took_s:.0f} s")
    assert len(verdict.outputs) == stage.produced
    assert verdict.count("rejected") == 0
    assert billed <= 1.6 * stage.produced


def test_forty_versions_at_once_wait_for_seconds(stage: WorkerHarness) -> None:
    """Ten events a second; each version may come next, as no producer deals them in turn.

    Two events to a request are 5 requests a second, the whole quota: in strict rotation a delay is never recovered.
    """
    stage.simulator.configure(known_versions=None)
    worker = warm_up(stage)
    draw = random.Random(1)  # noqa: S311 - every run draws the same
    for tick in ticks(60.0, 0.5):
        versions = [f"v{draw.randrange(VERSIONS)}" for _ in range(5)]
        stage.produce(contact(f"V-{tick:04}-{n}", n % 4, model_version=version) for n, version in enumerate(versions))
    stage.wait_done(needs=worker)
    requests = stage.simulator.stats().requests_with("score", 200)
    assert worker.stop() == 0
    verdict = verify_outputs(stage)
    waited = [
        (output.written_ms - verdict.inputs[source].timestamp()[1]) / 1000
        for source, output in verdict.outputs.items()
        if (verdict.inputs[source].key() or b"").startswith(b"V-")
    ]
    cuts = quantiles(waited, n=100)
    print(f"\n{len(waited)} events: median {cuts[49]:.1f} s, p95 {cuts[94]:.1f} s, {requests} requests")
    assert cuts[94] <= 6.0
    assert verdict.count("rejected") == 0


def test_five_percent_refused_are_held_until_the_api_takes_them(stage: WorkerHarness) -> None:
    """More than one percent: further contacts are quarantined, and nothing is lost.

    With more requests a minute than by default: to find 500 refused contacts takes over a thousand.
    """
    stage.simulator.configure(quota=1_000_000)
    worker = warm_up(stage, scoring__retry_delays_s="[1, 2, 3]", genesys__requests_per_minute="6000")
    stage.produce(contact(f"REFUSE-{n:05}", 0) if n % 20 == 0 else contact(f"C-{n:05}", n % 4) for n in range(10_000))
    stage.wait(lambda: worker.said("contacts held over the limit"), "the limit", needs=worker, limit_s=300)
    stage.wait_done(needs=worker, may_wait=True, limit_s=300)
    stage.simulator.configure(refuse_prefix="")
    stage.wait_done(needs=worker, limit_s=300)
    assert worker.stop() == 0
    verdict = verify_outputs(stage)
    keys = {verdict.inputs[source].key() for source, output in verdict.outputs.items() if output.kind == "rejected"}
    requests = sum(stage.simulator.stats().requests["score"].values())
    print(f"\n{len(keys)} of 500 rejected, the others held and scored in the end; {requests} requests")
    assert all((key or b"").startswith(b"REFUSE-") for key in keys)
    assert len(keys) <= 0.01 * stage.produced + 20
    assert len(verdict.outputs) == stage.produced


def test_ten_thousand_refused_contacts_leave_the_other_partitions_their_rate(stage: WorkerHarness) -> None:
    """A producer writes them to one of four partitions at once; the others have 40 requests of 100 a second.

    With short delays and a low limit, so that the rounds of the first are over while the stream lasts.
    """
    stage.simulator.configure(quota=1_000_000, latency_ms=50)
    settings = {"scoring__retry_delays_s": "[1, 2]", "scoring__max_refused_share": "0.0005"}
    worker = warm_up(stage, **settings, scoring__max_contacts="20", genesys__requests_per_minute="6000")
    progress, fed = stage.watch(), 0
    before = progress.by_partition()
    stage.produce(contact(f"REFUSE-{n:05}", 0) for n in range(10_000))
    for tick in ticks(45.0, 0.05):
        fed += stage.produce(contact(f"S-{tick:04}-{n}", 1 + n % 3) for n in range(39))
    after = progress.by_partition()
    done = sum(after[number] - before[number] for number in (1, 2, 3))
    print(f"\n{done} of {fed} contacts of the others committed when the last was written")
    assert done >= 0.9 * fed
    assert not worker.said("circuit opened")
    stage.wait(lambda: worker.said("contacts held over the limit"), "the limit", needs=worker, limit_s=240)
    assert progress.by_partition()[0] > before[0], "none of the refused contacts was deferred"
    progress.close()
    assert worker.stop() == 0


def test_what_each_kind_of_end_buys_again(stage: WorkerHarness) -> None:
    """Each kind of exit within a backlog with a full window; the next worker shows the cost."""
    stage.simulator.configure(quota=1_000_000, latency_ms=300)
    settings = {**DEFAULTS, "genesys__requests_per_minute": "100000"}
    bills: dict[str, int] = {}
    announced: dict[str, int] = {}
    for end in ENDS:
        before = _paid_again(stage)
        worker = stage.start_ready(**settings)
        mark = stage.simulator.stats().contacts_scored + WINDOW // 2
        if end.fault:
            stage.simulator.add_fault(min_contacts=1, **end.fault)
        stage.produce([contact(end.fault.get("contact_id", f"{end.name}-first"), 0)])
        stage.produce(contacts(20_000, stage.partitions, end.name))
        reached = partial(_is_open, worker) if end.is_open else partial(_is_billed, stage, mark)
        stage.wait(reached, f"the middle of the backlog before {end.name}", needs=worker)
        worker.send(end.signal)
        assert worker.exit_code() == end.code, worker.log()[-2_000:]
        announced[end.name] = sum(line["contacts_sent_again"] for line in worker.said("drained"))
        stage.simulator.clear_faults()
        successor = stage.start_ready(**settings)
        stage.wait_done(needs=successor, may_wait=True)
        assert successor.stop() == 0
        bills[end.name] = _paid_again(stage) - before
    print(f"\nbilled again: {bills}; announced: {announced}")
    clean = {name: bill for name, bill in bills.items() if name != "SIGKILL"}
    assert all(bill <= announced[name] + 2 * MAX_CONTROLS for name, bill in clean.items())
    assert all(bill <= IN_FLIGHT for bill in clean.values())
    assert bills["SIGKILL"] <= WINDOW + MAX_CONTROLS
    assert verify_outputs(stage, may_wait=True).count("rejected") == 0


def _is_open(worker: WorkerProcess) -> bool:
    return worker.why_not_ready().startswith("circuit open: ")


def _is_billed(stage: WorkerHarness, mark: int) -> bool:
    return bool(stage.simulator.stats().contacts_scored >= mark)


def _paid_again(stage: WorkerHarness) -> int:
    return sum(times - 1 for times in stage.simulator.scored(minimum=2).values())
