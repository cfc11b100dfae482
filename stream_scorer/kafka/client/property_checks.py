"""Checks of properties on which librdkafka would crash, wait without end, or continue insecurely without a warning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_scorer.doc_pages import docs_command
from stream_scorer.errors import SettingsError
from stream_scorer.file_reader import is_special
from stream_scorer.settings.types import is_in_clear

if TYPE_CHECKING:
    from collections.abc import Mapping

# Properties of the Python client, not of librdkafka, whose values are not texts.
_CODE: Final = frozenset(
    {
        *("default.topic.config", "error_cb", "logger", "oauth_cb", "on_commit", "on_delivery"),
        *("stats_cb", "throttle_cb"),
    }
)
# Ends of the names of properties with a path. Each client reads the file again, and waits for the writer of a pipe.
_FILES: Final = (".location", ".file", ".keytab")
_TOKEN_URL: Final = "sasl.oauthbearer.token.endpoint.url"  # noqa: S105 - its name  # nosec B105
_HOST_CHECK: Final = "ssl.endpoint.identification.algorithm"
_SHOW_THEMSELVES: Final = frozenset({"PLAIN", "OAUTHBEARER"})


def check_value(name: str, value: object) -> None:
    """Check a value that the client itself cannot reject.

    Raises:
        SettingsError: names the property, not its value.
    """
    if name in _CODE:
        raise SettingsError(f"kafka.properties: {name} is no property of librdkafka: take it out")
    if name.endswith(_FILES) and isinstance(value, str) and is_special(value):
        raise SettingsError(f"kafka.properties: {name} is the path of a pipe or a device: name a file")
    if isinstance(value, str) and ("\0" in value or value != value.encode("utf-8", "replace").decode()):
        raise SettingsError(f"kafka.properties: {name} must be text without NUL that UTF-8 can hold")


def check_tokens(properties: Mapping[str, Any]) -> None:
    """Check that tokens have a source; without one the client waits without end and logs nothing.

    Raises:
        SettingsError: names the missing property.
    """
    if "OAUTHBEARER" in _mechanisms(properties) and str(properties.get("sasl.oauthbearer.method")).lower() != "oidc":
        raise SettingsError(
            "kafka.properties: sasl.mechanism OAUTHBEARER needs sasl.oauthbearer.method oidc: there is no other way to"
            f" get tokens here, see {docs_command('security', 'oauthbearer')}"
        )


def unsafe_properties(properties: Mapping[str, Any]) -> list[str]:
    """Return one line for each property that exposes credentials or connections to others on the network."""
    found = []
    if str(properties.get(_HOST_CHECK, "")).lower() == "none":
        found.append(
            f"kafka.properties: {_HOST_CHECK} is none: any holder of a certificate of the authority can pose as a"
            " broker and receive the password or token"
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
