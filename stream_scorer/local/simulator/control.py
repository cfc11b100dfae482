"""The Python side of the script: steers a simulator that runs, over its own endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import requests

from stream_scorer.errors import LocalError, SettingsError
from stream_scorer.local.simulator.faults import FaultMatch
from stream_scorer.local.simulator.ledger import Stats
from stream_scorer.local.simulator.outbound import ListedContact
from stream_scorer.local.simulator.playing import PlayState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.local.simulator.faults import Fault
    from stream_scorer.local.simulator.scenario import Scenario

TIMEOUT_S = 30


class SimulatorControl:
    """Faults, account and configuration of the simulator at a base URL.

    Every method raises LocalError where the simulator does not answer, and SettingsError where it refuses the script.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment is no way to this machine

    @property
    def base_url(self) -> str:
        """Where API and token endpoint are, without a slash at the end."""
        return self._base_url

    def add_fault(self, *, times: int | None = 1, after: int = 0, **words: Any) -> None:
        """Adds one fault to the script.

        Args:
            times: on how many requests it acts; None: on all.
            after: how many matching requests pass first.
            words: of its match (``path``: by default ``score``) and of its action, all in one, as in
                `stream_scorer.local.simulator.faults`; None is the same as nothing.
        """
        given = {"path": "score"} | {name: value for name, value in words.items() if value is not None}
        match = {name: value for name, value in given.items() if name in FaultMatch.model_fields}
        action = {name: value for name, value in given.items() if name not in match}
        self._call("POST", "faults", [{"match": match, "times": times, "after": after, "action": action}])

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

    def scored(self, *, minimum: int = 1) -> dict[str, int]:
        """How often each contact was scored, by id; only those that were scored ``minimum`` times or more."""
        scored: dict[str, int] = self._call("GET", f"scored?minimum={minimum}")
        return scored

    def contact_list(self) -> dict[str, ListedContact]:
        """What was added to the contact list, by contact id."""
        contacts: dict[str, dict[str, Any]] = self._call("GET", "contact-list")
        return {contact_id: ListedContact(**fields) for contact_id, fields in contacts.items()}

    def configure(self, **changes: Any) -> None:
        """Changes fields of `SimulatorConfig` while it runs."""
        self._call("PATCH", "config", changes)

    def play(self, scenario: Scenario) -> None:
        """Plays a scenario from the next request on, instead of the one that is played now."""
        self._call("PUT", "scenario", scenario.model_dump(mode="json", exclude_unset=True, by_alias=True))

    def playing(self) -> PlayState | None:
        """How far the scenario is; None: there is none."""
        state = self._call("GET", "scenario")
        return None if state is None else PlayState.of(state)

    def stop_playing(self) -> None:
        """Ends the scenario and takes its faults and changes back."""
        self._call("DELETE", "scenario")

    def revoke_tokens(self) -> int:
        """Makes every token worthless; how many there were."""
        revoked: int = self._call("POST", "revoke-tokens")["revoked"]
        return revoked

    def reset(self) -> None:
        """Back to the first configuration, with no faults, no tokens and an empty account."""
        self._call("POST", "reset")

    def _call(self, method: str, what: str, content: Any = None) -> Any:
        data = None if content is None else orjson.dumps(content)
        try:
            answer = self._session.request(method, f"{self.base_url}/_simulator/{what}", data=data, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            reason = f"does not answer ({type(error).__name__})"
            raise LocalError(f"the simulator at {self.base_url} {reason}: is it running?") from None
        if answer.status_code == requests.codes.bad_request:
            raise SettingsError(orjson.loads(answer.content)["error"])
        if not answer.ok:
            raise LocalError(f"{self.base_url} answers {answer.status_code} to {method} {what}: it is no simulator")
        return orjson.loads(answer.content) if answer.content else None
