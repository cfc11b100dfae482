"""``stream-scorer simulate``: the simulator of the Genesys API, in the foreground."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from stream_scorer.errors import UsageError
from stream_scorer.local.simulator.config import DEFAULT_SECRET, SimulatorConfig, read_features
from stream_scorer.local.simulator.launcher import serve, worker_environment
from stream_scorer.local.simulator.scenario import SHIPPED, Scenario, load_scenario

DEFAULTS = SimulatorConfig()
DEFAULT_PORT = 8090
SECRET_VARIABLE = "SIMULATOR_CLIENT_SECRET"  # noqa: S105 - the variable's name  # nosec B105


def simulate(
    *,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Port to listen on; 0: any free port.", min=0, max=65535)
    ] = DEFAULT_PORT,
    client_id: Annotated[
        str,
        typer.Option(
            metavar="ID", help=f"The OAuth client. Its secret is ${SECRET_VARIABLE}, else '{DEFAULT_SECRET}'."
        ),
    ] = DEFAULTS.client_id,
    model_id: Annotated[str, typer.Option(metavar="ID", help="Id of the only model.")] = DEFAULTS.model_id,
    model_version: Annotated[
        list[str] | None, typer.Option(metavar="VERSION", help="A model version that exists; repeat it for more.")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The model's features: a TOML or JSON file of names and types, or a worker's settings file. "
            "Without it, the tutorial's four.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    any_features: Annotated[bool, typer.Option("--any-features", help="Accept any features.")] = False,
    quota: Annotated[int, typer.Option(metavar="N", help="Requests a minute.", min=0)] = DEFAULTS.quota,
    latency_ms: Annotated[float, typer.Option(metavar="MS", help="Latency of a request.", min=0)] = DEFAULTS.latency_ms,
    latency_jitter_ms: Annotated[
        float, typer.Option(metavar="MS", help="Maximum extra latency.", min=0)
    ] = DEFAULTS.latency_jitter_ms,
    expires_in: Annotated[
        int, typer.Option(metavar="SECONDS", help="Lifetime of a token in seconds.", min=1)
    ] = DEFAULTS.expires_in,
    scenario: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help=f"Faults on a timeline that starts with the first request: {', '.join(SHIPPED)}, or a TOML file.",
        ),
    ] = None,
    scenarios: Annotated[
        bool, typer.Option("--scenarios", help="List the scenarios of this package, and exit.")
    ] = False,
) -> None:
    """Simulate the Genesys scoring API on this machine until Ctrl-C: OAuth, scores, quota, scripted faults.

    Faults are scripted over HTTP: POST /_simulator/faults, or on a timeline: --scenario. Scored, and so billed,
    contacts: GET /_simulator/stats and /_simulator/scored.
    """
    if scenarios:
        for name in SHIPPED:
            typer.echo(f"{name}: {load_scenario(name).description}")
        return
    if features is not None and any_features:
        raise UsageError("--features and --any-features exclude each other: give one of them")
    changes: dict[str, Any] = {
        "client_id": client_id,
        "client_secret": os.environ.get(SECRET_VARIABLE) or DEFAULT_SECRET,
        "model_id": model_id,
        "quota": quota,
        "latency_ms": latency_ms,
        "latency_jitter_ms": latency_jitter_ms,
        "expires_in": expires_in,
    }
    if model_version:
        changes["known_versions"] = tuple(model_version)
    if any_features:
        changes["features"] = None
    elif features is not None:
        changes["features"] = read_features(features)
    config = DEFAULTS.changed(changes)
    play = None if scenario is None else load_scenario(scenario)
    serve(config, host, port, lambda base_url: _introduce(base_url, config, play), scenario=play, report=typer.echo)


def _introduce(base_url: str, config: SimulatorConfig, play: Scenario | None) -> None:
    typer.echo(f"The simulator answers at {base_url}; Ctrl-C ends it. To point the worker at it:\n")
    for name, value in worker_environment(base_url, config).items():
        # A secret from the environment is not printed: terminals and logs have other readers.
        shown = f'"${SECRET_VARIABLE}"' if value == config.client_secret != DEFAULT_SECRET else value
        typer.echo(f"  export {name}={shown}")
    typer.echo(f"\nFaults and statistics: {base_url}/_simulator/ (faults, stats, scored, config, scenario)")
    if play is not None:
        typer.echo(f"\nScenario {play.name}: {play.description}\nIt begins with the first request.")
