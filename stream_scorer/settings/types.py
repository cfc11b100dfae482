"""Types of values with their checks; operators read the messages."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

MAX_DURATION_S: Final = 10 * 366 * 86400
_MAX_PORT: Final = 65535
_LOOPBACK: Final = re.compile(r"127(\.\d{1,3}){3}")
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,240}")
# The client's protocols may stand before a broker. It ignores the address of another one, such as http.
_BROKER: Final = re.compile(
    r"((SASL_)?(PLAINTEXT|SSL)://)?(\[[0-9A-F:.]+\]|[^\s:/\[\],]+)(:(?P<port>\d{1,5}))?", re.IGNORECASE
)


class Section(BaseModel):
    """Frozen section. Its errors show no input, since it may be a mistyped secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


def conflict(text: str, *keys: str) -> PydanticCustomError:
    """Return the error for values that are valid one by one but not together; ``keys`` names the ones to change."""
    return PydanticCustomError("conflict", "{text}", {"text": text, "keys": ",".join(keys)})


def _no_boolean(value: Any) -> Any:
    # For Python and pydantic `true` is the number 1; in settings it is a mistake.
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic turns a ValueError into a message, not a TypeError
    return value


def _bootstrap(value: str) -> str:
    servers = [server.strip() for server in value.split(",")]
    for server in servers:
        match = _BROKER.fullmatch(server)
        if match is None or not 0 < int(match["port"] or 1) <= _MAX_PORT:
            raise ValueError("must be host:port, or several of them with commas between")
    return ",".join(servers)


def _exact_url(value: str) -> str:
    problem = "must be a URL that begins with http:// or https://"
    if not value.isprintable() or " " in value:
        raise ValueError("must be a URL without blanks, line ends and other characters that are not printed")
    try:
        parts = urlsplit(value)
        _ = parts.port  # reading the port validates it
    except ValueError:
        raise ValueError(problem) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(problem)
    return value


def _url(value: str) -> str:
    return _exact_url(value).rstrip("/")


def _base_url(value: str) -> str:
    value = _url(value)
    parts = urlsplit(value)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a plain URL, without credentials, query or fragment")
    return value


def is_in_clear(url: str) -> bool:
    """Return whether data sent to a URL can be read on the network: plain http to another machine."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    return parts.scheme == "http" and not (
        host in ("localhost", "::1") or host.endswith(".localhost") or _LOOPBACK.fullmatch(host)
    )


def _start(value: str) -> str:
    if value not in ("earliest", "latest"):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise ValueError("must be earliest, latest or an ISO time with a zone, such as 2030-01-31T06:00:00Z")
    return value


def _topic(value: str) -> str:
    if not _TOPIC.fullmatch(value) or value in (".", ".."):
        raise ValueError("must be a topic name: up to 240 letters, digits, '.', '_' and '-'")
    return value


def _one_line(value: str) -> str:
    if not value.isprintable() or value != value.strip() or not value:
        raise ValueError("must be text that is not empty, has no control characters and no spaces around it")
    return value


def _moment(value: Any) -> Any:
    # TOML has a time type: start_from = 2030-01-31T06:00:00Z needs no quotes.
    return value.isoformat() if isinstance(value, datetime) else value


Text: TypeAlias = Annotated[str, Field(max_length=249), AfterValidator(_one_line)]
Topic: TypeAlias = Annotated[str, AfterValidator(_topic)]
BootstrapServers: TypeAlias = Annotated[str, AfterValidator(_bootstrap)]
StartFrom: TypeAlias = Annotated[str, BeforeValidator(_moment), AfterValidator(_start)]
Url: TypeAlias = Annotated[str, AfterValidator(_url)]
# Unchanged: many servers distinguish `/hooks/` from `/hooks`, and one redirects to the other.
ExactUrl: TypeAlias = Annotated[str, AfterValidator(_exact_url)]
BaseUrl: TypeAlias = Annotated[str, AfterValidator(_base_url)]

Count: TypeAlias = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1, le=1_000_000_000)]
CountOrZero: TypeAlias = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0, le=1_000_000_000)]
Port: TypeAlias = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0, le=_MAX_PORT)]
Number: TypeAlias = Annotated[float, BeforeValidator(_no_boolean)]
Seconds: TypeAlias = Annotated[float, BeforeValidator(_no_boolean), Field(gt=0, le=MAX_DURATION_S)]
SecondsOrZero: TypeAlias = Annotated[float, BeforeValidator(_no_boolean), Field(ge=0, le=MAX_DURATION_S)]
Milliseconds: TypeAlias = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0, le=3_600_000)]
