"""Steers a server of the local extra over its own endpoints: what simulator and receiver have in common."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import orjson
import requests

from stream_scorer.errors import LocalError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

TIMEOUT_S: Final = 30


class ControlClient:
    """Calls the endpoints below ``/_<name>/`` of the server at a base URL.

    Every method raises LocalError where it does not answer, and SettingsError where it refuses what it is told.

    Args:
        name: of the server, in its paths and in messages: ``simulator`` or ``receiver``.
        base_url: where it is.
    """

    def __init__(self, name: str, base_url: str) -> None:
        self._name = name
        self._base_url = base_url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment is no way to this machine

    @property
    def base_url(self) -> str:
        """Where it is, without a slash at the end."""
        return self._base_url

    def add_faults(self, faults: Iterable[BaseModel]) -> None:
        """Adds faults to the script, in this order."""
        self._call("POST", "faults", [fault.model_dump(mode="json", exclude_unset=True) for fault in faults])

    def faults(self) -> list[dict[str, Any]]:
        """The script in force, each line with ``seen`` and ``fired``."""
        faults: list[dict[str, Any]] = self._call("GET", "faults")
        return faults

    def clear_faults(self) -> None:
        """Ends all faults."""
        self._call("DELETE", "faults")

    def reset(self) -> None:
        """Back to the beginning: no faults, an empty account."""
        self._call("POST", "reset")

    def _call(self, method: str, what: str, content: Any = None) -> Any:
        data = None if content is None else orjson.dumps(content)
        url = f"{self.base_url}/_{self._name}/{what}"
        try:
            answer = self._session.request(method, url, data=data, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            reason = f"does not answer ({type(error).__name__})"
            raise LocalError(f"the {self._name} at {self.base_url} {reason}: is it running?") from None
        if answer.status_code == HTTPStatus.BAD_REQUEST:
            raise SettingsError(orjson.loads(answer.content)["error"])
        if not answer.ok:
            raise LocalError(f"{self.base_url} answers {answer.status_code} to {method} {what}: it is no {self._name}")
        return orjson.loads(answer.content) if answer.content else None
