"""Checks of the proxies and certificates in the environment, before the first request.

An invalid proxy URL, a SOCKS proxy without its package or a missing bundle fails every request, and would look like an
outage of the API. The libraries' own errors quote the proxy's password.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from requests.utils import should_bypass_proxies

from stream_scorer.errors import SettingsError, printable
from stream_scorer.file_reader import is_special, read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Packages that requests and the schema registry's client need for SOCKS: name of the module, name of the package.
SOCKS_FOR_API: Final = ("socks", "PySocks")
SOCKS_FOR_REGISTRY: Final = ("socksio", "socksio")
_CA_BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SCHEMES: Final = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_FORM: Final = (
    "is not the URL of a proxy: write http://user:password@host:port, and in the password %23 for #, %2F for / and"
    " %40 for @"
)


def check_http_environment(urls: Iterable[str], environ: Mapping[str, str]) -> None:
    """Check the proxies for these URLs, and for https the bundle of certificates.

    Raises:
        SettingsError: one of them is unusable; names the variable and shows no password.
    """
    urls = list(urls)
    check_proxies(urls, environ)
    if any(url.lower().startswith("https:") for url in urls):
        check_tls_environment(environ)


def check_proxies(urls: Iterable[str], environ: Mapping[str, str]) -> None:
    """Check the proxies for these URLs.

    Raises:
        SettingsError: one of them is unusable; names the variable and shows no password.
    """
    for url in urls:
        variable = proxy_variable(url, environ)
        if variable is not None:
            check_proxy(variable, environ[variable], SOCKS_FOR_API)


def check_tls_environment(environ: Mapping[str, str]) -> None:
    """Check the CA bundle and the file of session keys that the environment names.

    Raises:
        SettingsError: the bundle has no certificates, or the file cannot be written; names the variable.
    """
    check_key_log(environ)
    variable = next((name for name in _CA_BUNDLES if environ.get(name)), None)
    if variable is not None:
        check_authorities(variable, environ[variable])


def check_key_log(environ: Mapping[str, str]) -> None:
    """Check the file to which every TLS connection adds its keys, for Wireshark; every connection fails without it.

    Raises:
        SettingsError: it cannot be written; names the variable.
    """
    path = environ.get("SSLKEYLOGFILE")
    if not path:
        return
    try:
        # Without waiting for the reader of a pipe.
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666))
    except OSError as error:
        raise SettingsError(
            f"SSLKEYLOGFILE names {printable(path)}, which cannot be written: {error.strerror}; leave the variable out"
        ) from None


def proxy_variable(url: str, environ: Mapping[str, str]) -> str | None:
    """Return the variable with the proxy of a request to this URL; None: no proxy."""
    if should_bypass_proxies(url, no_proxy=environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
        return None
    for name in (f"{urlsplit(url).scheme.lower()}_proxy", "all_proxy"):
        if name in environ:  # an empty one in lower case hides the one in upper case
            if environ[name]:
                return name
        elif environ.get(name.upper()):
            return name.upper()
    return None


def check_proxy(place: str, value: str, socks: tuple[str, str]) -> None:
    """Check the URL of a proxy.

    Args:
        place: the variable or setting that holds it.
        value: the URL; without a scheme it is an http proxy.
        socks: the package for SOCKS, such as `SOCKS_FOR_API`.

    Raises:
        SettingsError: it is not such a URL, or the package is missing; names the place and shows no password.
    """
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        # The codec refuses labels of a name that are empty or longer than 63 characters.
        is_place = bool((parts.hostname or "").encode("idna")) and (parts.port is None or parts.port > 0)
        is_place = is_place and value.isprintable() and " " not in parts.netloc
    except ValueError:
        is_place = False
    if not is_place or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise SettingsError(f"{place} {_FORM}")
    if parts.scheme not in _SCHEMES:
        raise SettingsError(f"{place} must begin with http://, https://, socks5:// or socks5h://")
    module, package = socks
    if parts.scheme.startswith("socks") and importlib.util.find_spec(module) is None:
        raise SettingsError(
            f"{place} names a SOCKS proxy, and the package for that is missing: pip install {package},"
            " or except the host by NO_PROXY"
        )


def check_authorities(place: str, path: str) -> None:
    """Check a file or a folder of CA certificates.

    Raises:
        SettingsError: it does not exist, or has no certificate; names place and path.
    """
    if Path(path).is_dir():
        return
    if is_special(path):
        raise SettingsError(f"{place} names {printable(path)}, which is a pipe or a device: name a file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise SettingsError(f"{place} names {printable(path)}, which holds no certificate in PEM form") from None
    except OSError as error:
        raise SettingsError(f"{place} names {printable(path)}, which cannot be read: {error.strerror}") from None


def check_client_certificate(certificate: str | None, key: str | None, environ: Mapping[str, str]) -> None:
    """Check the files of a client's certificate and key.

    Args:
        certificate: the variable that names the certificate's file; None: there is none.
        key: the variable that names the key's file; None: the key is in the certificate's file.
        environ: the environment.

    Raises:
        SettingsError: they cannot be used; names the variables and the file.
    """
    for name in filter(None, (certificate, key)):
        if is_special(environ[name]):
            raise SettingsError(f"{name} names {printable(environ[name])}, which is a pipe or a device: name a file")
        try:
            read_file(environ[name], 0)
        except OSError as error:
            text = f"{name} names {printable(environ[name])}, which cannot be read: {error.strerror}"
            raise SettingsError(text) from None
    if certificate is None:
        if key is not None:
            raise SettingsError(f"{key} has no effect without a certificate: set the variable for it, too")
        return
    try:
        # With a password, or OpenSSL would prompt for the one of the key on a terminal.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(environ[certificate], environ[key] if key else None, "")
    except (ssl.SSLError, OSError):
        source = f"the key of {key}" if key else "the key in the same file"
        raise SettingsError(
            f"{certificate} names {printable(environ[certificate])}: it and {source} are not in PEM form, do not"
            " belong together, or the key has a password"
        ) from None
