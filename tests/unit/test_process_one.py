"""SIGTERM during the start of process 1, which the kernel drops unless there is a handler."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

WITHIN_S = 10.0  # the startup itself would take 30 s
NAMESPACE = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--pid", "--fork", "--kill-child"]


def has_namespaces() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "true"], capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not has_namespaces(), reason="no namespaces for processes here")


@pytest.fixture
def hanging_broker() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


def started(broker: socket.socket, command: str) -> subprocess.Popen[str]:
    environ = {
        **os.environ,
        "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{broker.getsockname()[1]}",
        "STREAM_SCORER_CALLBACKS__TARGET": "log",
        "STREAM_SCORER_GENESYS__BASE_URL": "http://127.0.0.1:9",
        **dict.fromkeys(("GENESYS_CLIENT_ID", "GENESYS_CLIENT_SECRET", "GENESYS_MODEL_ID"), "x"),
    }
    line = [*NAMESPACE, sys.executable, "-m", "stream_scorer", *command.split()]
    return subprocess.Popen(line, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def inner(process: subprocess.Popen[str]) -> int:
    """Process 1 of the namespace, as this one knows it."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


@pytest.mark.parametrize("command", ["run", "callbacks", "topics create"])
def test_sigterm_ends_a_start_that_waits_for_kafka(hanging_broker: socket.socket, command: str) -> None:
    process = started(hanging_broker, command)
    try:
        connection, _ = hanging_broker.accept()  # the main thread is inside a call of the client now
        with connection:
            os.kill(inner(process), signal.SIGTERM)
            output, _ = process.communicate(timeout=WITHIN_S)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in output
