"""Kubernetes service links: variables that a service with this program's name adds to the pods of its namespace.

A service ``stream-scorer`` adds ``STREAM_SCORER_PORT=tcp://10.0.0.1:80``, ``STREAM_SCORER_SERVICE_HOST`` and so on. No
setting has such a name: two underscores separate section and key.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from stream_scorer.settings.names import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES: Final = re.compile(
    r"(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
# The same name may be a setting with a forgotten second underscore; the value of a link is an address.
_PORT: Final = re.compile(r"(_[A-Z0-9]+)*_PORT")
_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://\S+")


def is_service_link(name: str, value: str) -> bool:
    """Return whether a variable is a service link and not a setting."""
    if not name.startswith(PREFIX):
        return False
    rest = name[len(PREFIX) - 1 :]
    return bool(_NAMES.fullmatch(rest) or (_PORT.fullmatch(rest) and _ADDRESS.fullmatch(value)))


def service_link_notes(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return one line that names the service links in the environment; empty without any."""
    names = sorted(name for name, value in environ.items() if is_service_link(name, value))
    if not names:
        return ()
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    note = (
        f"{names[0]}{more} in the environment: ignored as a service link of Kubernetes;"
        " enableServiceLinks: false in the pod's specification leaves them out"
    )
    return (note,)
