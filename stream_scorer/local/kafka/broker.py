"""Local Apache Kafka, from pip packages alone: start, discovery, stop.

Theory of operation: one Kafka a data folder. Start and stop hold the folder's lock. `state.json` holds process and port
of the last start; it is valid only if that process runs with this folder's mark among its arguments. The process works
in the data folder and uses relative file names, so the folder's name may contain characters that Kafka or Java would
misread. It has its own session: it outlives its terminal and does not receive its Ctrl-C.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

from stream_scorer.errors import LocalError
from stream_scorer.local.files import folder_lock, replace_file
from stream_scorer.local.kafka.config import DEFAULT_PORT, LOGGING, KafkaConfig, server_properties
from stream_scorer.local.kafka.java import failed_start, format_records, java_command, java_environment
from stream_scorer.local.kafka.process import (
    DRAWS,
    PortTakenError,
    ended_within,
    free_port,
    is_alive,
    port_is_free,
    send,
)
from stream_scorer.local.kafka.readiness import Running, is_ready, probe_client

if TYPE_CHECKING:
    from types import TracebackType

    from stream_scorer.local.kafka.jars import Progress


def quiet_logger(_message: str) -> None:
    """Discard progress messages."""


class EmbeddedKafka(AbstractContextManager["EmbeddedKafka"]):
    """Kafka of one data folder. As a context manager it stops at the end what it started.

    Every method can be called from any process, since the state is in the folder and not in the object.
    """

    def __init__(self, config: KafkaConfig | None = None, progress: Progress = quiet_logger) -> None:
        self.config = config or KafkaConfig()
        self._progress = progress
        self._mark = self.config.process_mark
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """Bootstrap servers for clients.

        Raises:
            LocalError: Kafka is not running.
        """
        return self._require().bootstrap_servers

    @property
    def log_files(self) -> str:
        """Path of Kafka's log."""
        return str(self.config.log_file)

    def start(self, progress: Progress | None = None) -> Running:
        """Start Kafka, unless it runs on this folder already; return when it accepts clients.

        Args:
            progress: called with messages about the current step; the constructor's by default.

        Raises:
            LocalError: the port is in use, the extra is missing, the first fetch has no network, a file cannot be
                written, or Kafka ended or did not answer (the line has its reason).
        """
        with folder_lock(self.config.data_dir, "kafka"):
            found = self.status()
            if found is None:
                return self._start(progress or self._progress)
            self._check_port(found)
            self._await_clients(found)
            return found

    def launch(self, progress: Progress | None = None) -> None:
        """Start Kafka, unless it runs, without waiting: of several nodes, none answers before a majority runs.

        Raises:
            LocalError: as `start`, except for a Kafka that ends or does not answer.
        """
        with folder_lock(self.config.data_dir, "kafka"):
            found = self.status()
            if found is None:
                self._launch(progress or self._progress)
            else:
                self._check_port(found)

    def status(self) -> Running | None:
        """Return the running Kafka of this folder; None if there is none."""
        last = self._last_start()
        return last if last is not None and is_alive(last.pid, self._mark) else None

    def stop(self) -> bool:
        """Stop Kafka gracefully, by force after `stop_timeout_s`. Return whether it was running."""
        if not self.config.data_dir.exists():
            return False  # without creating the folder
        with folder_lock(self.config.data_dir, "kafka"):
            found = self.status()
            if found is not None:
                send(found.pid, self._mark, signal.SIGTERM)
                send(found.pid, self._mark, signal.SIGCONT)  # a paused process handles no other signal
                if not ended_within(found.pid, self._mark, self.config.stop_timeout_s):
                    self._kill(found)
            self._collect()
            return found is not None

    def kill(self) -> None:
        """Kill Kafka without a shutdown (SIGKILL); its data stay for the next start."""
        self._kill(self._require())
        self._collect()

    def pause(self) -> None:
        """Suspend the process (SIGSTOP): connections stay open without an answer."""
        send(self._require().pid, self._mark, signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused Kafka (SIGCONT)."""
        send(self._require().pid, self._mark, signal.SIGCONT)

    def wait(self) -> None:
        """Wait until Kafka has ended, for whatever reason."""
        found = self.status()
        while found is not None and not ended_within(found.pid, self._mark, limit_s=3600):
            continue

    def _check_port(self, found: Running) -> None:
        if self.config.port not in (None, 0, found.port):
            raise LocalError(
                f"a Kafka with this data folder ({self.config.data_dir}) runs on port {found.port} already, not on "
                f"{self.config.port}: stop it first (stream-scorer kafka stop), or give another --data-dir"
            )

    def _start(self, report: Progress) -> Running:
        draws = DRAWS if self.config.controller_port is None else 1
        while True:
            started = self._launch(report)
            draws -= 1
            try:
                self._await_clients(started)
            except BaseException as error:  # a Ctrl-C too: do not leave a started process behind
                self._kill(started)
                self._collect()
                if not draws or not isinstance(error, PortTakenError):
                    raise
            else:
                return started

    def _launch(self, report: Progress) -> Running:
        config = self.config
        port = self._choose_port()
        command = java_command(config, report)
        controller_port = config.controller_port or free_port()
        replace_file(config.logging_file, LOGGING)
        if not config.records_dir.exists():
            report("preparing the data folder")
            format_records(config, command, port=port, controller_port=controller_port)
        replace_file(
            config.properties_file,
            server_properties(config, port=port, controller_port=controller_port, records_dir=config.records_dir),
        )
        report("starting Apache Kafka")
        return self._spawn([*command, "kafka.Kafka", config.properties_file.name], port)

    def _choose_port(self) -> int:
        last = self._last_start()
        if self.config.port == 0:
            return last.port if last is not None and port_is_free(last.port) else free_port()
        port = self.config.port or DEFAULT_PORT
        if not port_is_free(port):
            raise PortTakenError(f"port {port} is taken by another program: stop that, or choose another with --port")
        return port

    def _spawn(self, command: list[str], port: int) -> Running:
        log_file = self.config.log_file
        try:
            if log_file.exists():
                log_file.replace(log_file.with_name(log_file.name + ".1"))
            with log_file.open("wb") as log:
                self._child = subprocess.Popen(  # noqa: S603  # local program  # nosec B603
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.config.data_dir,
                    env=java_environment(),
                    start_new_session=True,
                )
        except OSError as error:
            raise LocalError(f"Kafka could not be started: {error.strerror} ({error.filename})") from error
        started = Running(self._child.pid, port)
        replace_file(self.config.state_file, json.dumps(asdict(started)))
        # Immediately after its start a process has no arguments yet. Another process would then consider it ended, and
        # start a second Kafka on the same data.
        while not is_alive(started.pid, self._mark) and self._child.poll() is None:
            time.sleep(0.001)
        return started

    def _await_clients(self, running: Running) -> None:
        deadline = time.monotonic() + self.config.start_timeout_s
        client = probe_client(running)
        while not is_ready(client, self.config.node_id):
            self._collect_if_ended()
            if not is_alive(running.pid, self._mark):
                raise failed_start("Kafka ended at its start", self.config)
            if time.monotonic() > deadline:
                after = f"after {self.config.start_timeout_s:g} s"
                silent_one = f"Kafka (process {running.pid}) does not answer on {running.bootstrap_servers} {after}"
                raise failed_start(silent_one, self.config)

    def _last_start(self) -> Running | None:
        try:
            state = json.loads(self.config.state_file.read_text(encoding="utf-8"))
            return Running(pid=int(state["pid"]), port=int(state["port"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # never started, or written by another program

    def _require(self) -> Running:
        found = self.status()
        if found is None:
            raise LocalError(f"no embedded Kafka runs on {self.config.data_dir}: stream-scorer kafka start")
        return found

    def _kill(self, running: Running) -> None:
        send(running.pid, self._mark, signal.SIGKILL)
        ended_within(running.pid, self._mark, self.config.stop_timeout_s)

    def _collect(self) -> None:
        """Reap the child process, which would otherwise stay in the process table."""
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _collect_if_ended(self) -> None:
        if self._child is not None:
            self._child.poll()
