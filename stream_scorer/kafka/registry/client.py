"""Schema registry client, on top of confluent-kafka's own.

Foreign errors are translated in one function. The length of a schema's text is checked before it is parsed, since
anyone with the right to register can write it.
"""

from __future__ import annotations

import json
import logging
import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from confluent_kafka.schema_registry import RegisteredSchema, Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.errors import RegistryRefused, RegistryUnavailable, SettingsError
from stream_scorer.http_client.environment import (
    SOCKS_FOR_REGISTRY,
    check_authorities,
    check_key_log,
    check_proxy,
    proxy_variable,
)
from stream_scorer.http_client.errors import proxy_refused
from stream_scorer.kafka.registry.errors import registry_error_text, registry_redactor
from stream_scorer.kafka.registry.properties import check_registry_properties

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.settings import Settings

T = TypeVar("T")

_LARGEST_ID: Final = 2**31 - 1
_MOST_CHARACTERS: Final = 64 * 1024
_TIMEOUT_S: Final = 10.0
_TRIES: Final = 2
_TRY_AGAIN_MS: Final = 300
_NOT_FOUND: Final = 404
# Subject, version and schema not found. Any other 404 is about a path or from a gateway, and no evidence of a schema.
_NO_SUCH_THING: Final = frozenset({40401, 40402, 40403})
_FORBIDDEN: Final = frozenset({401, 403})
_PROXY_REFUSED: Final = 407
_AUTHORITIES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
# Placeholder for the proxy while the client is created; no request is sent to it.
_NO_PROXY: Final = "http://127.0.0.1:9"


class Registered(NamedTuple):
    """Version of a subject; ``unreadable``: why no value can be read by it, None if one can."""

    schema_id: int
    version: int
    schema: Any
    unreadable: str | None = None


class SchemaRegistry:
    """Client of the registry at ``schema_registry.url``. Thread-safe.

    Raises:
        SettingsError: on construction; a property is invalid or contradicts another.
    """

    def __init__(self, settings: Settings) -> None:
        url = settings.schema_registry.url or ""
        place = urlsplit(url.partition(",")[0])
        self.place = place.hostname or "?"
        if place.port is not None:
            self.place = f"{self.place}:{place.port}"
        properties = settings.schema_registry.properties
        check_registry_properties(properties)
        if place.username and "basic.auth.user.info" in properties:
            raise SettingsError(
                "schema_registry.properties.basic.auth.user.info: schema_registry.url has a user already; keep one"
            )
        self._redact = registry_redactor(unquote(place.username or ""), unquote(place.password or ""), properties)
        is_direct = _is_direct(url.split(","), properties)
        self._proxy = _proxy_place(url.split(","), properties)
        config = {
            "timeout": _TIMEOUT_S,
            "max.retries": _TRIES,
            "retries.wait.ms": _TRY_AGAIN_MS,
            "retries.max.wait.ms": _TRY_AGAIN_MS,
            **properties,
            "url": url,
            **({"proxy": _NO_PROXY} if is_direct else {}),
        }
        # Its HTTP library logs every request, with the credentials in the URL.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        try:
            self._client = SchemaRegistryClient(config)
        except Exception as error:  # noqa: BLE001 - nothing is connected to yet, so only a property can be the cause
            raise SettingsError(
                f"schema_registry.properties{_no_proxy_too()}: the registry's client does not take them"
                f" ({type(error).__name__})"
            ) from None
        if is_direct:
            _leave_environment(self._client)

    def writer(self, schema_id: int) -> dict[str, Any] | None:
        """Return the schema of an id; None: the registry has none.

        Raises:
            UndecodableError: the schema is unusable: of another kind, too large or too deep.
            RegistryUnavailable: the registry does not answer.
            RegistryRefused: the request is denied.
        """
        if schema_id > _LARGEST_ID:
            return None  # ids are Java ints; answers to larger ones differ, and must block no partition
        schema = self._call(f"schema id {schema_id} cannot be fetched", lambda: self._client.get_schema(schema_id))
        return None if schema is None else _parsed(schema, schema_id)

    def has(self, schema_id: int) -> bool:
        """Return whether the registry has a schema now, without the client's cache.

        Raises:
            RegistryUnavailable: the registry does not answer.
            RegistryRefused: the request is denied.
        """
        self._client.clear_caches()  # type: ignore[no-untyped-call]
        doing = f"schema id {schema_id} cannot be fetched"
        return self._call(doing, lambda: self._client.get_schema(schema_id)) is not None

    def find(self, subject: str, schema: Mapping[str, Any]) -> Registered | None:
        """Return the version of a subject that equals this schema, in any formatting; None: there is none.

        Raises:
            RegistryUnavailable: the registry does not answer.
            RegistryRefused: the request is denied.
        """
        found = self._call(f"subject {subject} cannot be looked up", lambda: self._looked_up(subject, schema))
        if found is not None and found.schema_id is not None:
            return Registered(found.schema_id, found.version or 0, schema)
        return next((one for one in self.versions(subject) if one.schema == schema), None)

    def versions(self, subject: str) -> list[Registered]:
        """Return all versions of a subject, the oldest first; empty: the subject does not exist.

        Raises:
            RegistryUnavailable: the registry does not answer.
            RegistryRefused: the request is denied.
        """
        doing = f"the versions of subject {subject} cannot be read"
        numbers = self._call(doing, lambda: self._client.get_versions(subject)) or []
        found = []
        for number in numbers:
            one = self._call(doing, lambda number=number: self._client.get_version(subject, number))  # type: ignore[misc]
            if one is not None and one.schema_id is not None:
                schema = _checked(one.schema, one.schema_id)
                unreadable = schema if isinstance(schema, str) else None
                found.append(Registered(one.schema_id, one.version or number, schema, unreadable))
        return found

    def _looked_up(self, subject: str, schema: Mapping[str, Any]) -> RegisteredSchema | None:
        """Look up a schema under a subject. Some registries answer 422 if it has versions in JSON or Protobuf."""
        try:
            return self._client.lookup_schema(subject, _text(schema))
        except SchemaRegistryError as error:
            if error.http_status_code in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY):
                return None
            raise

    def register(self, subject: str, schema: Mapping[str, Any]) -> Registered:
        """Register a schema under a subject and return its version, or the existing one if it is registered.

        Raises:
            RegistryUnavailable: the registry does not answer; the schema may be registered.
            RegistryRefused: it is incompatible with existing versions, or the request is denied.
        """
        try:
            self._client.register_schema(subject, _text(schema))
        except Exception as error:  # noqa: BLE001 - see _translated
            raise self._translate(f"{subject}: not registered", error) from None
        found = self.find(subject, schema)
        if found is None:
            raise RegistryUnavailable(f"schema registry {self.place}: {subject} was registered and is not there yet")
        return found

    def _call(self, doing: str, ask: Callable[[], T]) -> T | None:
        """Return the result of ``ask``; None if the registry has no such subject, version or schema."""
        try:
            return ask()
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND and error.error_code in _NO_SUCH_THING:
                return None
            raise self._translate(doing, error) from None
        except Exception as error:  # noqa: BLE001 - see _translated
            raise self._translate(doing, error) from None

    def _translate(self, doing: str, error: Exception) -> RegistryUnavailable | RegistryRefused:
        """Translate a client's exception: an answer of the registry, or an error of its HTTP and OAuth libraries."""
        text = f"{doing}: schema registry {self.place}: {registry_error_text(error, self._redact)}"
        if isinstance(error, SchemaRegistryError):
            if error.http_status_code == _PROXY_REFUSED and self._proxy is not None:
                return RegistryUnavailable(f"{doing}: schema registry: {proxy_refused(self.place, self._proxy)}")
            if error.http_status_code in _FORBIDDEN:
                return RegistryRefused(f"{text}; check schema_registry.properties")
            if error.http_status_code in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY):
                return RegistryRefused(text)
            if error.http_status_code == _NOT_FOUND:
                return RegistryUnavailable(f"{text}; check the path of schema_registry.url")
        return RegistryUnavailable(text)


