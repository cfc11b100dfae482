"""SSRF guard: permitted destinations of callbacks, checked on the address that is connected to.

A check of the URL alone is no protection. A name may resolve to one address for the check and to another for the
connection, and ``http://2852039166/`` is 169.254.169.254 as well. So a `Guard` itself resolves and connects
(`stream_scorer.http_client.connections.Dial`). The name is resolved once, every address of the answer is checked, and
the socket connects to one of these addresses. TLS still verifies the name. A proxy would bypass all of this, so
callbacks use none.

Private networks are permitted: a campaign manager often runs there. Blocked are addresses where no campaign manager can
run, and addresses that give credentials to requests from inside a cloud.
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
# Signature and result of `socket.getaddrinfo`.
Resolve: TypeAlias = "Callable[..., list[Any]]"
# Returns why an address is blocked, such as "is link-local"; None: it is permitted.
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

# IPv6 networks whose addresses embed an IPv4 address, and the bits by which that is shifted left.
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
    """Return why an address is blocked whatever the settings; None: it is permitted."""
    for closed, why in _CLOSED:
        if address in closed:
            return why
    for inner in _embedded(address):
        if inside := blocked_reason(inner):
            return f"stands for {inner}, which {inside}"
    return None


def why_not_loopback(address: Address) -> str | None:
    """Return why an address is blocked for http without ``callbacks.allow_http``; None: it is permitted."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if (mapped or address).is_loopback:
        return None
    return "is not of this machine, and http goes nowhere else unless callbacks.allow_http is set"


class Guard:
    """Guard that resolves, checks and connects; for any number of concurrent threads."""

    def __init__(self, objection: Objection = blocked_reason, *, resolve: Resolve | None = None) -> None:
        """Use this rule and resolver; None: ``socket.getaddrinfo``."""
        self._objection = objection
        self._resolve = resolve

    def resolve(self, host: str, port: int) -> list[Any]:
        """Return the result of ``getaddrinfo``, once every address of it has been checked.

        One blocked address blocks them all: an attacker who added it may choose the order as well.

        Raises:
            AddressBlocked: an address is blocked.
            OSError: the name does not resolve.
            UnicodeError: the host is not a valid name.
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
            AddressBlocked: an address is blocked.
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
    """Check ``callbacks.url`` as far as possible at the start, and return the guard for its deliveries.

    For https, a name that does not resolve now is no error: it may resolve when a callback is due.

    Raises:
        SettingsError: the URL has a user, password or fragment, uses http without permission, or has a blocked
            address. The URL itself is not shown: its path or query may be a secret.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if "@" in parts.netloc:
        raise SettingsError("callbacks.url must hold no user or password: the signature identifies the sender")
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
    """Return the present addresses; empty if the name does not resolve in time."""
    done: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            done.put(guard.resolve(host, port))
        except Exception as error:  # noqa: BLE001 - of any kind: it is raised in the waiting thread
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
    """Yield the IPv4 addresses that an IPv6 address may be translated to."""
    if not isinstance(address, IPv6Address):
        return
    number = int(address)
    for network, shift in _EMBEDDING:
        if address in network and number > 1:  # ::1 is not 0.0.0.1
            yield IPv4Address(number >> shift & _32_BITS)
    if address in _LOCAL_NAT64:
        # The length of its prefix is unknown (RFC 6052): 96 bits, or 48 and then 16 bits, 8 of zero, 16 more. With the
        # wrong length an address begins with zeros, so those are ignored.
        for inner in (number, (number >> 48 & 0xFFFF_0000) | (number >> 40 & 0xFFFF)):
            if inner >> 24 & 0xFF:
                yield IPv4Address(inner & _32_BITS)
    if address in _TEREDO:
        yield IPv4Address(number >> 64 & _32_BITS)
        yield IPv4Address(~number & _32_BITS)
    if number >> 32 & _32_BITS in _ISATAP:
        yield IPv4Address(number & _32_BITS)
