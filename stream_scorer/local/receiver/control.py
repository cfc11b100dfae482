"""The Python side of the script: steers a receiver that runs, over its own endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import orjson
import requests

from stream_scorer.errors import LocalError, SettingsError
from stream_scorer.local.receiver.books import Delivery, Stats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.local.receiver.faults import Fault
    from stream_scorer.local.simulator.faults import Transfer

TIMEOUT_S = 30


class ReceiverControl:
    """Faults and books of the receiver at a base URL.

    Every method raises LocalError where the receiver does not answer, and SettingsError where it refuses the script.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment is no way to this machine

    @property
    def base_url(self) -> str:
        """Where it is, without a slash at the end."""
        return self._base_url

    @property
    def url(self) -> str:
        """What ``callbacks.url`` is to be."""
        return f"{self.base_url}/callbacks"

    def add_fault(
        self,
        *,
        campaign_id: str | None = None,
        contact_id: str | None = None,
        times: int | None = 1,
        after: int = 0,
        status: int | None = None,
        retry_after: str | int | None = None,
        headers: dict[str, str] | None = None,
        body: str | None = None,
        transfer: Transfer | None = None,
        drop: Literal["before", "after"] | None = None,
        hang: bool | None = None,
        delay_ms: float | None = None,
    ) -> None:
        """Adds one fault to the script; the words are those of `stream_scorer.local.receiver.faults`."""
        match = {"campaign_id": campaign_id, "contact_id": contact_id}
        action = {
            "status": status,
            "retry_after": retry_after,
            "headers": headers,
            "body": body,
            "transfer": transfer,
            "drop": drop,
            "hang": hang,
            "delay_ms": delay_ms,
        }
        given = {name: value for name, value in action.items() if value is not None}
        self._call("POST", "faults", [{"match": match, "times": times, "after": after, "action": given}])

    def add_faults(self, faults: Iterable[Fault]) -> None:
        """Adds faults to the script, in this order."""
        self._call("POST", "faults", [fault.model_dump(mode="json", exclude_unset=True) for fault in faults])

    def faults(self) -> list[dict[str, Any]]:
        """The script in force, each line with ``seen`` and ``fired``."""
        faults: list[dict[str, Any]] = self._call("GET", "faults")
        return faults

    def clear_faults(self) -> None:
        """Ends all faults."""
        self._call("DELETE", "faults")

    def stats(self) -> Stats:
        """The account as of now."""
        return Stats(**self._call("GET", "stats"))

    def callbacks(self) -> dict[str, Delivery]:
        """Every callback that came with a good signature, by id."""
        listed: dict[str, dict[str, Any]] = self._call("GET", "callbacks")
        return {
            callback_id: Delivery(**{**fields, "contact_ids": tuple(fields["contact_ids"])})
            for callback_id, fields in listed.items()
        }

    def contacts(self) -> dict[str, int]:
        """In how many different callbacks that were taken each contact came, by contact id."""
        contacts: dict[str, int] = self._call("GET", "contacts")
        return contacts

    def reset(self) -> None:
        """No faults, empty books."""
        self._call("POST", "reset")

    def _call(self, method: str, what: str, content: Any = None) -> Any:
        data = None if content is None else orjson.dumps(content)
        try:
            answer = self._session.request(method, f"{self.base_url}/_receiver/{what}", data=data, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            reason = f"does not answer ({type(error).__name__})"
            raise LocalError(f"the receiver at {self.base_url} {reason}: is it running?") from None
        if answer.status_code == requests.codes.bad_request:
            raise SettingsError(orjson.loads(answer.content)["error"])
        if not answer.ok:
            raise LocalError(f"{self.base_url} answers {answer.status_code} to {method} {what}: it is no receiver")
        return orjson.loads(answer.content) if answer.content else None
