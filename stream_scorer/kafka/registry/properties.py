"""Checks of ``schema_registry.properties``: names and types, since the client fails on a wrong type with any exception.

An error names the property and never shows its value, which may be a secret.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from stream_scorer.errors import SettingsError
from stream_scorer.http_client.environment import SOCKS_FOR_REGISTRY, check_authorities, check_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Property = bool | int | float | str

_SOURCE: Final = "bearer.auth.credentials.source"
# Without the client's fourth, CUSTOM: it takes a Python function, which a setting cannot hold.
_SOURCES: Final = ("OAUTHBEARER", "OAUTHBEARER_AZURE_IMDS", "STATIC_TOKEN")
_CLUSTER: Final = "bearer.auth.logical.cluster"
# Properties that the client requires with each source.
_COMPANIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "OAUTHBEARER": (
            *(_CLUSTER, "bearer.auth.client.id", "bearer.auth.client.secret", "bearer.auth.scope"),
            "bearer.auth.issuer.endpoint.url",
        ),
        "OAUTHBEARER_AZURE_IMDS": (_CLUSTER,),
        "STATIC_TOKEN": (_CLUSTER, "bearer.auth.token"),
    }
)
_CERTIFICATE: Final = "ssl.certificate.location"


def _text(value: Property) -> str | None:
    return None if isinstance(value, str) and value else "must be text"


def _number(value: Property) -> str | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if is_number and value >= 0 else "must be a number, 0 or more"  # type: ignore[operator]


def _seconds(value: Property) -> str | None:
    return "must be a number of seconds, more than 0" if _number(value) or not value else None


def _file(value: Property) -> str | None:
    if not isinstance(value, str) or not value:
        return "must be the path of a file"
    return None if Path(value).is_file() else "is a path where there is no file"


def _authorities(value: Property) -> str | None:
    # The client would accept false, and then trust any certificate.
    if isinstance(value, str) and value and Path(value).is_dir():
        return None
    return _file(value) and f"{_file(value)}; or write a folder. Certificates are always verified"


def _user(value: Property) -> str | None:
    return None if isinstance(value, str) and ":" in value else "must be name:secret"


def _proxy(value: Property) -> str | None:
    known = isinstance(value, str) and value.startswith(("http://", "https://", "socks5://", "socks5h://"))
    if not known:
        return "must be a URL that begins with http://, https:// or socks5://"
    try:
        check_proxy("", str(value), SOCKS_FOR_REGISTRY)
    except SettingsError as error:
        return str(error).strip()
    return None


def _credentials(value: Property) -> str | None:
    return None if value in _SOURCES else f"must be one of {', '.join(_SOURCES)}"


_CHECKS: Final[Mapping[str, Callable[[Property], str | None]]] = MappingProxyType(
    {
        "basic.auth.user.info": _user,
        _SOURCE: _credentials,
        "bearer.auth.client.id": _text,
        "bearer.auth.client.secret": _text,
        "bearer.auth.identity.pool.id": _text,
        "bearer.auth.issuer.endpoint.query": _text,
        "bearer.auth.issuer.endpoint.url": _text,
        "bearer.auth.logical.cluster": _text,
        "bearer.auth.scope": _text,
        "bearer.auth.token": _text,
        "cache.capacity": _number,
        "cache.latest.ttl.sec": _number,
        "max.retries": _number,
        "proxy": _proxy,
        "retries.max.wait.ms": _number,
        "retries.wait.ms": _number,
        "ssl.ca.location": _authorities,
        "ssl.certificate.location": _file,
        "ssl.key.location": _file,
        "ssl.key.password": _text,
        "timeout": _seconds,
    }
)


def check_registry_properties(properties: Mapping[str, Property]) -> None:
    """Check that the client accepts the properties.

    Raises:
        SettingsError: a property is unknown or invalid; names it and its permitted values.
    """
    for name, value in properties.items():
        check = _CHECKS.get(name)
        if check is None:
            known = "it is schema_registry.url" if name == "url" else f"take one of {', '.join(_CHECKS)}"
            raise SettingsError(f"schema_registry.properties.{name} is not known to the registry's client: {known}")
        problem = check(value)
        if problem is not None:
            raise SettingsError(f"schema_registry.properties.{name} {problem}")
    _check_companions(properties)
    if isinstance(authorities := properties.get("ssl.ca.location"), str):
        check_authorities("schema_registry.properties.ssl.ca.location", authorities)
    if _CERTIFICATE in properties:
        _check_certificate(properties)


def _check_companions(properties: Mapping[str, Property]) -> None:
    """Refuse properties that have no effect without others."""
    bearer = next((name for name in properties if name.startswith("bearer.auth.")), None)
    if bearer is not None and _SOURCE not in properties:
        raise SettingsError(
            f"schema_registry.properties.{bearer} is of no use without {_SOURCE}:"
            f" set it to one of {', '.join(_SOURCES)}"
        )
    source = str(properties.get(_SOURCE, ""))
    missing = [name for name in _COMPANIONS.get(source, ()) if name not in properties]
    if source == "OAUTHBEARER_AZURE_IMDS" and not any("issuer.endpoint" in name for name in properties):
        missing.append("bearer.auth.issuer.endpoint.query")
    if missing:
        raise SettingsError(f"schema_registry.properties.{_SOURCE} {source} needs {', '.join(missing)} too")
    key = next((name for name in ("ssl.key.location", "ssl.key.password") if name in properties), None)
    if key is not None and _CERTIFICATE not in properties:
        raise SettingsError(f"schema_registry.properties.{key} is of no use without {_CERTIFICATE}")


def _check_certificate(properties: Mapping[str, Property]) -> None:
    """Load the client certificate and its key as the client will."""
    certificate = str(properties[_CERTIFICATE])
    key = properties.get("ssl.key.location")
    # Never None: OpenSSL would prompt for the password of the key on a terminal.
    password = str(properties.get("ssl.key.password", ""))
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(certificate, None if key is None else str(key), password)
    except ssl.SSLError:
        raise SettingsError(
            f"schema_registry.properties.{_CERTIFICATE}: {certificate} and its key are not in PEM form, do not belong"
            " together, or ssl.key.password is missing or wrong"
        ) from None
    except OSError as error:
        raise SettingsError(
            f"schema_registry.properties.{_CERTIFICATE} or ssl.key.location cannot be read: {error.strerror}"
        ) from None
