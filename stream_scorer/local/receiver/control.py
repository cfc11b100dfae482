"""Python client for the control endpoints of a running receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from stream_scorer.local.http_server.control_client import ControlClient
from stream_scorer.local.receiver.delivery_log import Delivery, Stats

if TYPE_CHECKING:
    from stream_scorer.local.http_server.models import Transfer


class ReceiverControl(ControlClient):
    """Faults and records of the receiver at a base URL.

    Every method raises LocalError if the receiver does not answer, and SettingsError if it rejects the script.
    """

    name = "receiver"

    @property
    def url(self) -> str:
        """Value for ``callbacks.url``."""
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
        """Add one fault to the script; the arguments are the words of `stream_scorer.local.receiver.faults`."""
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

    def stats(self) -> Stats:
        """Return the current record."""
        return Stats(**self._call("GET", "stats"))

    def callbacks(self) -> dict[str, Delivery]:
        """Return every callback with a valid signature, by id."""
        listed: dict[str, dict[str, Any]] = self._call("GET", "callbacks")
        return {
            callback_id: Delivery(**{**fields, "contact_ids": tuple(fields["contact_ids"])})
            for callback_id, fields in listed.items()
        }

    def contacts(self) -> dict[str, int]:
        """Return the number of different accepted callbacks with each contact, by contact id."""
        contacts: dict[str, int] = self._call("GET", "contacts")
        return contacts
