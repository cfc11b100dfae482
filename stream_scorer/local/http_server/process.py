"""Starting the servers of this extra: the socket, the process of their own, and what to say where it fails."""

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
from stream_scorer.errors import LocalError

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0


class ServerProcess:
    """A server in a process of its own, which ends with this one however this one ends."""

    def __init__(self, what: str, module: str) -> None:
        """Starts nothing yet; ``what`` names it in errors, ``module`` calls `local.http_server.asgi.serve_order`."""
        self._what, self._module = what, module
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended since."""
        return self._process is not None and self._process.poll() is None

    def start(self, listener: socket.socket, config: object) -> None:
        """Returns when requests to this socket are answered; the caller closes its copy of it.

        Raises:
            LocalError: it does not start.
        """
        search = os.pathsep.join(filter(None, (str(Path(stream_scorer.__file__).parents[1]), os.getenv("PYTHONPATH"))))
        process = self._process = subprocess.Popen(  # noqa: S603 - our own modules  # nosec B603
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(listener.fileno(),),
            env={**os.environ, "PYTHONPATH": search},
            start_new_session=True,  # Ctrl-C is for the parent: it still needs the server to finish its work
        )
        try:
            self._hand_over(process, {"fd": listener.fileno(), "config": config})
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends it, whatever it is doing; harmless where nothing runs."""
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
        """Gives the new process its order and waits until it serves."""
        if process.stdin is None or process.stdout is None:
            raise LocalError(f"{self._what} was started without pipes")
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended already: the next line finds that out
        with process.stdout as answers, selectors.DefaultSelector() as selector:
            selector.register(answers, selectors.EVENT_READ)
            if not selector.select(START_TIMEOUT_S):
                raise LocalError(f"{self._what} did not start within {START_TIMEOUT_S:g} s")
            if answers.readline() != b"ready\n":
                raise LocalError(f"{self._what} ended with exit code {process.wait()}; its last words stand above")


def require_extra(what: str) -> None:
    """Raises a LocalError where the libraries of the extra [local] are not installed."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalError(f"{what} needs {' and '.join(missing)}: pip install 'stream-scorer[local]'")


def listen(what: str, host: str, port: int) -> socket.socket:
    """A socket that accepts connections. Bound before anything is started, so a taken port is known at once.

    Raises:
        LocalError: the port is taken, or the host is none of this machine's.
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
    """``http://host:port``, with brackets around an IPv6 address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
