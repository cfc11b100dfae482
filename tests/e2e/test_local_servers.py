"""Common parts of simulator and receiver: small responses are sent at once; a request is one line on the terminal."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import requests

from stream_scorer.local.http_server.asgi import AsgiServer
from stream_scorer.local.http_server.process import listen
from stream_scorer.runtime.admin_server import AdminServer

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z 127\.0\.0\.1 (\w+) (\S+) (\d{3}|-) (\d+) ms")


async def nodelay(scope: Any, _receive: Any, send: Any) -> None:
    """Answer with the option of the request's own connection."""
    if scope["path"] == "/drop":
        scope["state"]["transport"].abort()
        return
    own = scope["state"]["transport"].get_extra_info("socket")
    value = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(value).encode()})


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def url(lines: list[str]) -> Iterator[str]:
    ready = threading.Event()
    with listen("the server", "127.0.0.1", 0) as listener:
        server = AsgiServer(nodelay, ready.set, lines.append)
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
        thread.start()
        assert ready.wait(30)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = server.force_exit = True
        thread.join(10)


def test_small_responses_are_sent_immediately(url: str) -> None:
    assert int(requests.get(url, timeout=10).text) != 0


def test_a_line_for_each_request(url: str, lines: list[str]) -> None:
    requests.get(f"{url}/a%0Ab?token=hush", headers={"Authorization": "Bearer hush"}, timeout=10)
    with pytest.raises(requests.ConnectionError):
        requests.post(f"{url}/drop", timeout=10)
    found = [LINE.fullmatch(line) for line in lines]
    assert [one and one.groups()[:3] for one in found] == [("GET", "/a%0Ab", "200"), ("POST", "/drop", "-")]


def test_the_admin_port_sends_responses_immediately(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[int] = []

    def live() -> None:
        options.extend(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in accepted)

    accepted: list[socket.socket] = []
    server = AdminServer("127.0.0.1", 0, live=live, ready=lambda: None, metrics=lambda _: ("text/plain", b""))
    with server:
        assert server._server is not None
        get_request = server._server.get_request

        def noted() -> tuple[socket.socket, Any]:
            found = get_request()
            accepted.append(found[0])
            return found

        monkeypatch.setattr(server._server, "get_request", noted)
        assert requests.get(f"http://127.0.0.1:{server.port}/livez", timeout=10).text == "ok\n"
    assert options
    assert all(options)


@pytest.mark.parametrize(("command", "path"), [("simulate", "/oauth/token"), ("receive", "/callbacks")])
def test_the_commands_print_requests(command: str, path: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_scorer", command, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", first)
        assert found, first
        status = requests.post(f"{found[0]}{path}?x=hush", data=b"hush", timeout=10).status_code
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    printed = [match.groups()[:3] for line in rest.splitlines() if (match := LINE.fullmatch(line))]
    assert printed == [("POST", path, str(status))]
    assert "hush" not in rest
    assert "Traceback" not in rest
