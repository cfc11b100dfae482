"""Launcher of the simulator: in a process of its own, in a thread, or in the foreground."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from stream_scorer.errors import LocalError
from stream_scorer.local.http_server.process import (
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    ServerProcess,
    listen,
    require_extra,
    url_of,
)
from stream_scorer.local.simulator.config import SimulatorConfig
from stream_scorer.local.simulator.control import SimulatorControl

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from stream_scorer.local.simulator.scenario import Scenario
    from stream_scorer.local.simulator.server import SimulatorServer

HOST = "127.0.0.1"
WHAT = "the simulator"


class _OwnedSimulator(SimulatorControl, ABC):
    """Simulator that this object starts and stops. After a stop it can be started again, on the same port."""

    def __init__(self, config: SimulatorConfig | None = None, *, host: str = HOST, port: int = 0) -> None:
        """Configure it, without a start. Port 0: any free port."""
        super().__init__("")
        self.config = config or SimulatorConfig()
        self._host, self._port = host, port

    @property
    def base_url(self) -> str:
        """URL of API and token endpoint, without a trailing slash."""
        return url_of(self._host, self._port)

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a worker for this simulator, with the secret."""
        return worker_environment(self.base_url, self.config)

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether the server is running."""

    def start(self) -> Self:
        """Start the server and return once it answers requests; if it is running, return immediately.

        Raises:
            LocalError: the extra [local] is missing, the port is in use, or the server does not start.
        """
        if self.running:
            return self
        require_extra(WHAT)
        with listen(WHAT, self._host, self._port) as listener:
            self._port = listener.getsockname()[1]
            self._serve(listener)
        return self

    @abstractmethod
    def stop(self) -> None:
        """Stop the server, even during a request; if it is not running, do nothing."""

    @abstractmethod
    def _serve(self, listener: socket.socket) -> None:
        """Serve on this socket and return once requests are answered; the caller closes its copy of the socket."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class Simulator(_OwnedSimulator):
    """Simulator in a process of its own, which ends with this process, however it ends."""

    def __init__(self, config: SimulatorConfig | None = None, *, host: str = HOST, port: int = 0) -> None:
        """Configure it, without a start. Port 0: any free port."""
        super().__init__(config, host=host, port=port)
        self._process = ServerProcess(WHAT, "stream_scorer.local.simulator")

    @property
    def running(self) -> bool:
        return self._process.running

    def stop(self) -> None:
        self._session.close()
        self._process.stop()

    def _serve(self, listener: socket.socket) -> None:
        self._process.start(listener, self.config.model_dump(mode="json"))


class ThreadedSimulator(_OwnedSimulator):
    """Simulator in a thread: starts fastest, but shares the interpreter lock with the code under test."""

    _thread: threading.Thread | None = None
    _server: SimulatorServer | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        self._session.close()
        if thread is not None and self._server is not None:
            self._server.should_exit = self._server.force_exit = True
            thread.join(STOP_TIMEOUT_S)

    def _serve(self, listener: socket.socket) -> None:
        from stream_scorer.local.simulator.server import SimulatorServer  # noqa: PLC0415 - needs the extra

        ready = threading.Event()
        server = self._server = SimulatorServer(self.config, ready.set)
        own = listener.dup()
        self._thread = threading.Thread(target=lambda: server.run(sockets=[own]), name="simulator", daemon=True)
        self._thread.start()
        if not ready.wait(START_TIMEOUT_S):
            raise LocalError(f"the simulator did not start within {START_TIMEOUT_S:g} s")


def serve(
    config: SimulatorConfig,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    *,
    scenario: Scenario | None = None,
    report: Callable[[str], None] = lambda _line: None,
) -> None:
    """Serve in this process until SIGINT or SIGTERM.

    Args:
        config: configuration of the simulated platform.
        host: address to listen on.
        port: port to listen on; 0: any free port.
        on_ready: called with the base URL.
        scenario: played from the first request on.
        report: called with a line at the start and end of each step of the scenario, and for each request.

    Raises:
        LocalError: the extra [local] is missing, or the port is in use.
    """
    require_extra(WHAT)
    from stream_scorer.local.simulator.server import SimulatorServer  # noqa: PLC0415 - needs the extra

    listener = listen(WHAT, host, port)
    base_url = url_of(host, listener.getsockname()[1])
    server = SimulatorServer(config, lambda: on_ready(base_url), report)
    if scenario is not None:
        server.api.play(scenario, report)
    server.run(sockets=[listener])


def worker_environment(base_url: str, config: SimulatorConfig) -> dict[str, str]:
    """Return the environment variables of a worker for a simulator, with the secret."""
    return {
        "STREAM_SCORER_GENESYS__BASE_URL": base_url,
        "STREAM_SCORER_GENESYS__LOGIN_URL": base_url,
        "STREAM_SCORER_GENESYS__CLIENT_ID": config.client_id,
        "STREAM_SCORER_GENESYS__CLIENT_SECRET": config.client_secret,
        "STREAM_SCORER_GENESYS__MODEL_ID": config.model_id,
    }
