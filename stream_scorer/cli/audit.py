"""``stream-scorer audit``: what happened to a contact."""

from __future__ import annotations

import time
from typing import Annotated, Final

import typer

from stream_scorer.cli.examples import with_examples
from stream_scorer.cli.options import ConfigOption, EventOption, FormatOption, OutOption, SinceOption, UntilOption
from stream_scorer.cli.output_formats import OutputFormat, chosen_format, row_output
from stream_scorer.core.desk.record_filter import parse_filter
from stream_scorer.desk.contact_history import ContactHistory
from stream_scorer.errors import UsageError
from stream_scorer.settings import load_settings

app = typer.Typer(help="Show what happened to a contact.", no_args_is_help=True)

_DETAILS_CELLS: Final = 400


@app.callback()
def _group() -> None:
    """Show what happened to a contact."""


@app.command()
@with_examples("audit show C-1001", "audit show C-1001 --since 7d -o json", "audit show --event evt-77 C-1001")
def show(
    contact: Annotated[str, typer.Argument(metavar="CONTACT", show_default=False, help="The contact's id.")],
    *,
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    event: EventOption = None,
    output: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Print the history of a contact over all topics: outcomes, deferrals, decisions, callbacks.

    The events are in order of time, and none stands before its cause. An outcome has the facts of its audit entry; one
    that retention has deleted is shown from its audit entry alone. Nothing is changed. The output is personal data.
    """
    selection = parse_filter(
        now_ms=time.time_ns() // 1_000_000, since=since, until=until, events=event or (), contacts=[contact]
    )
    chosen = chosen_format(output, out)
    settings = load_settings(config)
    with row_output(chosen, out, max_cell=_DETAILS_CELLS) as writer:
        history = ContactHistory(settings, selection)
        if history.missing:
            missing = ", ".join(history.missing)
            typer.echo(f"not read, because it does not exist or may not be described: {missing}", err=True)
        events = history.read()
        if not events:
            raise UsageError("no record of this contact is selected: check its id and the bounds")
        for one in events:
            writer.write(one.as_line() if chosen is OutputFormat.TABLE else one.as_row())
