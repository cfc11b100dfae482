"""The cluster restarts only a worker that reached no broker at its start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from cluster import ChaosCluster, ended_without_broker
from worker_harness import WorkerProcess

from stream_scorer.local.kafka.process import free_port

if TYPE_CHECKING:
    from pathlib import Path


def ended(folder: Path, *arguments: str) -> WorkerProcess:
    """A process with the errors of a worker; it does not wait for brokers as long as a worker does."""
    settings = {"STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    process = WorkerProcess(settings, arguments, folder / f"{'-'.join(arguments)}.log", free_port(), command="topics")
    process.exit_code()
    return process


def test_only_a_worker_that_reached_no_broker_is_started_again(tmp_path: Path) -> None:
    unreachable, misused = ended(tmp_path, "create"), ended(tmp_path, "destroy")
    assert (unreachable.exit_code(), misused.exit_code()) == (1, 2)
    assert ended_without_broker(unreachable), unreachable.log()
    assert not ended_without_broker(misused)
    started: list[str] = []
    world: Any = SimpleNamespace(named={"one": unreachable, "two": misused}, start_named=started.append)
    ChaosCluster.restart_ended(cast("ChaosCluster", world))
    assert started == ["one"]
