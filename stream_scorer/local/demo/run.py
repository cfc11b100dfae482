"""Sequence of the demo, from the creation of its folder to the reconciliation and the removal of the folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.avro.codec import Codec
from stream_scorer.errors import CheckFailed, LocalError
from stream_scorer.kafka.admin.topics import create_topics
from stream_scorer.local.demo.callbacks_check import (
    DeliveredCallbacks,
    verify_delivered,
    verify_dialled,
    wait_for_receipts,
)
from stream_scorer.local.demo.checks import check_outcomes, count_rejections
from stream_scorer.local.demo.contacts import contacts, no_faults
from stream_scorer.local.demo.environment import REQUESTS_PER_MINUTE, DemoEnvironment
from stream_scorer.local.demo.monitor import Monitor
from stream_scorer.local.demo.producer import feed
from stream_scorer.local.demo.progress import ProgressView
from stream_scorer.local.demo.scenario_view import closing_line, introduction, scene, with_labels
from stream_scorer.local.demo.signals import Interrupted, Interrupts
from stream_scorer.reconciliation import reconcile
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rich.console import Console

    from stream_scorer.core.reconciliation.callback_report import CallbackReport
    from stream_scorer.core.reconciliation.score_report import Report
    from stream_scorer.core.scoring.types import Reason
    from stream_scorer.local.demo.worker_process import WorkerProcess
    from stream_scorer.local.kafka.jars import Progress
    from stream_scorer.local.simulator import Scenario, Simulator
    from stream_scorer.settings import Settings

_LOOK_EVERY_S: Final = 0.1
# Longer than the worker's retries and the outages of the packaged scenarios: a longer stall is an error.
_STALLED_S: Final = 90.0
_LOG_LINES: Final = 10


class DemoTarget(StrEnum):
    """Target of the callbacks."""

    WEBHOOK = "webhook"
    DIALLER = "genesys-outbound"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of the user.

    Attributes:
        contacts: number of generated contacts.
        keep: whether Kafka and the folder stay for inspection.
        seed: seed of the generated contacts.
        scenario: scenario of the simulator; None: no faults.
        target: ``webhook`` (the receiver) or ``genesys-outbound`` (the simulator's dialler).
    """

    contacts: int = 20_000
    keep: bool = False
    seed: int = 1
    scenario: Scenario | None = None
    target: DemoTarget = DemoTarget.WEBHOOK


@dataclass(frozen=True, slots=True)
class Screen:
    """Outputs of the demo.

    Attributes:
        results: console for lasting output: tables and final lines.
        progress: console for changing output, and errors.
        steps: shows messages about the current step until its block ends.
        show_report: prints a reconciliation of contacts, as ``stream-scorer reconcile`` does.
        show_callbacks: prints a reconciliation of scores and receipts.
    """

    results: Console
    progress: Console
    steps: Callable[[], AbstractContextManager[Progress]]
    show_report: Callable[[Report], None]
    show_callbacks: Callable[[CallbackReport], None]


def run_demo(options: DemoOptions, screen: Screen) -> None:
    """Run the demo; return when everything is accounted for and removed.

    Raises:
        CheckFailed: the reconciliation does not hold, or outcomes differ from the expected ones.
        LocalError: a process cannot be started here, or ended too early.
        BrokerError: Kafka rejects a request.
        Interrupted: a signal ended the demo; everything is removed.
    """
    with Interrupts() as interrupts:
        stage = DemoEnvironment(interrupts)
        keep = False
        try:
            _play(options, screen, stage, interrupts)
            keep = options.keep
        except Interrupted:
            _say(screen.progress, "interrupted: stopping everything")
            raise
        except Exception as error:
            if interrupts.arrived is not None:  # a signal during C code surfaces as an error of that code
                _say(screen.progress, "interrupted: stopping everything")
                raise Interrupted(interrupts.arrived) from error
            keep = options.keep
            for worker in stage.workers:
                _show_log(screen.progress, worker)
            raise
        finally:
            # Nested, since a first signal can still arrive before the shield is active.
            try:
                interrupts.shield()
            finally:
                _say(screen.results, stage.close(keep=keep))


