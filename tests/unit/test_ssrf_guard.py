"""SSRF guard of callbacks: every blocked address in every spelling, and the checks of the URL at startup."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from typing import Any

import pytest
from support_targets import resolves

from stream_scorer.errors import SettingsError
from stream_scorer.http_client.errors import AddressBlocked
from stream_scorer.targets import ssrf_guard
from stream_scorer.targets.ssrf_guard import Guard, blocked_reason, guard_for, why_not_loopback

CLOSED = {
    "0.0.0.0": "unspecified",  # noqa: S104 - an address without a listener
    "0.1.2.3": "unspecified",
    "169.254.0.1": "link-local",
    "169.254.169.254": "link-local",
    "169.254.255.255": "link-local",
    "100.100.100.200": "metadata",
    "168.63.129.16": "metadata",
    "192.0.0.192": "metadata",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "broadcast or reserved",
    "255.255.255.255": "broadcast or reserved",
    "::": "unspecified",
    "fe80::1": "link-local",
    "febf::1": "link-local",
    "fe80::1%1": "link-local",
    "fd00:ec2::254": "metadata",
    "fd00:ec2::23": "metadata",
    "fd20:ce::254": "metadata",
    "fd00:42::42": "metadata",
    "ff02::1": "multicast",
    "::ffff:169.254.169.254": "stands for 169.254.169.254, which is link-local",
    "::ffff:0:a9fe:a9fe": "169.254.169.254",
    "::169.254.169.254": "169.254.169.254",
    "2002:a9fe:a9fe::1": "169.254.169.254",
    "64:ff9b::a9fe:a9fe": "169.254.169.254",
    "64:ff9b:1::a9fe:a9fe": "169.254.169.254",
    "64:ff9b:1:a9fe:00a9:fe00::": "169.254.169.254",
    "2001:0:a9fe:a9fe::1": "169.254.169.254",  # the Teredo server
    "2001:0:1234:5678:0:0:5601:5601": "169.254.169.254",  # the Teredo client, with inverted bits
    "2001:db8::5efe:a9fe:a9fe": "169.254.169.254",  # ISATAP
    "2001:db8::200:5efe:a9fe:a9fe": "169.254.169.254",
    "::ffff:100.100.100.200": "metadata",
    "::ffff:0.0.0.0": "unspecified",
    "64:ff9b::ffff:ffff": "broadcast",
}
OPEN = [
    *("127.0.0.1", "127.8.9.10", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "93.184.216.34", "169.253.1.1"),
    *("192.0.0.191", "::1", "fd00::1", "2606:2800::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::808:808"),
    *("2002:808:808::1", "fd00:ec3::254", "64:ff9b:1::808:808", "64:ff9b:1:808:8:800::"),
]


@pytest.mark.parametrize(("address", "words"), CLOSED.items())
def test_blocked_addresses(address: str, words: str) -> None:
    assert words in str(blocked_reason(ip_address(address)))


@pytest.mark.parametrize("address", OPEN)
def test_allowed_addresses(address: str) -> None:
    assert blocked_reason(ip_address(address)) is None


def test_loopback() -> None:
    for address in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
        assert why_not_loopback(ip_address(address)) is None
    for address in ("10.0.0.1", "::2", "::ffff:10.0.0.1", "64:ff9b::7f00:1"):
        assert "callbacks.allow_http" in str(why_not_loopback(ip_address(address)))


# --- at start


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0xA9.0xFE.0xA9.0xFE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[fe80::1]",
        "0",
        "255.255.255.255",
        "100.100.100.200",
    ],
)
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_closed_address_is_refused_in_every_spelling(host: str, scheme: str) -> None:
    """With the resolver of the system, which parses addresses without a name server."""
    with pytest.raises(SettingsError, match=r"callbacks\.url: .* is refused") as caught:
        guard_for(f"{scheme}://{host}/path-of-t0p-s3cret", allow_http=True)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_name_that_resolves_to_a_closed_address_is_refused() -> None:
    resolve = resolves(innocent_example=["93.184.216.34", "169.254.169.254"])
    with pytest.raises(SettingsError, match=r"innocent\.example is refused: its address 169\.254\.169\.254 is link-lo"):
        guard_for("https://innocent.example/x", allow_http=False, resolve=resolve)


@pytest.mark.parametrize(
    "url", ["http://93.184.216.34/x", "http://10.0.0.1:8080/x", "http://nowhere.example/x", "http://both.example/x"]
)
def test_http_is_allowed_for_loopback_only(url: str) -> None:
    resolve = resolves(both_example=["127.0.0.1", "10.0.0.1"], **{"10_0_0_1": "10.0.0.1"})
    with pytest.raises(SettingsError, match=r"callbacks\.url must begin with https://.*callbacks\.allow_http"):
        guard_for(url, allow_http=False, resolve=resolve)
    guard_for(url, allow_http=True, resolve=resolve)
    guard_for(url.replace("http:", "https:"), allow_http=False, resolve=resolve)


@pytest.mark.parametrize("host", ["127.0.0.1:8091", "localhost", "[::1]:80", "2130706433"])
def test_http_to_loopback_is_allowed(host: str) -> None:
    guard_for(f"http://{host}/x", allow_http=False)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://user:hunter2@example.com/x", "no user or password"),
        ("https://hunter2@example.com/x", "no user or password"),
        ("https://example.com/x#hunter2", "no fragment"),
        ("https://example.com\\@127.0.0.1/hunter2", "no (user|fragment)"),
        ("https://a..b/hunter2", "can be no name"),
        (f"https://{'a' * 64}.com/hunter2", "can be no name"),
    ],
)
def test_an_invalid_callback_url(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        guard_for(url, allow_http=False)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hanging_resolver_does_not_delay_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssrf_guard, "START_CHECK_S", 0.05)
    released = threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        released.wait(10)
        return []

    guard_for("https://example.com/x", allow_http=False, resolve=hang)
    with pytest.raises(SettingsError, match="https://"):
        guard_for("http://example.com/x", allow_http=False, resolve=hang)
    released.set()


# --- when it connects


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_it_connects_to_the_address_that_it_checked() -> None:
    calls: list[str] = []

    def resolve(host: str, port: int, **more: Any) -> list[Any]:
        calls.append(host)
        return resolves(a_example="127.0.0.1")(host, port, **more) if len(calls) == 1 else []

    with listening() as server, Guard(resolve=resolve).connect("a.example", server.getsockname()[1], 5.0) as sock:
        assert sock.getpeername() == server.getsockname()
        assert sock.gettimeout() == 5.0
    assert calls == ["a.example"]


def test_a_name_that_changes_its_address_after_the_start_is_caught() -> None:
    answers = ["93.184.216.34", "169.254.169.254"]

    def resolve(host: str, port: int, **more: Any) -> list[Any]:
        return resolves(a_example=answers.pop(0))(host, port, **more)

    made = guard_for("https://a.example/x", allow_http=False, resolve=resolve)
    with pytest.raises(AddressBlocked, match=r"169\.254\.169\.254 is link-local"):
        made.connect("a.example", 443, 5.0)


def test_http_that_leaves_this_machine_after_the_start_is_caught() -> None:
    answers = ["127.0.0.1", "10.0.0.1"]

    def resolve(host: str, port: int, **more: Any) -> list[Any]:
        return resolves(a_example=answers.pop(0))(host, port, **more)

    made = guard_for("http://a.example/x", allow_http=False, resolve=resolve)
    with pytest.raises(AddressBlocked, match=r"10\.0\.0\.1 is not of this machine"):
        made.connect("a.example", 80, 5.0)


def test_one_blocked_address_blocks_all_addresses_of_a_name() -> None:
    with listening() as server:
        made = Guard(resolve=resolves(a_example=["127.0.0.1", "169.254.169.254"]))
        with pytest.raises(AddressBlocked):
            made.connect("a.example", server.getsockname()[1], 5.0)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):  # no connection was opened
            server.accept()


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    with listening() as server, socket.create_server(("127.0.0.2", 0)) as closed:
        port = server.getsockname()[1]
        closed.close()
        made = Guard(resolve=resolves(a_example=["127.0.0.2", "127.0.0.1"]))
        with made.connect("a.example", port, 5.0) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)


def test_unreachable_and_unknown_names_are_connection_errors() -> None:
    with listening() as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        Guard().connect("127.0.0.1", port, 5.0)
    with pytest.raises(socket.gaierror):
        Guard(resolve=resolves()).connect("a.example", port, 5.0)
    with pytest.raises(OSError, match="no address"):
        Guard(resolve=resolves(a_example=[])).connect("a.example", port, 5.0)
