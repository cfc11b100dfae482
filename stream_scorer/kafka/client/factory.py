"""Creation of Kafka clients; an invalid property is one error line, which also names the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from confluent_kafka import KafkaException

from stream_scorer.errors import SettingsError, printable
from stream_scorer.kafka.client.errors import translate
from stream_scorer.redaction.properties import property_redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.errors import StreamScorerError

ClientT = TypeVar("ClientT")

_PLACE: Final = "kafka.properties"
# Not a file: the client searches the default places of the operating system.
_NO_FILE: Final = "probe"
# Errors about a mechanism do not name the property.
_ABOUT_MECHANISMS: Final = ("SASL mechanism", "hash function")


def create_client(kind: Callable[[dict[str, Any]], ClientT], config: dict[str, Any]) -> ClientT:
    """Return a client with these properties.

    Raises:
        SettingsError: a property is unknown, invalid or contradicts another, or names an unreadable or unsuitable file.
        BrokerError: this machine lacks the resources for a client.
    """
    try:
        return kind(config)
    except KafkaException as error:
        raise _refined(translate(error, _PLACE), config, property_redactor(config)) from None


def _refined(error: StreamScorerError, config: Mapping[str, Any], hide: Callable[[str], str]) -> StreamScorerError:
    """Return the error with the name of the file, which OpenSSL's error does not contain."""
    text = hide(str(error))
    error = type(error)(text)
    if not isinstance(error, SettingsError):
        return error
    for name, file in config.items():
        if name in text and name.endswith(".location") and isinstance(file, str) and file != _NO_FILE:
            if problem := _why_unreadable(file):
                return SettingsError(f"{_PLACE}: {name}: cannot read {printable(file)}: {problem}")
            return SettingsError(f"{text} and the file {printable(file)}")
    if any(sign in text for sign in _ABOUT_MECHANISMS):
        return SettingsError(text.replace(_PLACE, f"{_PLACE}: sasl.mechanism", 1))
    return error


def _why_unreadable(file: str) -> str | None:
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 - the client's path, which may be any text
            stream.read(1)
    except OSError as error:
        return error.strerror or type(error).__name__
    except ValueError:
        return "it can be no file's name"
    return None