def _play(options: DemoOptions, screen: Screen, stage: DemoEnvironment, interrupts: Interrupts) -> None:
    began = time.monotonic()
    if options.scenario is not None:
        _say(screen.results, introduction(options.scenario))
    with screen.steps() as show_step:
        stage.prepare(options.contacts)
        stage.start_kafka(show_step)
        show_step("starting the simulator of the Genesys API")
        simulator = stage.start_simulator(options.scenario)
        campaign_side = _campaign_side(options, stage, simulator, show_step)
        settings = stage.settings
        show_step("creating the topics")
        create_topics(settings)
        generated = _feed(options, settings, show_step)
        interrupts.check()
    worker, campaign = stage.start_worker("run"), stage.start_worker("callbacks")
    view = ProgressView(
        screen.progress,
        contacts=options.contacts,
        quota=REQUESTS_PER_MINUTE,
        scene=None if options.scenario is None else partial(scene, simulator),
    )
    with Monitor(settings, campaign_side.contacts) as watch:
        scoring_s = _watch(view, watch, worker, interrupts)
    worker.stop()
    with screen.steps() as show_step:
        show_step("waiting for the receipts")
        receipts = wait_for_receipts(settings, lambda: _still_makes_sense(interrupts, campaign))
        campaign.stop()
        show_step("reading everything back")
        report = reconcile(settings, progress=lambda topic, *_: show_step(f"reading everything back: {topic}"))
        rejected = count_rejections(settings)
    screen.show_report(report)
    screen.show_callbacks(receipts)
    paid = simulator.stats().contacts_scored
    _say(screen.results, _closing_line(report, paid=paid, scoring_s=scoring_s, total_s=time.monotonic() - began))
    _say(screen.results, closing_line(simulator))
    check_outcomes(report, rejected, generated)
    if not receipts.is_balanced:
        raise CheckFailed(receipts.verdict)
    _say(screen.results, campaign_side.verified(settings))


class _CampaignSide(NamedTuple):
    """Destination of the callbacks: number of its contacts so far, and its check at the end, which returns a line."""

    contacts: Callable[[], int]
    verified: Callable[[Settings], str]


def _campaign_side(
    options: DemoOptions, stage: DemoEnvironment, simulator: Simulator, show_step: Progress
) -> _CampaignSide:
    if options.target is DemoTarget.DIALLER:
        stage.use_dialler(simulator)
        return _CampaignSide(
            lambda: simulator.dialler().contacts, lambda settings: _dialled_line(verify_dialled(settings, simulator))
        )
    show_step("starting a campaign manager")
    receiver = stage.start_receiver()
    return _CampaignSide(
        lambda: receiver.stats().contacts, lambda settings: _reported_line(verify_delivered(settings, receiver))
    )


def _dialled_line(calls: int) -> str:
    return f"the dialler called {calls:,} contacts, each once, exactly those with a high score"


def _closing_line(report: Report, *, paid: int, scoring_s: float, total_s: float) -> str:
    totals = report.totals
    return (
        f"{totals.inputs:,} contacts in {scoring_s:.1f} s ({totals.inputs / scoring_s:,.0f}/s), "
        f"the whole demo took {total_s:.1f} s; the simulator counts {paid:,} contacts to be paid for, "
        f"{totals.scored + totals.review:,} have a score"
    )


def _still_makes_sense(interrupts: Interrupts, worker: WorkerProcess) -> None:
    interrupts.check()
    worker.require_running()


def _reported_line(received: DeliveredCallbacks) -> str:
    return (
        f"the campaign manager received {received.contacts:,} contacts in {received.callbacks:,} callbacks, exactly"
        f" those with a high score; {received.repeats:,} deliveries were repeats, under their id"
    )


def _feed(options: DemoOptions, settings: Settings, show_step: Progress) -> Counter[Reason | None]:
    codec = Codec.single_object(load_schema(SchemaFile.CONTACT_FEATURES))
    now_ms = time.time_ns() // 1_000_000
    doing = f"producing {options.contacts:,} contacts"
    show_step(doing)
    refuses = no_faults if options.scenario is None else options.scenario.refuses
    records = contacts(codec, options.contacts, seed=options.seed, now_ms=now_ms, spared=refuses)
    return feed(settings, with_labels(records, refuses), lambda number: show_step(f"{doing}: {number:,}"))


def _watch(view: ProgressView, watch: Monitor, worker: WorkerProcess, interrupts: Interrupts) -> float:
    """Show the worker until every contact has its outcome; return the seconds from its first record to that.

    A contact whose request fails at the API is committed before it has an outcome: it waits in the retry topics.
    """
    began = advanced = now = time.monotonic()
    reading = False
    committed = settled = 0
    with view:
        while committed < watch.end or settled < watch.end:
            interrupts.check()
            worker.require_running()
            before = committed, settled
            committed = watch.committed()
            snapshot = watch.look()
            settled = snapshot.settled
            view.show(snapshot)
            now = time.monotonic()
            if not reading and snapshot.read:
                began, reading = now, True
            if (committed, settled) != before:
                advanced = now
            elif now - advanced > _STALLED_S:
                why = snapshot.trouble or "no reason known"
                raise LocalError(f"the worker has finished no contact for {_STALLED_S:g} s: {why}")
            time.sleep(_LOOK_EVERY_S)
        view.show(watch.look())  # the worker counts a commit just after the broker
    return max(now - began, _LOOK_EVERY_S)


def _show_log(console: Console, worker: WorkerProcess) -> None:
    lines = worker.last_lines(_LOG_LINES)
    if lines:
        title = f"the last lines of the log of stream-scorer {worker.command}:"
        _say(console, "\n".join([title, *(f"  {line}" for line in lines)]))


def _say(console: Console, text: str | None) -> None:
    if text:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
