"""Environment of the demo: starts Kafka, servers and workers, and removes all of them, however the demo ends.

Every process is recorded before its start can be interrupted. `DemoEnvironment.close` ends the recorded processes, then
every process whose arguments name the demo's folder, then removes the folder. The second step is for a signal between
the start of Kafka's process and its record.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_scorer.errors import LocalError
from stream_scorer.local.demo import pace
from stream_scorer.local.demo.scenario_view import worker_environment as scenario_environment
from stream_scorer.local.demo.worker_process import WorkerProcess
from stream_scorer.local.http_server.process import require_extra
from stream_scorer.local.kafka.broker import EmbeddedKafka
from stream_scorer.local.kafka.config import KafkaConfig
from stream_scorer.local.kafka.process import ended_within, free_port, is_alive, send
from stream_scorer.local.receiver import Receiver
from stream_scorer.local.simulator import Simulator, SimulatorConfig
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_scorer.local.demo.signals import Interrupts
    from stream_scorer.local.kafka.jars import Progress
    from stream_scorer.local.simulator import Scenario
    from stream_scorer.settings import Settings

ADMIN_HOST: Final = "127.0.0.1"
_LIST_COLUMNS: Final = {
    **{name: name for name in ("contact_id", "campaign_id", "score", "scored_at")},
    "phone": "attributes.phone",
}
_FOLDER_PREFIX: Final = "stream-scorer-demo-"
_KAFKA_MB: Final = 200
# Size of a contact with its outcome and audit entry, doubled for Kafka's overhead while it writes.
_CONTACT_BYTES: Final = 2_000
_KILLED_WITHIN_S: Final = 10.0
_PROC: Final = Path("/proc")


class DemoEnvironment:
    """Folder, Kafka, servers and workers of the demo. Start them in the methods' order; `close` works in any state."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._processes = ExitStack()
        self._ground = ExitStack()  # kept by --keep: Kafka and the folder
        self._environment: dict[str, str] = {}
        self._folder: Path | None = None
        self._kafka: EmbeddedKafka | None = None
        self.processes: list[WorkerProcess] = []
        self._workers: list[WorkerProcess] = []

    def prepare(self, contacts: int) -> None:
        """Create the folder.

        Raises:
            LocalError: the extra [local] is missing, the disk has too little room, or the folder cannot be created.
        """
        require_extra("the simulator")
        place = Path(tempfile.gettempdir())
        need = _KAFKA_MB * 1_000_000 + contacts * _CONTACT_BYTES
        try:
            free = shutil.disk_usage(place).free
            if free < need:
                raise LocalError(
                    f"the demo needs {need // 1_000_000:,} MB in {place}, and {free // 1_000_000:,} MB are free:"
                    " set TMPDIR to a folder with more room"
                )
            with self._interrupts.deferred():
                self._folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX)).resolve()
                self._ground.callback(_remove, self._folder)
        except OSError as error:
            raise LocalError(f"cannot make a folder in {place}: {error.strerror}; set TMPDIR to another") from None

    def start_kafka(self, report: Progress) -> None:
        """Start Kafka on a free port; the first time on this machine it is fetched.

        Raises:
            LocalError: as `EmbeddedKafka.start`.
        """
        self._kafka = EmbeddedKafka(
            KafkaConfig(data_dir=self._require_folder() / "kafka", port=0, properties=pace.BROKER_PROPERTIES)
        )
        self._ground.callback(_end_kafka, self._kafka)
        running = self._kafka.start(report)
        self._environment["STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS"] = running.bootstrap_servers

    def start_simulator(self, scenario: Scenario | None = None) -> Simulator:
        """Start the simulator, which the worker's settings then use.

        Args:
            scenario: played from the first request on, with worker settings for it.

        Raises:
            LocalError: the simulator does not start.
        """
        config = SimulatorConfig(
            quota=pace.REQUESTS_PER_MINUTE, latency_ms=pace.LATENCY_MS, latency_jitter_ms=pace.LATENCY_JITTER_MS
        )
        simulator = Simulator(config)
        self._processes.callback(simulator.stop)
        simulator.start()
        self._environment |= simulator.environment()
        self._environment |= pace.worker_environment()
        if scenario is not None:
            simulator.play(scenario)
            self._environment |= scenario_environment()
        return simulator

    def start_receiver(self) -> Receiver:
        """Start the campaign manager, which the campaign worker's settings then use.

        Raises:
            LocalError: the campaign manager does not start.
        """
        receiver = Receiver()
        self._processes.callback(receiver.stop)
        receiver.start()
        self._environment |= receiver.environment()
        self._environment["STREAM_SCORER_CALLBACKS__ADMIN_PORT"] = str(free_port())
        return receiver

    def use_dialler(self, simulator: Simulator) -> None:
        """Let the simulator's dialler call, with the contact list that the campaign worker's settings then use."""
        simulator.configure(dials_per_s=pace.DIALS_PER_S)
        self._environment |= {
            "STREAM_SCORER_CALLBACKS__TARGET": "genesys-outbound",
            "STREAM_SCORER_CALLBACKS__CONTACT_LIST_ID": simulator.config.contact_list_id,
            "STREAM_SCORER_CALLBACKS__COLUMNS": json.dumps(_LIST_COLUMNS),
            "STREAM_SCORER_CALLBACKS__ADMIN_PORT": str(free_port()),
        }

    @property
    def settings(self) -> Settings:
        """Settings of the workers, loaded from the same environment variables."""
        return load_settings(environ=self._environment)

    def start_scorer(self, name: str) -> tuple[WorkerProcess, str]:
        """Start a scoring worker (``stream-scorer run``), and return it with the URL of its admin port.

        Raises:
            LocalError: the process cannot be started.
        """
        port = free_port()
        own = {"STREAM_SCORER_KAFKA__INSTANCE_ID": name, "STREAM_SCORER_ADMIN__PORT": str(port)}
        worker = self._start(name, ["run"], own)
        self._workers.append(worker)
        return worker, f"http://{ADMIN_HOST}:{port}"

    def start_deliverer(self) -> WorkerProcess:
        """Start the campaign worker (``stream-scorer callbacks``).

        Raises:
            LocalError: the process cannot be started.
        """
        worker = self.start_command("deliverer", ["callbacks"])
        self._workers.append(worker)
        return worker

    def start_command(self, name: str, arguments: Sequence[str]) -> WorkerProcess:
        """Start a command of ``stream-scorer`` that ends by itself.

        Raises:
            LocalError: the process cannot be started.
        """
        return self._start(name, arguments, {"STREAM_SCORER_KAFKA__INSTANCE_ID": name})

    def _start(self, name: str, arguments: Sequence[str], own: Mapping[str, str]) -> WorkerProcess:
        folder = self._require_folder()
        environment = {**_only(self._environment), **own}
        process = WorkerProcess(name, arguments, environment, folder / f"{name}.log", folder)
        with self._interrupts.deferred():
            self.processes.append(process)
            self._processes.callback(process.end)
            process.start()
        return process

    def require_running(self) -> None:
        """Check that no worker has ended by itself. A command of the operator's desk may.

        Raises:
            LocalError: one has.
        """
        for process in self._workers:
            process.require_running()

    def close(self, *, keep: bool) -> str | None:
        """End everything. The caller must prevent interruption by signals.

        Args:
            keep: leave Kafka, if it runs, and the folder.

        Returns:
            Instructions for the user about them; None if nothing is left.

        Raises:
            LocalError: the folder could not be removed.
        """
        with ExitStack() as last:
            if keep and self._kafka is not None and self._kafka.status() is not None:
                self._ground.pop_all()
                kept = self._how_to_look(self._kafka)
            else:
                last.push(self._ground)
                kept = None
            self._processes.close()
        return kept

    def _how_to_look(self, kafka: EmbeddedKafka) -> str:
        folder = shlex.quote(str(self._require_folder()))
        return (
            f"Kafka is left running on {kafka.bootstrap_servers}. To look around:\n"
            f"  export STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS={kafka.bootstrap_servers}\n"
            "  stream-scorer reconcile\n"
            "To stop it and remove its data and the workers' logs:\n"
            f"  stream-scorer kafka stop --data-dir {folder}/kafka && rm -r {folder}"
        )

    def _require_folder(self) -> Path:
        if self._folder is None:
            raise LocalError("the demo has no folder yet")
        return self._folder


def _only(ours: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process without the user's settings, which may be those of a real worker."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("STREAM_SCORER_", "GENESYS_"))}
    return {**others, **ours}


def _end_kafka(kafka: EmbeddedKafka) -> None:
    # By force: its data are deleted next, so a graceful stop would only take time.
    if kafka.status() is not None:
        kafka.kill()
    # Without /proc, the microseconds between its start and its record are not covered.
    mark = str(kafka.config.properties_file)
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if entry.name.isdigit() and is_alive(int(entry.name), mark):
            send(int(entry.name), mark, signal.SIGKILL)
            ended_within(int(entry.name), mark, _KILLED_WITHIN_S)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise LocalError(f"{folder} could not be removed: delete it by hand")
