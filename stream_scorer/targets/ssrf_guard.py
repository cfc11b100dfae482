"""Where a callback may go, decided on the address that is connected to.

A check of the URL alone proves nothing: a name resolves to one address when it is checked and to another when it is
used, and ``http://2852039166/`` is 169.254.169.254 as well. So a `Guard` is what resolves and connects
(`stream_scorer.http_client.connections.Dial`): the name is resolved once, every address of the answer is checked, and
the socket goes to one of these addresses. TLS still verifies the name. Behind a proxy none of this would hold, so
callbacks use none.

Private networks are open: a campaign manager often stands there. Closed are the addresses where no campaign manager can
be, and where a request from inside a cloud earns credentials.
"""

from __future__ import annotations

import queue
import socket
import threading
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

from stream_scorer.errors import SettingsError
from stream_scorer.http_client.errors import AddressBlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Address: TypeAlias = IPv4Address | IPv6Address
# Like `socket.getaddrinfo`, and its answer.
Resolve: TypeAlias = "Callable[..., list[Any]]"
# Says why callbacks do not go to an address, as in "is link-local"; None where they may.
Objection: TypeAlias = "Callable[[Address], str | None]"

START_CHECK_S: Final = 5.0

_METADATA: Final = "is the metadata service of a cloud"
_CLOSED: Final = tuple(
    (ip_network(network), why)
    for network, why in (
        ("0.0.0.0/8", "is unspecified"),
        ("169.254.0.0/16", "is link-local"),
        ("100.100.100.200/32", _METADATA),  # Alibaba
        ("168.63.129.16/32", _METADATA),  # Azure
        ("192.0.0.192/32", _METADATA),  # Oracle
        ("224.0.0.0/4", "is multicast"),
        ("240.0.0.0/4", "is broadcast or reserved"),
        ("::/128", "is unspecified"),
        ("fe80::/10", "is link-local"),
        ("fd00:ec2::/32", _METADATA),  # Amazon
        ("fd20:ce::254/128", _METADATA),  # Google
        ("fd00:42::42/128", _METADATA),  # Scaleway
        ("ff00::/8", "is multicast"),
    )
)

# IPv6 networks whose addresses stand for an IPv4 address, and by how many bits that is shifted left.
_EMBEDDING: Final = tuple(
    (IPv6Network(network), shift)
    for network, shift in (
        ("::/96", 0),  # IPv4-compatible, deprecated
        ("::ffff:0:0/96", 0),  # IPv4-mapped
        ("::ffff:0:0:0/96", 0),  # IPv4-translated (SIIT)
        ("64:ff9b::/96", 0),  # NAT64
        ("2002::/16", 80),  # 6to4
    )
)
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_TEREDO: Final = IPv6Network("2001::/32")
_ISATAP: Final = (0x5EFE, 0x0200_5EFE)
_32_BITS: Final = 0xFFFF_FFFF


def blocked_reason(address: Address) -> str | None:
    """Say why no callback goes to an address, whatever the settings."""
    for closed, why in _CLOSED:
        if address in closed:
            return why
    for inner in _embedded(address):
        if inside := blocked_reason(inner):
            return f"stands for {inner}, which {inside}"
    return None


