"""Start of local servers: the socket, the process, and errors of both."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import selectors
import socket
import subprocess
import sys
from pathlib import Path

import stream_scorer
from stream_scorer.errors import LocalError, extra_command

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0


class ServerProcess:
    """Server in a process of its own, which ends with this process, however it ends."""

    def __init__(self, what: str, module: str) -> None:
        """Set the name for errors and the module, which calls `local.http_server.asgi.serve_order`."""
        self._what, self._module = what, module
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    def start(self, listener: socket.socket, config: object) -> None:
        """Start the process and return once it answers requests on this socket; the caller closes its copy.

        Raises:
            LocalError: the process does not start.
        """
        search = os.pathsep.join(filter(None, (str(Path(stream_scorer.__file__).parents[1]), os.getenv("PYTHONPATH"))))
        process = self._process = subprocess.Popen(  # noqa: S603 - a module of this package  # nosec B603
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(listener.fileno(),),
            env={**os.environ, "PYTHONPATH": search},
            start_new_session=True,  # Ctrl-C must reach the parent only, which needs the server to finish its work
        )
        try:
            self._hand_over(process, {"fd": listener.fileno(), "config": config})
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the process, even during a request; without a process, do nothing."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _hand_over(self, process: subprocess.Popen[bytes], order: dict[str, object]) -> None:
        """Send the order to the new process and wait until it serves."""
        if process.stdin is None or process.stdout is None:
            raise LocalError(f"{self._what} was started without pipes")
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended already, which the next line detects
        with process.stdout as answers, selectors.DefaultSelector() as selector:
            selector.register(answers, selectors.EVENT_READ)
            if not selector.select(START_TIMEOUT_S):
                raise LocalError(f"{self._what} did not start within {START_TIMEOUT_S:g} s")
            if answers.readline() != b"ready\n":
                raise LocalError(f"{self._what} ended with exit code {process.wait()}; see its output above")


def require_extra(what: str) -> None:
    """Raise a LocalError if the libraries of the extra [local] are not installed."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalError(f"{what} needs {' and '.join(missing)}: {extra_command('local')}")


def listen(what: str, host: str, port: int) -> socket.socket:
    """Return a listening socket. It is bound before the server starts, so that a port in use is detected at once.

    Raises:
        LocalError: the port is in use, or the host is not an address of this machine.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"port {port} on {host} is taken: end what uses it, or choose another with --port"
        else:
            text = f"{what} cannot listen on {host} port {port}: {error.strerror or type(error).__name__}"
        raise LocalError(text) from None


def url_of(host: str, port: int) -> str:
    """Return ``http://host:port``, with brackets around an IPv6 address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
