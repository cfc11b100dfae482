"""Launcher of the simulator: in a process of its own, in a thread, or in the foreground."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from stream_scorer.errors import LocalError
from stream_scorer.local.http_server.launcher import HOST, OwnedServer, serve_in_foreground
from stream_scorer.local.http_server.process import START_TIMEOUT_S, STOP_TIMEOUT_S
from stream_scorer.local.simulator.config import SimulatorConfig
from stream_scorer.local.simulator.control import SimulatorControl

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from stream_scorer.local.simulator.scenario import Scenario
    from stream_scorer.local.simulator.server import SimulatorServer


class Simulator(OwnedServer[SimulatorConfig], SimulatorControl):
    """Simulator that this object starts and stops. Port 0: any free port."""

    def __init__(self, config: SimulatorConfig | None = None, *, host: str = HOST, port: int = 0) -> None:
        super().__init__(config or SimulatorConfig(), host=host, port=port)

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a worker for this simulator, with the secret."""
        return worker_environment(self.base_url, self.config)


class ThreadedSimulator(Simulator):
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

    def make_server(base_url: str) -> SimulatorServer:
        from stream_scorer.local.simulator.server import SimulatorServer  # noqa: PLC0415 - needs the extra

        server = SimulatorServer(config, lambda: on_ready(base_url), report)
        if scenario is not None:
            server.api.play(scenario, report)
        return server

    serve_in_foreground("the simulator", host, port, make_server)


def worker_environment(base_url: str, config: SimulatorConfig) -> dict[str, str]:
    """Return the environment variables of a worker for a simulator, with the secret."""
    return {
        "STREAM_SCORER_GENESYS__BASE_URL": base_url,
        "STREAM_SCORER_GENESYS__LOGIN_URL": base_url,
        "STREAM_SCORER_GENESYS__CLIENT_ID": config.client_id,
        "STREAM_SCORER_GENESYS__CLIENT_SECRET": config.client_secret,
        "STREAM_SCORER_GENESYS__MODEL_ID": config.model_id,
    }