def why_not_loopback(address: Address) -> str | None:
    """The same for http without ``callbacks.allow_http``."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if (mapped or address).is_loopback:
        return None
    return "is not of this machine, and http goes nowhere else unless callbacks.allow_http is set"


class Guard:
    """Resolves, checks and connects; for any number of threads."""

    def __init__(self, objection: Objection = blocked_reason, *, resolve: Resolve | None = None) -> None:
        """Take the rule, and what resolves names; None: ``socket.getaddrinfo``."""
        self._objection = objection
        self._resolve = resolve

    def resolve(self, host: str, port: int) -> list[Any]:
        """Return what ``getaddrinfo`` says, once every address of it has been checked.

        One bad address among good ones bars them all: whoever put it there may choose the order as well.

        Raises:
            AddressBarred: a callback must not go there.
            OSError: the name does not resolve.
            UnicodeError: the host can be no name.
        """
        resolve = self._resolve or socket.getaddrinfo
        found = resolve(host.strip("[]"), port, type=socket.SOCK_STREAM)
        for *_, place in found:
            address = ip_address(place[0])
            if why := self._objection(address):
                raise AddressBlocked(f"its address {address} {why}")
        return found

    def connect(self, host: str, port: int, timeout_s: float | None) -> socket.socket:
        """Connect to the first checked address that answers, each within its share of the time.

        Raises:
            AddressBarred: a callback must not go there.
            OSError: the name does not resolve, or no address answers.
        """
        found = self.resolve(host, port)
        failure = OSError("the name has no address")
        for family, kind, protocol, _, place in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(None if timeout_s is None else timeout_s / len(found))
                sock.connect(place)
            except OSError as error:
                sock.close()
                failure = error
            else:
                sock.settimeout(timeout_s)
                return sock
        raise failure


def guard_for(url: str, *, allow_http: bool, resolve: Resolve | None = None) -> Guard:
    """Check ``callbacks.url`` as far as it can be checked at start, and return the guard for its deliveries.

    A name that does not resolve now is no error (https only): it may when a callback is due.

    Raises:
        SettingsError: the URL holds a user, password or fragment, is http without need, or leads where callbacks must
            not go. The URL itself is not shown: its path or query may be a secret.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if "@" in parts.netloc:
        raise SettingsError("callbacks.url must hold no user or password: the signature says who is calling")
    if parts.fragment or "\\" in url:
        raise SettingsError("callbacks.url must have no fragment ('#…') and no backslash")
    only_loopback = parts.scheme != "https" and not allow_http
    try:
        found = _at_start(Guard(resolve=resolve), host, parts.port or (443 if parts.scheme == "https" else 80))
    except AddressBlocked as barred:
        raise SettingsError(f"callbacks.url: {host} is refused: {barred}; callbacks never go there") from None
    except UnicodeError:
        raise SettingsError("callbacks.url: its host can be no name") from None
    if not only_loopback:
        return Guard(resolve=resolve)
    if not found or any(why_not_loopback(address) for address in found):
        raise SettingsError(
            "callbacks.url must begin with https://, since http shows contacts and scores to everyone on the way;"
            " within a network of your own, callbacks.allow_http = true lets it pass"
        )
    return Guard(why_not_loopback, resolve=resolve)


def _at_start(guard: Guard, host: str, port: int) -> list[Address]:
    """The addresses as of now; none where the name does not resolve in time."""
    done: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            done.put(guard.resolve(host, port))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the waiting thread
            done.put(error)

    threading.Thread(target=look_up, name="stream-scorer-resolve", daemon=True).start()
    try:
        found = done.get(timeout=START_CHECK_S)
    except queue.Empty:
        return []
    if isinstance(found, AddressBlocked | UnicodeError):
        raise found
    return [] if isinstance(found, Exception) else [ip_address(place[0]) for *_, place in found]


def _embedded(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address may stand for on its way."""
    if not isinstance(address, IPv6Address):
        return
    number = int(address)
    for network, shift in _EMBEDDING:
        if address in network and number > 1:  # ::1 is no 0.0.0.1
            yield IPv4Address(number >> shift & _32_BITS)
    if address in _LOCAL_NAT64:
        # Nobody here knows the length of its prefix (RFC 6052): 96 bits, or 48 and then 16 bits, 8 of zero, 16 more.
        # Read the wrong way an address begins with zeros, so those say nothing.
        for inner in (number, (number >> 48 & 0xFFFF_0000) | (number >> 40 & 0xFFFF)):
            if inner >> 24 & 0xFF:
                yield IPv4Address(inner & _32_BITS)
    if address in _TEREDO:
        yield IPv4Address(number >> 64 & _32_BITS)
        yield IPv4Address(~number & _32_BITS)
    if number >> 32 & _32_BITS in _ISATAP:
        yield IPv4Address(number & _32_BITS)
