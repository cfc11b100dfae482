"""What the ``OTEL_*`` variables say of an OTLP collector, as far as the SDK would only find fault with it in the log.

It would quote what it does not like there, and the headers are where a collector's token stands.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def check_collector(environ: Mapping[str, str], signal: str) -> None:
    """Refuse what cannot work.

    Args:
        environ: the variables.
        signal: ``TRACES`` or ``METRICS``.

    Raises:
        SettingsError: an endpoint that is no URL, or headers that are none; names the variable, never its value.
    """
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        if environ.get(name) and not environ[name].strip().lower().startswith(("http://", "https://")):
            raise SettingsError(f"{name}: is no URL; write http:// or https://, host and port")
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"):
        for header in filter(None, map(str.strip, environ.get(name, "").split(","))):
            key, equals, value = header.partition("=")
            if not equals or not _NAME.fullmatch(unquote(key).strip()) or not unquote(value).strip().isprintable():
                raise SettingsError(f"{name}: is no list of headers; write name=value, with commas between")
