"""Client for the control endpoints of simulator and receiver."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final

import orjson
import requests

from stream_scorer.errors import LocalError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

TIMEOUT_S: Final = 30


class ControlClient:
    """Client for the endpoints below ``/_<name>/`` of the server at a base URL.

    Every method raises LocalError if the server does not answer, and SettingsError if it rejects the script.

    Args:
        base_url: URL of the server.

    Attributes:
        name: name of the server, in its paths and in messages: ``simulator`` or ``receiver``.
    """

    name: ClassVar[str]

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # this machine is never reached by a proxy of the environment

    @property
    def base_url(self) -> str:
        """Base URL of the server, without a trailing slash."""
        return self._base_url

    def add_faults(self, faults: Iterable[BaseModel]) -> None:
        """Add faults to the script, in this order."""
        self._call("POST", "faults", [fault.model_dump(mode="json", exclude_unset=True) for fault in faults])

    def faults(self) -> list[dict[str, Any]]:
        """Return the active script, each entry with ``seen`` and ``fired``."""
        faults: list[dict[str, Any]] = self._call("GET", "faults")
        return faults

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._call("DELETE", "faults")

    def reset(self) -> None:
        """Reset faults and records."""
        self._call("POST", "reset")

    def _call(self, method: str, what: str, content: Any = None) -> Any:
        data = None if content is None else orjson.dumps(content)
        url = f"{self.base_url}/_{self.name}/{what}"
        try:
            answer = self._session.request(method, url, data=data, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            reason = f"does not answer ({type(error).__name__})"
            raise LocalError(f"the {self.name} at {self.base_url} {reason}: is it running?") from None
        if answer.status_code == HTTPStatus.BAD_REQUEST:
            raise SettingsError(orjson.loads(answer.content)["error"])
        if not answer.ok:
            raise LocalError(f"{self.base_url} answers {answer.status_code} to {method} {what}: it is no {self.name}")
        return orjson.loads(answer.content) if answer.content else None
