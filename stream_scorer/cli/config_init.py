"""``stream-scorer config init``: a commented settings file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_scorer import __version__
from stream_scorer.cli.examples import with_examples
from stream_scorer.cli.output_formats import new_file
from stream_scorer.contact_files.feature_columns import FeatureColumn, read_feature_columns
from stream_scorer.settings import Settings
from stream_scorer.settings.template import settings_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.settings.names import KeyPath


@with_examples(
    "config init --out scorer.toml",
    "config init --local --out scorer.toml",
    "config init --from-csv contacts.csv --out scorer.toml",
)
def init(
    *,
    local: Annotated[
        bool, typer.Option("--local", help="For the embedded Kafka, the simulator and the receiver of this machine.")
    ] = False,
    from_csv: Annotated[
        Path | None,
        typer.Option(
            "--from-csv",
            metavar="FILE",
            help="Take the model's features from a CSV file: names from its header, types from its values.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write a new file, readable by this user only; else standard output."
        ),
    ] = None,
) -> None:
    """Write a settings file with every key, its meaning, type and default, each as a comment.

    An existing file is not overwritten. With --from-csv every column is a feature that is not a contact's own field
    (contact_id, event_id, occurred_at, campaign_id, model_version) and not an attribute (attributes.NAME). A type is
    the narrowest one that fits all values: integer, number, boolean, else string. No value of the file is written.
    """
    columns = [] if from_csv is None else read_feature_columns(from_csv)
    values: dict[KeyPath, Any] = {}
    if local:
        from stream_scorer.cli.local_settings import local_values  # noqa: PLC0415 - of the extra [local]

        values |= local_values()
    if len(columns) > Settings().model.max_features:
        values["model", "max_features"] = len(columns)
    features = [(column.name, column.type or "string", _gap(column)) for column in columns]
    text = settings_file(list(_head(out, local=local, from_csv=from_csv)), values, features)
    if out is None:
        typer.echo(text, nl=False)
        return
    with new_file(out) as file:
        file.write(text)
    typer.echo(f"{out}: written; next: stream-scorer config check --config {shlex.quote(str(out))}", err=True)


def _gap(column: FeatureColumn) -> str:
    """Return what an operator has to decide about a column."""
    if not column.rows:
        return "the file has no row: set the type"
    if column.type is None:
        return "no row has a value: set the type"
    if column.empty:
        return f"empty in {column.empty:,} of {column.rows:,} rows: set impute, or these contacts are rejected"
    return ""


def _head(out: Path | None, *, local: bool, from_csv: Path | None) -> Iterator[str]:
    name = "scorer.toml" if out is None else shlex.quote(str(out))
    yield f"Settings of stream-scorer {__version__}, made by `stream-scorer config init`."
    yield ""
    yield "A line that is commented out holds the default: remove the # in front of its key to change it."
    yield "... stands for a value that has no default. Environment variables win over this file."
    yield ""
    if local:
        features = "" if from_csv is None else f" --features {name}"
        yield "Start in this order, each in a terminal of its own where it stays in the foreground:"
        yield "  stream-scorer kafka start"
        yield f"  stream-scorer simulate{features}"
        yield "  stream-scorer receive"
        yield f"  stream-scorer topics create --config {name}"
        yield f"  stream-scorer run --config {name}"
        yield f"  stream-scorer callbacks --config {name}"
        yield "The secrets below protect nothing but simulator and receiver."
        return
    yield "Set at least kafka.bootstrap_servers, genesys.region, genesys.client_id, genesys.model_id and the features"
    yield "of the model. The client's secret stays out of this file: set GENESYS_CLIENT_SECRET, or name a file with"
    yield f"genesys.client_secret_file. Then: stream-scorer config check --config {name} --connect"
