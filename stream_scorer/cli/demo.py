"""``stream-scorer demo``: contacts through everything there is, on this machine alone."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.console import Console

from stream_scorer.cli.kafka import shown_progress
from stream_scorer.cli.reconcile import print_callbacks, print_report
from stream_scorer.local.demo.run import DemoOptions, Screen, run_demo
from stream_scorer.local.demo.signals import Interrupted
from stream_scorer.local.simulator.scenario import SHIPPED, load_scenario

DEFAULTS = DemoOptions()
# Wide enough for the table where there is no terminal: nothing is folded in a file.
_FILE_WIDTH: Final = 160


def demo(
    *,
    contacts: Annotated[int, typer.Option(metavar="N", min=1, help="How many contacts.")] = DEFAULTS.contacts,
    seed: Annotated[int, typer.Option(help="Another seed generates other contacts.")] = DEFAULTS.seed,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave Kafka running and its data in place, to look around.")
    ] = DEFAULTS.keep,
    scenario: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help=f"Let the API go wrong: {', '.join(SHIPPED)}, or a TOML file. Every contact is accounted for even so.",
        ),
    ] = None,
) -> None:
    """See contacts flow through a real Kafka, be scored over real HTTP, and be accounted for to the last one.

    Starts an Apache Kafka (fetched the first time, 45 MB), the simulator of the Genesys API, a campaign manager, the
    scoring worker and the campaign worker, each a process of its own in a temporary folder; produces contacts, bad ones
    among them; shows the worker at work; ends with the reconciliation, from the contacts to the receipts of the
    callbacks. Nothing of it stays, however it ends, but the fetched Kafka in ~/.cache. Exit code 0: every contact has
    exactly the outcome it must have, and the campaign manager knows exactly those with a high score.
    """
    play = None if scenario is None else load_scenario(scenario)
    options = DemoOptions(contacts=contacts, keep=keep, seed=seed, scenario=play)
    results = Console()
    if not results.is_terminal:
        results = Console(width=_FILE_WIDTH)
    screen = Screen(
        results=results,
        progress=Console(stderr=True),
        steps=shown_progress,
        show_report=lambda report: print_report(report, results),
        show_callbacks=lambda report: print_callbacks(report, results),
    )
    try:
        run_demo(options, screen)
    except Interrupted as interrupted:
        raise typer.Exit(interrupted.exit_code) from None
