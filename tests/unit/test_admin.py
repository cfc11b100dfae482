from __future__ import annotations

import http.client
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from stream_scorer.errors import LocalError
from stream_scorer.runtime.admin_server import MAX_CONNECTIONS, AdminServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Service:
    """Results of the callables of the test server."""

    live: str | None = None
    ready: str | None = None
    metrics = b"# nothing\n"
    accepted = ""

    def exposition(self, accept: str) -> tuple[str, bytes]:
        self.accepted = accept
        return "text/plain; version=1", self.metrics


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def port(service: Service) -> Iterator[int]:
    server = AdminServer(
        "127.0.0.1", 0, live=lambda: service.live, ready=lambda: service.ready, metrics=service.exposition
    )
    with server:
        yield server.port


def ask(
    port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode(), {k.lower(): v for k, v in response.getheaders()}
    finally:
        connection.close()


@pytest.mark.parametrize(("path", "field"), [("/livez", "live"), ("/readyz", "ready")])
def test_health_is_ok_or_has_the_reason(service: Service, port: int, path: str, field: str) -> None:
    assert ask(port, path)[:2] == (200, "ok\n")
    setattr(service, field, "circuit open: rate_limited")
    assert ask(port, path)[:2] == (503, "circuit open: rate_limited\n")
    setattr(service, field, None)
    assert ask(port, path)[:2] == (200, "ok\n")


def test_livez_and_readyz_are_independent(service: Service, port: int) -> None:
    service.ready = "draining"
    assert (ask(port, "/livez")[0], ask(port, "/readyz")[0]) == (200, 503)


def test_metrics_are_prometheus_text(service: Service, port: int) -> None:
    service.metrics = b"contacts_total 7\n"
    status, body, headers = ask(port, "/metrics")
    assert (status, body) == (200, "contacts_total 7\n")
    assert headers["content-type"] == "text/plain; version=1"
    assert service.accepted == ""
    ask(port, "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert service.accepted == "application/openmetrics-text; version=1.0.0"


def test_a_query_changes_nothing_and_another_path_is_not_found(port: int) -> None:
    assert ask(port, "/livez?verbose")[0] == 200
    for path in ("/", "/livez/", "/metrics/../livez", "/healthz"):
        assert ask(port, path)[0] == 404


def test_head_has_the_length_and_no_body(port: int) -> None:
    status, body, headers = ask(port, "/livez", "HEAD")
    assert (status, body, headers["content-length"]) == (200, "", "3")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(port: int, method: str) -> None:
    status, _, headers = ask(port, "/livez", method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_no_answer_names_the_server(port: int) -> None:
    for path, method in (("/livez", "GET"), ("/none", "GET"), ("/livez", "POST")):
        assert "server" not in ask(port, path, method)[2]


def test_a_failed_health_check_is_logged_without_its_message_and_the_server_continues(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken() -> str | None:
        raise RuntimeError("secret")

    with AdminServer("127.0.0.1", 0, live=broken, ready=lambda: None, metrics=lambda _: ("text/plain", b"")) as server:
        assert ask(server.port, "/livez")[:2] == (500, "RuntimeError\n")
        assert ask(server.port, "/readyz")[0] == 200
    assert capsys.readouterr() == ("", "")


def test_an_idle_client_does_not_block_others(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)):
        assert ask(port, "/livez")[0] == 200


def await_connection_threads(expected: Callable[[int], bool]) -> None:
    """Wait until their number is as expected: a thread releases its slot shortly before it ends."""
    end_s = time.monotonic() + 5
    while not expected(sum("process_request" in thread.name for thread in threading.enumerate())):
        assert time.monotonic() < end_s
        time.sleep(0.001)


def test_a_peer_with_many_connections_is_limited_and_blocks_no_probe(port: int) -> None:
    peers: list[socket.socket] = []
    scraper = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    scraper.request("GET", "/metrics")
    assert scraper.getresponse().read() == b"# nothing\n"
    own = scraper.sock
    try:
        for _ in range(4):
            # Two less than the limit: the scraper's, and that of the last probe, which may not have ended yet.
            peers += [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(MAX_CONNECTIONS - 3)]
            # Connections are accepted in order, so the peers' are open when this one is answered.
            assert ask(port, "/readyz")[0] == 200
            # Its request is newer than all these connections, so it keeps its own.
            scraper.request("GET", "/livez")
            assert scraper.getresponse().read() == b"ok\n"
            await_connection_threads(lambda number: number <= MAX_CONNECTIONS)
        assert scraper.sock is own
        # The oldest ones were closed, the newest one was not.
        assert peers[0].recv(1) == b""
        peers[-1].sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        assert peers[-1].recv(12) == b"HTTP/1.1 200"
    finally:
        scraper.close()
        for peer in peers:
            peer.close()


def test_a_connection_beyond_the_limit_is_closed_while_an_old_thread_hangs() -> None:
    release, entered = threading.Event(), threading.Semaphore(0)

    def slow() -> str | None:
        entered.release()
        release.wait(30)
        return None

    server = AdminServer("127.0.0.1", 0, live=slow, ready=lambda: None, metrics=lambda _: ("text/plain", b""))
    peers: list[socket.socket] = []
    with server:
        try:
            for _ in range(MAX_CONNECTIONS):
                peers.append(socket.create_connection(("127.0.0.1", server.port), timeout=5))
                peers[-1].sendall(b"GET /livez HTTP/1.1\r\n\r\n")
                assert entered.acquire(timeout=5)
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as refused:
                assert refused.recv(1) == b""
            await_connection_threads(lambda number: number == MAX_CONNECTIONS)
        finally:
            release.set()
            for peer in peers:
                peer.close()


def test_a_taken_port_is_one_line_that_names_the_setting(port: int) -> None:
    second = AdminServer(
        "127.0.0.1", port, live=lambda: None, ready=lambda: None, metrics=lambda _: ("text/plain", b"")
    )
    with pytest.raises(LocalError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*admin\.port"):
        second.start()
    second.stop()


def test_an_address_that_is_not_ours_is_one_line() -> None:
    server = AdminServer("192.0.2.1", 0, live=lambda: None, ready=lambda: None, metrics=lambda _: ("text/plain", b""))
    with pytest.raises(LocalError, match=r"admin\.host"):
        server.start()


def test_stop_releases_the_port_and_the_thread() -> None:
    before = threading.active_count()
    server = AdminServer("127.0.0.1", 0, live=lambda: None, ready=lambda: None, metrics=lambda _: ("text/plain", b""))
    server.start()
    port = server.port
    server.stop()
    server.stop()
    assert (server.port, threading.active_count()) == (0, before)
    again = AdminServer("127.0.0.1", port, live=lambda: None, ready=lambda: None, metrics=lambda _: ("text/plain", b""))
    with again:
        assert ask(port, "/livez")[0] == 200


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with AdminServer("::1", 0, live=lambda: None, ready=lambda: None, metrics=lambda _: ("text/plain", b"")) as server:
        connection = http.client.HTTPConnection("::1", server.port, timeout=5)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()
