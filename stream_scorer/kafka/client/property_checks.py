"""Judges properties where librdkafka itself would crash, wait for ever, or take what is not safe without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_scorer.errors import SettingsError
from stream_scorer.settings.types import is_in_clear

if TYPE_CHECKING:
    from collections.abc import Mapping

# Not librdkafka's but its Python client's, whose values are no texts.
_CODE: Final = frozenset(
    {
        *("default.topic.config", "error_cb", "logger", "oauth_cb", "on_commit", "on_delivery"),
        *("stats_cb", "throttle_cb"),
    }
)
_TOKEN_URL: Final = "sasl.oauthbearer.token.endpoint.url"  # noqa: S105 - its name  # nosec B105
_HOST_CHECK: Final = "ssl.endpoint.identification.algorithm"
_SHOW_THEMSELVES: Final = frozenset({"PLAIN", "OAUTHBEARER"})


def check_value(name: str, value: object) -> None:
    """Refuse what the client could not even refuse.

    Raises:
        SettingsError: names the property, not its value.
    """
    if name in _CODE:
        raise SettingsError(f"kafka.properties: {name} is no property of librdkafka: take it out")
    if isinstance(value, str) and ("\0" in value or value != value.encode("utf-8", "replace").decode()):
        raise SettingsError(f"kafka.properties: {name} must be text without NUL that UTF-8 can hold")


def check_tokens(properties: Mapping[str, Any]) -> None:
    """Refuse tokens without a way to get them: the client would wait for ever, and not say so.

    Raises:
        SettingsError: names the property that is missing.
    """
    if "OAUTHBEARER" in _mechanisms(properties) and str(properties.get("sasl.oauthbearer.method")).lower() != "oidc":
        raise SettingsError(
            "kafka.properties: sasl.mechanism OAUTHBEARER needs sasl.oauthbearer.method oidc: there is no other way to"
            " get tokens here, see docs/security.md"
        )


def unsafe_properties(properties: Mapping[str, Any]) -> list[str]:
    """Return one line for each property that lets others on the network in."""
    found = []
    if str(properties.get(_HOST_CHECK, "")).lower() == "none":
        found.append(
            f"kafka.properties: {_HOST_CHECK} is none: whoever has any certificate of the authority can pass for a"
            " broker, and be told the password or token"
        )
    protocol = str(properties.get("security.protocol", "")).lower()
    if protocol == "sasl_plaintext" and _mechanisms(properties) & _SHOW_THEMSELVES:
        found.append(
            "kafka.properties: security.protocol SASL_PLAINTEXT shows the password or token itself to all on the way:"
            " use SASL_SSL"
        )
    if is_in_clear(str(properties.get(_TOKEN_URL, ""))):
        found.append(f"kafka.properties: {_TOKEN_URL} is plain http, which shows the client's secret: use https")
    return found


def _mechanisms(properties: Mapping[str, Any]) -> set[str]:
    return {str(properties.get(name, "")).upper() for name in ("sasl.mechanism", "sasl.mechanisms")}