def _text(schema: Mapping[str, Any]) -> Schema:
    return Schema(json.dumps(schema, separators=(",", ":"), ensure_ascii=False), "AVRO")


def _parsed(schema: Schema, schema_id: int) -> dict[str, Any]:
    judged = _checked(schema, schema_id)
    if isinstance(judged, str):
        raise UndecodableError(f"the value was written with schema id {schema_id}, {judged}")
    return judged


def _checked(schema: Schema, schema_id: int) -> dict[str, Any] | str:
    """Return the schema, or the reason why it is unusable."""
    text, kind = schema.schema_str, schema.schema_type or "AVRO"
    if not isinstance(text, str) or not isinstance(kind, str):
        raise RegistryUnavailable(f"schema id {schema_id}: the schema registry's answer has no schema")
    if kind != "AVRO":
        return f"a schema of type {kind[:20]}, not Avro"
    if schema.references:
        return "which refers to other subjects; such schemas are not read"
    if len(text) > _MOST_CHARACTERS:
        return f"of {len(text)} characters, more than the {_MOST_CHARACTERS} allowed"
    try:
        parsed = json.loads(text)
    except ValueError:  # registries refuse such a text at registration, so the answer is from elsewhere
        raise RegistryUnavailable(f"schema id {schema_id}: the schema registry's answer is no schema") from None
    except RecursionError:
        return "which is nested too deep"
    return parsed if isinstance(parsed, dict) else "which is no record"


def _is_direct(urls: list[str], properties: Mapping[str, Any]) -> bool:
    """Check proxies and certificates of the environment; return whether it sets proxies, but none for this registry.

    Raises:
        SettingsError: one of them is unusable; names the variable.
    """
    authorities = next((name for name in _AUTHORITIES if os.environ.get(name)), None)
    if "ssl.ca.location" not in properties and authorities is not None:
        check_authorities(authorities, os.environ[authorities])
    check_key_log(os.environ)  # the client sets TLS up whatever the URL is
    if "proxy" in properties:
        return False
    used = [name for url in urls if (name := proxy_variable(url.strip(), os.environ)) is not None]
    for name in used:
        check_proxy(name, os.environ[name], SOCKS_FOR_REGISTRY)
    return not used and any(name.lower().endswith("_proxy") for name in os.environ)


def _proxy_place(urls: list[str], properties: Mapping[str, Any]) -> str | None:
    """Return the property or variable with the proxy to the registry; None: there is none."""
    if "proxy" in properties:
        return "schema_registry.properties.proxy"
    return next((name for url in urls if (name := proxy_variable(url.strip(), os.environ)) is not None), None)


def _no_proxy_too() -> str:
    """Return the ``no_proxy`` variable for an error text: the client parses its hosts when it is created."""
    return next((f" or {name}" for name in ("no_proxy", "NO_PROXY") if os.environ.get(name)), "")


def _leave_environment(client: SchemaRegistryClient) -> None:
    """Replace the client's HTTP session by one that ignores proxies of the environment.

    The client creates a transport for each of them, and fails on one that is never used (such as a SOCKS proxy).
    """
    rest = client._rest_client  # noqa: SLF001 - the client has no setting for this
    session, rest.session = (
        rest.session,
        type(rest.session)(verify=rest.verify, auth=rest.auth, timeout=rest.timeout, trust_env=False),
    )
    session.close()
