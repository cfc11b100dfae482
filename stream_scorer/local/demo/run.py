"""Sequence of the demo, from the creation of its folder to the reconciliation and the removal of the folder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from stream_scorer.errors import CheckFailed
from stream_scorer.local.demo import pace
from stream_scorer.local.demo.callbacks_check import wait_for_receipts
from stream_scorer.local.demo.checks import check_outcomes
from stream_scorer.local.demo.environment import DemoEnvironment
from stream_scorer.local.demo.followed import FollowedContacts
from stream_scorer.local.demo.incidents import MIN_CONTACTS
from stream_scorer.local.demo.outcomes import OutcomeReader
from stream_scorer.local.demo.preparation import prepare
from stream_scorer.local.demo.scenario_view import closing_line, introduction
from stream_scorer.local.demo.scoring_phase import ScoringPhase
from stream_scorer.local.demo.signals import Interrupted, Interrupts
from stream_scorer.local.demo.story import Story, print_plain, print_wrapped
from stream_scorer.local.demo.summary import Price, Summary
from stream_scorer.reconciliation import reconcile

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from rich.console import Console

    from stream_scorer.core.reconciliation.callback_report import CallbackReport
    from stream_scorer.core.reconciliation.score_report import Report
    from stream_scorer.core.scoring.types import Reason
    from stream_scorer.local.demo.options import DemoOptions, Screen
    from stream_scorer.local.demo.preparation import Prepared
    from stream_scorer.local.demo.scoring_phase import Scored
    from stream_scorer.local.demo.worker_process import WorkerProcess

_LOG_LINES: Final = 10


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
            print_plain(screen.progress, "interrupted: stopping everything")
            raise
        except Exception as error:
            if interrupts.arrived is not None:  # a signal during C code surfaces as an error of that code
                print_plain(screen.progress, "interrupted: stopping everything")
                raise Interrupted(interrupts.arrived) from error
            keep = options.keep
            for process in stage.processes:
                _show_log(screen.progress, process)
            raise
        finally:
            # Nested, since a first signal can still arrive before the shield is active.
            try:
                interrupts.shield()
            finally:
                print_plain(screen.results, stage.close(keep=keep))


def _play(options: DemoOptions, screen: Screen, stage: DemoEnvironment, interrupts: Interrupts) -> None:
    def require_alive() -> None:
        interrupts.check()
        stage.require_running()

    story = Story(screen.progress, began=time.monotonic())
    _introduce(options, screen.results)
    ready = prepare(options, screen, stage)
    interrupts.check()
    followed = FollowedContacts(ready.settings.callbacks.threshold)
    deliverer = stage.start_deliverer()
    phase = ScoringPhase(options, ready, stage, story, screen.progress, require_alive)
    with OutcomeReader(ready.settings) as outcomes:
        scored = phase.run(outcomes, followed)
    with screen.steps() as show_step:
        show_step("waiting for the receipts")
        receipts = wait_for_receipts(ready.settings, require_alive)
        deliverer.stop()
        show_step("reading everything back")
        report = reconcile(ready.settings, progress=lambda topic, *_: show_step(f"reading everything back: {topic}"))
    _check(screen, report, receipts, outcomes.counts.reasons, ready.generated)
    calls = ready.campaign.verified(ready.settings)
    summary = Summary(
        report=report,
        receipts=receipts,
        reasons=outcomes.counts.reasons,
        price=_price(options, ready, report, scored),
        calls=calls,
        contacts=tuple(followed.summary(ready.campaign.dials())),
        scoring_s=scored.seconds,
        total_s=story.elapsed_s,
        scenario=closing_line(ready.simulator),
    )
    for line in summary.lines():
        print_wrapped(screen.results, line)
    print_plain(screen.results, summary.commands(None if options.scenario is None else options.scenario.name))


def _introduce(options: DemoOptions, console: Console) -> None:
    lines = [pace.introduction(options.contacts)] if options.scenario is None else introduction(options.scenario)
    if options.contacts < MIN_CONTACTS:
        lines = [*lines, f"with fewer than {MIN_CONTACTS:,} contacts no worker is killed, and no outage is played"]
    for line in lines:
        print_wrapped(console, line)


def _price(options: DemoOptions, ready: Prepared, report: Report, scored: Scored) -> Price:
    totals = report.totals
    return Price(
        paid=ready.simulator.stats().contacts_scored,
        scored=totals.scored + totals.review,
        controls=scored.controls,
        killed=scored.killed,
        scenario=options.scenario is not None,
    )


def _check(
    screen: Screen,
    report: Report,
    receipts: CallbackReport,
    rejected: Mapping[str, int],
    generated: Counter[Reason | None],
) -> None:
    """Raise an error, after the reports with their findings, unless every contact has its expected outcome."""
    if not (report.is_balanced and receipts.is_balanced):
        screen.show_report(report)
        screen.show_callbacks(receipts)
    check_outcomes(report, rejected, generated)
    if not receipts.is_balanced:
        raise CheckFailed(receipts.verdict)


def _show_log(console: Console, process: WorkerProcess) -> None:
    lines = process.last_lines(_LOG_LINES)
    if lines:
        title = f"the last lines of the log of {process.name} (stream-scorer {process.command}):"
        print_plain(console, "\n".join([title, *(f"  {line}" for line in lines)]))
