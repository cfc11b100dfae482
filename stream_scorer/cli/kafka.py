"""``stream-scorer kafka start|stop|status``: the embedded Apache Kafka."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from stream_scorer.errors import UsageError
from stream_scorer.local.kafka.broker import EmbeddedKafka
from stream_scorer.local.kafka.cluster import SIZES, EmbeddedCluster, RunningNodes, cluster_size
from stream_scorer.local.kafka.config import DEFAULT_PORT, KafkaConfig, default_data_dir
from stream_scorer.local.kafka.readiness import Running

if TYPE_CHECKING:
    from stream_scorer.local.kafka.jars import Progress

app = typer.Typer(help="Run an Apache Kafka on this machine, for tests and trials.", no_args_is_help=True)

_PLAIN_EVERY_S = 2.0

DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder of data, log and state.", show_default="~/.local/share/stream-scorer/kafka"
    ),
]
Port = Annotated[
    int | None,
    typer.Option(metavar="PORT", help="Client port on 127.0.0.1.", show_default=str(DEFAULT_PORT), min=1, max=65535),
]
Nodes = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of nodes: 1, 3 or 5; with several, each record has three copies. 350 MB of memory a node.",
        show_default="1, or the number in the folder",
    ),
]
Foreground = Annotated[bool, typer.Option("--foreground", help="Stay in the foreground; Ctrl-C stops Kafka.")]


@app.command()
def start(data_dir: DataDir = None, port: Port = None, nodes: Nodes = None, foreground: Foreground = False) -> None:
    """Start Kafka, or find the running one. The first start fetches it (45 MB)."""
    kafka = _kafka(data_dir, port, nodes)
    if foreground:
        _stay(kafka)
    found = kafka.status()
    with shown_progress() as progress:
        running = kafka.start(progress)
    was_there = found is not None and _is_whole(found)
    typer.echo(_where(running, "Apache Kafka was running already" if was_there else "Apache Kafka is running"))
    typer.echo(f"stop it with: stream-scorer kafka stop{_same_folder(data_dir)}")


@app.command()
def stop(data_dir: DataDir = None) -> None:
    """Stop Kafka and keep its data."""
    stopped = _kafka(data_dir).stop()
    typer.echo("Apache Kafka is stopped" if stopped else "Apache Kafka was not running")


@app.command()
def status(data_dir: DataDir = None) -> None:
    """Print whether Kafka runs; exit 0 if it does (of several nodes: a majority), else 1."""
    running = _kafka(data_dir).status()
    again = f"start it with: stream-scorer kafka start{_same_folder(data_dir)}"
    if running is None:
        typer.echo(f"Apache Kafka is not running; {again}")
        raise typer.Exit(1)
    if isinstance(running, RunningNodes) and not running.has_quorum:
        typer.echo(f"{_where(running, 'Apache Kafka cannot serve')}; {again}")
        raise typer.Exit(1)
    typer.echo(_where(running, "Apache Kafka is running"))


def _kafka(data_dir: Path | None, port: int | None = None, nodes: int | None = None) -> EmbeddedKafka | EmbeddedCluster:
    """Return a Kafka of one node or several: the requested number, else the number in the folder."""
    config = KafkaConfig(data_dir=data_dir or default_data_dir(), port=port)
    held = cluster_size(config.data_dir)
    size = nodes or held or 1
    if nodes is not None and nodes not in (1, *SIZES):
        raise UsageError(f"--nodes {nodes}: choose 1, 3 or 5; an even number survives no more failures than one less")
    if held not in (None, size):
        raise UsageError(f"--nodes {size}: {config.data_dir} holds a Kafka of {held} nodes: give another --data-dir")
    if size > 1:
        return EmbeddedCluster(config, size)
    return EmbeddedKafka(config)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Show progress: one changing line on a terminal; elsewhere (a log) few lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainProgress(console)
        return
    with console.status("looking for Apache Kafka") as line:
        yield line.update


class _PlainProgress:
    """Progress as plain lines, at most one every 2 s for the same step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._thing = ""
        self._reported_at = float("-inf")

    def __call__(self, message: str) -> None:
        thing = message.partition(":")[0]
        now = time.monotonic()
        if thing != self._thing or now - self._reported_at >= _PLAIN_EVERY_S:
            self._thing, self._reported_at = thing, now
            self._console.print(message, highlight=False, soft_wrap=True)


def _stay(kafka: EmbeddedKafka | EmbeddedCluster) -> NoReturn:
    # SIGTERM (docker stop, systemd) stops Kafka like Ctrl-C; the handler may be replaced: the process runs nothing
    # else.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with shown_progress() as progress:
            running = kafka.start(progress)
        typer.echo(_where(running, "Apache Kafka is running"))
        typer.echo("stop it with Ctrl-C")
        kafka.wait()
    except KeyboardInterrupt:
        kafka.stop()
        typer.echo("Apache Kafka is stopped")
        raise typer.Exit(0) from None
    typer.echo(f"Apache Kafka has ended; its log: {kafka.log_files}", err=True)
    raise typer.Exit(1)


def _is_whole(running: Running | RunningNodes) -> bool:
    return isinstance(running, Running) or len(running.nodes) == running.size


def _where(running: Running | RunningNodes, state: str) -> str:
    if isinstance(running, Running):
        return f"{state}: bootstrap servers {running.bootstrap_servers}, process {running.pid}"
    processes = ", ".join(str(node.pid) for node in running.nodes)
    count = f"{len(running.nodes)} of {running.size} nodes"
    return f"{state}: {count}, bootstrap servers {running.bootstrap_servers}, processes {processes}"


def _same_folder(data_dir: Path | None) -> str:
    return "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
