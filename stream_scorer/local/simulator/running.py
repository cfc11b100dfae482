"""Starts and stops the simulator: in a process of its own, in a thread, or in the foreground."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

import stream_scorer
from stream_scorer.errors import LocalError
from stream_scorer.local.simulator.config import SimulatorConfig
from stream_scorer.local.simulator.control import SimulatorControl

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.local.simulator.server import SimulatorServer

HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0


class _OwnedSimulator(SimulatorControl, ABC):
    """A simulator that this object starts and stops. After a stop it can be started again, on the same port."""

    def __init__(self, config: SimulatorConfig | None = None, *, host: str = HOST, port: int = 0) -> None:
        """Starts nothing yet. Port 0: any that is free."""
        super().__init__("")
        self.config = config or SimulatorConfig()
        self._host, self._port = host, port

    @property
    def base_url(self) -> str:
        """Where API and token endpoint are, without a slash at the end."""
        return url_of(self._host, self._port)

    def environment(self) -> dict[str, str]:
        """The environment variables that point the worker at this simulator, its secret among them."""
        return worker_environment(self.base_url, self.config)

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether it was started and has not ended since."""

    def start(self) -> Self:
        """Returns as soon as requests are answered; at once where it runs already.

        Raises:
            LocalError: the extra [local] is missing, the port is taken, or it does not start.
        """
        if self.running:
            return self
        require_extra()
        with listen(self._host, self._port) as listener:
            self._port = listener.getsockname()[1]
            self._serve(listener)
        return self

    @abstractmethod
    def stop(self) -> None:
        """Ends it, whatever it is doing; harmless where nothing runs."""

    @abstractmethod
    def _serve(self, listener: socket.socket) -> None:
        """Returns when requests to this socket are answered; the caller closes its copy of it."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class Simulator(_OwnedSimulator):
    """A simulator in a process of its own, which ends with this one however this one ends."""

    _process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended since."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends it, whatever it is doing; harmless where nothing runs."""
        process, self._process = self._process, None
        self._session.close()
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _serve(self, listener: socket.socket) -> None:
        search = os.pathsep.join(filter(None, (str(Path(stream_scorer.__file__).parents[1]), os.getenv("PYTHONPATH"))))
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", "stream_scorer.local.simulator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(listener.fileno(),),
            env={**os.environ, "PYTHONPATH": search},
            start_new_session=True,  # Ctrl-C is for the parent: it still needs the simulator to finish its work
        )
        try:
            _hand_over(process, {"fd": listener.fileno(), "config": self.config.model_dump(mode="json")})
        except BaseException:
            self.stop()
            raise


class ThreadedSimulator(_OwnedSimulator):
    """A simulator in a thread: quickest to start, but it shares the interpreter lock with whatever it is to test."""

    _thread: threading.Thread | None = None
    _server: SimulatorServer | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended since."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Ends it, whatever it is doing; harmless where nothing runs."""
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


def serve(config: SimulatorConfig, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serves in this process until SIGINT or SIGTERM; `on_ready` is called with the base URL.

    Raises:
        LocalError: the extra [local] is missing, or the port is taken.
    """
    require_extra()
    from stream_scorer.local.simulator.server import SimulatorServer  # noqa: PLC0415 - needs the extra

    listener = listen(host, port)
    base_url = url_of(host, listener.getsockname()[1])
    SimulatorServer(config, lambda: on_ready(base_url)).run(sockets=[listener])


def worker_environment(base_url: str, config: SimulatorConfig) -> dict[str, str]:
    """The environment variables that point the worker at a simulator, its secret among them."""
    return {
        "STREAM_SCORER_GENESYS__BASE_URL": base_url,
        "STREAM_SCORER_GENESYS__LOGIN_URL": base_url,
        "STREAM_SCORER_GENESYS__CLIENT_ID": config.client_id,
        "STREAM_SCORER_GENESYS__CLIENT_SECRET": config.client_secret,
        "STREAM_SCORER_GENESYS__MODEL_ID": config.model_id,
    }


def url_of(host: str, port: int) -> str:
    """``http://host:port``, with brackets around an IPv6 address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def require_extra() -> None:
    """Raises a LocalError where the libraries of the extra [local] are not installed."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalError(f"the simulator needs {' and '.join(missing)}: pip install 'stream-scorer[local]'")


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections. Bound before anything is started, so a taken port is known at once.

    Raises:
        LocalError: the port is taken, or the host is none of this machine's.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"port {port} on {host} is taken: end what uses it, or choose another with --port"
        else:
            text = f"the simulator cannot listen on {host} port {port}: {error.strerror or error}"
        raise LocalError(text) from None
    return listener


def _hand_over(process: subprocess.Popen[bytes], order: dict[str, object]) -> None:
    """Gives the new process its order and waits until it serves."""
    if process.stdin is None or process.stdout is None:
        raise LocalError("the simulator was started without pipes")
    try:
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it has ended already: the next line finds that out
    with process.stdout as answers, selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        if not selector.select(START_TIMEOUT_S):
            raise LocalError(f"the simulator did not start within {START_TIMEOUT_S:g} s")
        if answers.readline() != b"ready\n":
            raise LocalError(f"the simulator ended with exit code {process.wait()}; its last words stand above")
