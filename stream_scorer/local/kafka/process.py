"""The operating system's side of the embedded Kafka: which process it is, its signals, and free ports."""

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
# A port that is free when it is drawn can be taken by another program before it is used: then others are drawn.
DRAWS = 3

_PROC = "/proc"


class PortTakenError(LocalError):
    """Another program has the port."""


def is_alive(pid: int, mark: str) -> bool:
    """Whether `pid` is a live process with `mark` among its arguments.

    The mark names the data folder: a number in a file proves nothing, since numbers are used again. A process that
    ended and was not collected yet has no arguments any more, and so counts as ended.
    """
    return f" {mark} " in f" {_command_line(pid)} "


def _command_line(pid: int) -> str:
    proc = Path(_PROC)
    if (proc / "self" / "cmdline").exists():
        try:
            return os.fsdecode((proc / str(pid) / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" "))
        except OSError:
            return ""
    done = subprocess.run(  # noqa: S603  # our own arguments  # nosec B603, B607
        ["ps", "-ww", "-o", "command=", "-p", str(pid)],  # noqa: S607  # where ps stands differs
        capture_output=True,
        check=False,
    )
    return os.fsdecode(done.stdout).strip()


def send(pid: int, mark: str, number: signal.Signals) -> None:
    """Send a signal, if the process is still ours."""
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
    """Wait until the process has ended; False when the limit passed first."""
    deadline = time.monotonic() + limit_s
    while is_alive(pid, mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now.

    Raises:
        LocalError: the port may not be used here at all (below 1024, or no port).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the Java runtime does: a port whose last connections still linger is free.
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
    """Choose a port nobody listens on, and none of those to avoid, outside the range that outgoing connections use.

    A port of that range (what binding port 0 gives) can be taken by any client's connection while Kafka restarts; a
    client that keeps knocking at it can even connect to itself.
    """
    draw = random.SystemRandom()
    for _attempt in range(200):
        port = draw.randrange(20_000, 32_000)
        if port not in avoid and port_is_free(port):
            return port
    raise LocalError("no free port between 20000 and 32000 on this machine")
