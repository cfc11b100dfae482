"""Python client for the control endpoints of a running simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from stream_scorer.local.http_server.control_client import ControlClient
from stream_scorer.local.simulator.contact_list import Dial, DialCount, DiallerCounts, ListedContact
from stream_scorer.local.simulator.faults import FaultMatch
from stream_scorer.local.simulator.request_log import Stats
from stream_scorer.local.simulator.scenario_player import PlayState

if TYPE_CHECKING:
    from stream_scorer.local.simulator.contact_list import WrapUp
    from stream_scorer.local.simulator.scenario import Scenario


class SimulatorControl(ControlClient):
    """Faults, records and configuration of the simulator at a base URL.

    Every method raises LocalError if the simulator does not answer, and SettingsError if it rejects the script.
    """

    name = "simulator"

    def add_fault(self, *, times: int | None = 1, after: int = 0, **words: Any) -> None:
        """Add one fault to the script.

        Args:
            times: number of requests that it affects; None: all.
            after: number of matching requests that pass first.
            words: fields of its match (``path``: by default ``score``) and of its action together, as in
                `stream_scorer.local.simulator.faults`; None: not given.
        """
        given = {"path": "score"} | {name: value for name, value in words.items() if value is not None}
        match = {name: value for name, value in given.items() if name in FaultMatch.model_fields}
        action = {name: value for name, value in given.items() if name not in match}
        self._call("POST", "faults", [{"match": match, "times": times, "after": after, "action": action}])

    def stats(self) -> Stats:
        """Return the current record of requests."""
        return Stats(**self._call("GET", "stats"))

    def scored(self, *, minimum: int = 1) -> dict[str, int]:
        """Return how often each contact was scored, by id; only contacts that were scored ``minimum`` times or more."""
        scored: dict[str, int] = self._call("GET", f"scored?minimum={minimum}")
        return scored

    def contact_list(self, list_id: str | None = None) -> dict[str, ListedContact]:
        """Return the added contacts of a contact list, by contact id; None: of the first list."""
        contacts: dict[str, dict[str, Any]] = self._call("GET", f"contact-list{_query(list=list_id)}")
        return {contact_id: ListedContact(**fields) for contact_id, fields in contacts.items()}

    def dialler(self) -> DiallerCounts:
        """Return the number of contacts, of those in a dial queue, and of calls, over all lists."""
        return DiallerCounts(**self._call("GET", "dialler"))

    def dial_queue(self, list_id: str | None = None) -> list[str]:
        """Return the ids of the contacts to be dialled, the next one first; None: of the first list."""
        waiting: list[str] = self._call("GET", f"dial-queue{_query(list=list_id)}")
        return waiting

    def dial(
        self, contacts: int | None = None, *, list_id: str | None = None, wrap_up: WrapUp = "CONTACTED"
    ) -> list[Dial]:
        """Call the next contacts of a list, and return the calls; None: all that wait, and the first list."""
        order = {"list": list_id, "contacts": contacts, "wrap_up": wrap_up}
        return [Dial(**dial) for dial in self._call("POST", "dial", order)]

    def dials(self) -> list[Dial]:
        """Return all calls, in their order."""
        return [Dial(**dial) for dial in self._call("GET", "dials")]

    def dialled(self, *, person: str | None = None, score: str = "scored_at", minimum: int = 1) -> list[DialCount]:
        """Return how often each person was dialled for each score.

        Args:
            person: the column that identifies a person; None: the number that was called.
            score: the column that identifies a score.
            minimum: only those with so many calls or more.
        """
        query = _query(person=person, score=score, minimum=str(minimum))
        return [DialCount(**count) for count in self._call("GET", f"dialled{query}")]

    def opt_out(self, *contact_ids: str, list_id: str | None = None) -> None:
        """Make contacts of a list not callable; None: of the first list."""
        self._call("POST", "opt-out", {"list": list_id, "ids": contact_ids})

    def configure(self, **changes: Any) -> None:
        """Change fields of `SimulatorConfig` at run time."""
        self._call("PATCH", "config", changes)

    def play(self, scenario: Scenario) -> None:
        """Play a scenario from the next request on, and end the current one."""
        self._call("PUT", "scenario", scenario.model_dump(mode="json", exclude_unset=True, by_alias=True))

    def playing(self) -> PlayState | None:
        """Return the state of the scenario; None: there is none."""
        state = self._call("GET", "scenario")
        return None if state is None else PlayState.of(state)

    def stop_playing(self) -> None:
        """End the scenario and undo its faults and changes."""
        self._call("DELETE", "scenario")

    def revoke_tokens(self) -> int:
        """Revoke all tokens and return their number."""
        revoked: int = self._call("POST", "revoke-tokens")["revoked"]
        return revoked


def _query(**words: str | None) -> str:
    given = {name: value for name, value in words.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""
