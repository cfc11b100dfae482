from __future__ import annotations

import http.client
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from stream_scorer.errors import LocalError
from stream_scorer.runtime.admin_server import AdminServer

if TYPE_CHECKING:
    from collections.abc import Iterator


class Service:
    """What the callables of the tests' server say."""

    live: str | None = None
    ready: str | None = None
    metrics = b"# nothing\n"


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def port(service: Service) -> Iterator[int]:
    server = AdminServer(
        "127.0.0.1", 0, live=lambda: service.live, ready=lambda: service.ready, metrics=lambda: service.metrics
    )
    with server:
        yield server.port


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode(), {k.lower(): v for k, v in response.getheaders()}
    finally:
        connection.close()


@pytest.mark.parametrize(("path", "field"), [("/livez", "live"), ("/readyz", "ready")])
def test_health_is_ok_or_says_why_not(service: Service, port: int, path: str, field: str) -> None:
    assert ask(port, path)[:2] == (200, "ok\n")
    setattr(service, field, "circuit open: rate_limited")
    assert ask(port, path)[:2] == (503, "circuit open: rate_limited\n")
    setattr(service, field, None)
    assert ask(port, path)[:2] == (200, "ok\n")


def test_live_and_ready_are_two_questions(service: Service, port: int) -> None:
    service.ready = "draining"
    assert (ask(port, "/livez")[0], ask(port, "/readyz")[0]) == (200, 503)


def test_metrics_are_prometheus_text(service: Service, port: int) -> None:
    service.metrics = b"contacts_total 7\n"
    status, body, headers = ask(port, "/metrics")
    assert (status, body) == (200, "contacts_total 7\n")
    assert headers["content-type"].startswith("text/plain; version=")


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


def test_a_question_that_fails_is_told_without_its_text_and_the_server_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken() -> str | None:
        raise RuntimeError("secret")

    with AdminServer("127.0.0.1", 0, live=broken, ready=lambda: None, metrics=lambda: b"") as server:
        assert ask(server.port, "/livez")[:2] == (500, "RuntimeError\n")
        assert ask(server.port, "/readyz")[0] == 200
    assert capsys.readouterr() == ("", "")


def test_a_client_that_says_nothing_holds_nobody_up(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)):
        assert ask(port, "/livez")[0] == 200


def test_a_taken_port_is_one_line_that_names_the_setting(port: int) -> None:
    second = AdminServer("127.0.0.1", port, live=lambda: None, ready=lambda: None, metrics=lambda: b"")
    with pytest.raises(LocalError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*admin\.port"):
        second.start()
    second.stop()


def test_an_address_that_is_not_ours_is_one_line() -> None:
    server = AdminServer("192.0.2.1", 0, live=lambda: None, ready=lambda: None, metrics=lambda: b"")
    with pytest.raises(LocalError, match=r"admin\.host"):
        server.start()


def test_stop_gives_the_port_and_the_thread_back() -> None:
    before = threading.active_count()
    server = AdminServer("127.0.0.1", 0, live=lambda: None, ready=lambda: None, metrics=lambda: b"")
    server.start()
    port = server.port
    server.stop()
    server.stop()
    assert (server.port, threading.active_count()) == (0, before)
    again = AdminServer("127.0.0.1", port, live=lambda: None, ready=lambda: None, metrics=lambda: b"")
    with again:
        assert ask(port, "/livez")[0] == 200


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with AdminServer("::1", 0, live=lambda: None, ready=lambda: None, metrics=lambda: b"") as server:
        connection = http.client.HTTPConnection("::1", server.port, timeout=5)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()
