"""``stream-scorer demo``: the whole pipeline on this machine alone."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.console import Console

from stream_scorer.cli.kafka import shown_progress
from stream_scorer.cli.reconcile import print_callbacks, print_report
from stream_scorer.local.demo.options import DemoOptions, DemoTarget, Screen
from stream_scorer.local.demo.run import run_demo
from stream_scorer.local.demo.signals import Interrupted
from stream_scorer.local.simulator.scenario import SHIPPED, load_scenario

DEFAULTS = DemoOptions()
# Wide enough for the table without a terminal, so that no cell wraps in a file.
_FILE_WIDTH: Final = 160


def demo(
    *,
    contacts: Annotated[int, typer.Option(metavar="N", min=1, help="Number of contacts.")] = DEFAULTS.contacts,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the generated contacts.")] = DEFAULTS.seed,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave Kafka running and its data in place, for inspection.")
    ] = DEFAULTS.keep,
    scenario: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help=f"Failures of the API: {', '.join(SHIPPED)}, or a TOML file. Every contact is still accounted for.",
        ),
    ] = None,
    target: Annotated[
        DemoTarget,
        typer.Option(help="Where high scores go: a contact list that the simulator dials, or a webhook."),
    ] = DEFAULTS.target,
) -> None:
    """Score contacts from a real Kafka over real HTTP, through a kill and an outage, and account for every one of them.

    Starts an Apache Kafka (fetched the first time, 45 MB), the simulator of the Genesys API with its dialler, two
    scoring workers and the campaign worker. Each is a process of its own in a temporary folder. Produces contacts, some
    of them invalid. At 40 % a worker is killed, and the other takes over; later the API fails for some seconds. A
    rejected contact is repaired and replayed. Ends with the verdict of the reconciliation, from the contacts to the
    receipts of the callbacks, and with the price. Everything is removed at the end, except the fetched Kafka in
    ~/.cache. Exit code 0: every contact has exactly its expected outcome, and exactly the contacts with a high score
    were called.
    """
    play = None if scenario is None else load_scenario(scenario)
    options = DemoOptions(contacts=contacts, keep=keep, seed=seed, scenario=play, target=target)
    try:
        run_demo(options, _screen())
    except Interrupted as interrupted:
        raise typer.Exit(interrupted.exit_code) from None


def _screen() -> Screen:
    """Return the outputs: the summary on standard output, all else on standard error."""
    results = Console()
    if not results.is_terminal:
        results = Console(width=_FILE_WIDTH)
    return Screen(
        results=results,
        progress=Console(stderr=True),
        steps=shown_progress,
        show_report=lambda report: print_report(report, results),
        show_callbacks=lambda report: print_callbacks(report, results),
    )
