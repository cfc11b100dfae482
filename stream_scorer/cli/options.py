"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from stream_scorer.cli.output_formats import OutputFormat
from stream_scorer.cli.shared_options import sharing

ConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="Settings in TOML. Environment variables and flags win over it."
    ),
]

StartOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="WHERE",
        help="Start of a group without commits on the input topics: earliest, latest or an ISO time.",
    ),
]

NewTopicOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--new-topic", help="Accept a topic that was deleted and created again. --from sets where it is read from."
    ),
]

# --- the operator's desk

_BOUND: Final = (
    "a duration back from now such as 2h, an ISO time with a zone (both of Kafka's timestamp), or an offset."
)

ContactsArgument: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="CONTACT", show_default=False, help="Only records of these contacts.")
]
SinceOption: TypeAlias = Annotated[str | None, typer.Option("--since", metavar="WHEN", help=f"First record: {_BOUND}")]
UntilOption: TypeAlias = Annotated[
    str | None, typer.Option("--until", metavar="WHEN", help=f"End, not included: {_BOUND}")
]
LimitOption: TypeAlias = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Maximum number of records.")
]
PartitionOption: TypeAlias = Annotated[
    int | None, typer.Option("--partition", metavar="N", min=0, help="Only this partition.")
]
PlaceOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--place",
        metavar="T/P/O",
        help="Only the record at this topic/partition/offset, and those made from it. Repeat it for more.",
    ),
]
EventOption: TypeAlias = Annotated[
    list[str] | None, typer.Option("--event", metavar="ID", help="Only records of this event. Repeat it for more.")
]
BatchOption: TypeAlias = Annotated[
    list[str] | None, typer.Option("--batch", metavar="ID", help="Only records of this request. Repeat it for more.")
]
FormatOption: TypeAlias = Annotated[
    OutputFormat | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FORMAT",
        show_default=False,
        help="Format: table, json, jsonl, csv or parquet. Without it: table on a terminal, jsonl elsewhere, or as the"
        " name of --out ends.",
    ),
]
OutOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", help="Write a new file, readable by this user only, instead of standard output."
    ),
]


def record_options(
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    partition: PartitionOption = None,
    place: PlaceOption = None,
    event: EventOption = None,
) -> dict[str, Any]:
    """Return the options that select records of any kind, by the names of `core.desk.record_filter.parse_filter`."""
    return {
        "since": since,
        "until": until,
        "limit": limit,
        "partition": partition,
        "places": tuple(place or ()),
        "events": tuple(event or ()),
    }


@sharing(records=record_options)
def contact_options(
    contacts: ContactsArgument = None, *, records: dict[str, Any], batch: BatchOption = None
) -> dict[str, Any]:
    """Return the options that select records of contacts, by the same names."""
    return {**records, "contacts": tuple(contacts or ()), "batches": tuple(batch or ())}
