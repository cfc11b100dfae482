"""Operating system functions of the embedded Kafka: process identification, signals, free ports."""

from __future__ import annotations

import errno
import os
import random
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stream_scorer.errors import LocalError

if TYPE_CHECKING:
    import signal
    from collections.abc import Collection

LOOPBACK = "127.0.0.1"
# Between its choice and its use, a free port may be taken by another program: then others are chosen.
DRAWS = 3

_PROC = "/proc"


class PortTakenError(LocalError):
    """The port is in use by another program."""


def is_alive(pid: int, mark: str) -> bool:
    """Return whether `pid` is a live process with `mark` among its arguments.

    The mark names the data folder: a stored process id alone proves nothing, since ids are reused. A process that has
    ended and is not reaped yet has no arguments, and so counts as ended.
    """
    return f" {mark} " in f" {_command_line(pid)} "


def _command_line(pid: int) -> str:
    proc = Path(_PROC)
    if (proc / "self" / "cmdline").exists():
        try:
            return os.fsdecode((proc / str(pid) / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" "))
        except OSError:
            return ""
    done = subprocess.run(  # noqa: S603  # fixed arguments  # nosec B603, B607
        ["ps", "-ww", "-o", "command=", "-p", str(pid)],  # noqa: S607  # noqa: S607  # the path of ps differs
        capture_output=True,
        check=False,
    )
    return os.fsdecode(done.stdout).strip()


def send(pid: int, mark: str, number: signal.Signals) -> None:
    """Send a signal, if the process still has the mark."""
    if is_alive(pid, mark):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise LocalError(
                f"the embedded Kafka (process {pid}) belongs to another user: stop it as that user"
            ) from error


def ended_within(pid: int, mark: str, limit_s: float) -> bool:
    """Wait until the process has ended; return False after the time limit."""
    deadline = time.monotonic() + limit_s
    while is_alive(pid, mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def port_is_free(port: int) -> bool:
    """Return whether a server could listen on this port of the loopback interface now.

    Raises:
        LocalError: the port cannot be used by this user (below 1024), or is not a port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the Java runtime does: a port with connections in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OverflowError as error:
            raise LocalError(f"--port {port} is no port: choose 1024 to 65535") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise LocalError(f"--port {port} cannot be used: {error.strerror}") from error
    return True


def free_port(avoid: Collection[int] = ()) -> int:
    """Return a free port that is not in `avoid`, outside the ephemeral range.

    A port of that range (such as binding port 0 gives) can be taken by any client's connection while Kafka restarts. A
    client that retries the connection can even connect to itself.
    """
    draw = random.SystemRandom()
    for _attempt in range(200):
        port = draw.randrange(20_000, 32_000)
        if port not in avoid and port_is_free(port):
            return port
    raise LocalError("no free port between 20000 and 32000 on this machine")
