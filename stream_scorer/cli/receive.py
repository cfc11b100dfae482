"""``stream-scorer receive``: a campaign manager for tests and trials, in the foreground."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from stream_scorer.local.receiver.config import DEFAULT_SECRET, ReceiverConfig
from stream_scorer.local.receiver.launcher import serve, worker_environment
from stream_scorer.targets.signature import secret_bytes

if TYPE_CHECKING:
    from stream_scorer.local.receiver.control import ReceiverControl

DEFAULT_PORT = 8091
SECRET_VARIABLE = "RECEIVER_SECRET"  # noqa: S105 - the variable's name  # nosec B105


def receive(
    *,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Port to listen on; 0: any free port.", min=0, max=65535)
    ] = DEFAULT_PORT,
    latency_ms: Annotated[float, typer.Option(metavar="MS", help="Latency of each answer.", min=0)] = 0.0,
) -> None:
    """Receive callbacks on this machine until Ctrl-C: verify their signatures, count ids, fail as scripted.

    The secret is $RECEIVER_SECRET, else a default for trials. Faults are scripted over HTTP: POST
    /_receiver/faults. Received callbacks: GET /_receiver/stats, /_receiver/callbacks and /_receiver/contacts.
    """
    secret = os.environ.get(SECRET_VARIABLE) or DEFAULT_SECRET
    secret_bytes(f"${SECRET_VARIABLE}", secret)  # the worker's own check, before anything is sent
    config = ReceiverConfig(secret=secret, latency_ms=latency_ms)
    serve(config, host, port, lambda control: _introduce(control, config), print_line=typer.echo)


def _introduce(control: ReceiverControl, config: ReceiverConfig) -> None:
    typer.echo(f"The receiver answers at {control.url}; Ctrl-C ends it. To point the campaign worker at it:\n")
    for name, value in worker_environment(control.url, config).items():
        # A secret from the environment is not printed: terminals and logs have other readers.
        shown = f'"${SECRET_VARIABLE}"' if value == config.secret != DEFAULT_SECRET else value
        typer.echo(f"  export {name}={shown}")
    typer.echo(f"\nFaults and records: {control.base_url}/_receiver/ (faults, stats, callbacks, contacts)")
