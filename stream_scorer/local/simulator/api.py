"""Answers of the simulated platform, without sockets and waiting, which are in `app`."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

from stream_scorer.core.parse_errors import parse_error_place
from stream_scorer.errors import SettingsError
from stream_scorer.local.simulator.config import SCORE_SCOPE, SimulatorConfig
from stream_scorer.local.simulator.contact_list import Dialler
from stream_scorer.local.simulator.fault_script import FaultBook
from stream_scorer.local.simulator.quota import QuotaWindow
from stream_scorer.local.simulator.replies import Reply, platform_error
from stream_scorer.local.simulator.request_log import RequestLog, Stats
from stream_scorer.local.simulator.response_faults import damaged
from stream_scorer.local.simulator.scenario_player import PlayState, ScenarioPlayer
from stream_scorer.local.simulator.scoring import Model
from stream_scorer.local.simulator.tokens import TokenEndpoint
from stream_scorer.local.simulator.validation import BadRequest, UnknownVersion, form_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_scorer.local.simulator.contact_list import Dial, WrapUp
    from stream_scorer.local.simulator.faults import ResultEdit
    from stream_scorer.local.simulator.scenario import Scenario


class SimulatedApi:
    """Simulated platform: one client, one model, one quota, one script of faults."""

    def __init__(
        self,
        config: SimulatorConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Configure it; `clock` returns monotonic seconds, `wall_clock` Unix seconds."""
        self._initial = config
        self._clock = clock
        self._wall_clock = wall_clock
        self.tokens = TokenEndpoint()
        self.faults = FaultBook()
        self.request_log = RequestLog()
        self.dialler = Dialler()
        self._quota = QuotaWindow()
        self._player: ScenarioPlayer | None = None
        self._chosen = config
        self._scene: Mapping[str, Any] = {}
        self._configure()

    # --- for scripts

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change the configuration from the next request on; after a SettingsError nothing is changed.

        If a scenario sets the same field, the scenario's value applies while its step lasts.
        """
        self.advance_dialler()
        self._chosen = self._chosen.changed(changes)
        self._configure()
        self.advance_dialler()  # a new rate counts from now on

    def reset(self) -> None:
        """Reset to the first configuration, without scenario, faults, tokens, quota use and records."""
        self.stop_playing()
        self.tokens.revoke_all()
        self.faults.clear()
        self.request_log = self.request_log.restarted()
        self.dialler = Dialler()
        self._quota = QuotaWindow()
        self._chosen = self._initial
        self._configure()

    def play(self, scenario: Scenario, report: Callable[[str], object] = lambda _line: None) -> None:
        """Play a scenario from the next request on, and end the current one.

        ``report`` is called with a line at the start and end of each step.
        """
        self.stop_playing()
        self._player = ScenarioPlayer(
            scenario, self.faults, revoke_tokens=self.tokens.revoke_all, configure=self._set_scene, report=report
        )

    def stop_playing(self) -> None:
        """End the scenario and undo its faults and changes."""
        if self._player is not None:
            self._player.leave()
            self._player = None

    def playing(self) -> PlayState | None:
        """Return the state of the scenario; None: there is none."""
        self.catch_up()
        return None if self._player is None else self._player.state(self._clock())

    def catch_up(self) -> None:
        """Begin and end the due steps of the scenario."""
        if self._player is not None:
            self._player.catch_up(self._clock())

    def stats(self) -> Stats:
        """Return the current record of requests."""
        count, allowed, reset_s = self._quota_reading()
        return self.request_log.stats(quota_count=count, quota_allowed=allowed, quota_reset_s=reset_s)

    def dial(self, list_id: str, *, contacts: int | None = None, wrap_up: WrapUp = "CONTACTED") -> list[Dial]:
        """Call the next contacts of a list, all that wait if ``contacts`` is None; return the calls.

        Raises:
            SettingsError: there is no such list.
        """
        columns = self.config.lists().get(list_id)
        if columns is None:
            raise SettingsError(f"there is no contact list '{list_id}'")
        return self.dialler.dial(
            list_id,
            columns,
            contacts=contacts,
            wrap_up=wrap_up,
            max_attempts=self.config.max_attempts,
            at_ms=int(self._wall_clock() * 1000),
        )

    def advance_dialler(self) -> None:
        """Make the calls of ``dials_per_s`` that were due since the last time."""
        self.dialler.advance(
            self._clock(),
            self.config.lists(),
            dials_per_s=self.config.dials_per_s,
            max_attempts=self.config.max_attempts,
            at_ms=int(self._wall_clock() * 1000),
        )

    # --- for clients

    def arrived(self) -> None:
        """Record the arrival of a request to the platform; what was due before it happens first."""
        self.advance_dialler()
        self.request_log.arrived(int(self._wall_clock() * 1000))
        if self._player is not None:
            self._player.begin(self._clock())
            self.catch_up()

    def token(self, headers: Mapping[bytes, bytes], body: bytes) -> Reply:
        """Answer ``POST /oauth/token``."""
        reply = self.tokens.answer(headers, body, self.config, self._clock())
        self.request_log.tokens_issued += reply.status == 200  # noqa: PLR2004 - OK
        return reply

    def admit(self, headers: Mapping[bytes, bytes], context_id: str, needed: str = SCORE_SCOPE) -> Reply | None:
        """Check authentication, scope and quota, in this order; None: the request is admitted, and counted."""
        config, now = self.config, self._clock()
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            text = "No authentication bearer token specified in authorization header."
            return platform_error(HTTPStatus.UNAUTHORIZED, text, context_id=context_id)
        if not self.tokens.valid(token.decode("latin-1"), now):
            return platform_error(
                HTTPStatus.UNAUTHORIZED, "Invalid login credentials.", context_id=context_id, code="bad.credentials"
            )
        if needed not in config.scopes:
            text = f"Unable to perform the requested action. You are missing the following permission(s): {needed}"
            return platform_error(403, text, context_id=context_id)
        if self._quota.take(now, allowed=config.quota, length_s=config.quota_window_s):
            return None
        retry_after = str(max(1, self._quota.reset_s(now, length_s=config.quota_window_s)))
        text = f"Rate limit of {config.quota} requests in {config.quota_window_s:g} seconds exceeded."
        return platform_error(429, text, context_id=context_id, headers=(("Retry-After", retry_after),))

    def score(
        self,
        model_id: str,
        headers: Mapping[bytes, bytes],
        body: bytes,
        context_id: str,
        edits: Sequence[ResultEdit] = (),
    ) -> Reply:
        """Answer an admitted ``POST …/predictiveengagement/models/{model_id}/score``; ``edits`` damage the results."""
        if refusal := self._refusal(model_id, headers, len(body)):
            return platform_error(*refusal, context_id=context_id)
        try:
            contact_ids, results = self._model.score(orjson.loads(body))
        except orjson.JSONDecodeError as error:
            return platform_error(400, f"The body is not JSON{parse_error_place(error)}.", context_id=context_id)
        except BadRequest as error:
            worst = error.complaints
            return platform_error(400, str(error), context_id=context_id, code=worst[0].code, complaints=worst)
        except UnknownVersion as error:
            return platform_error(404, f"The model version '{error}' was not found.", context_id=context_id)
        self.request_log.paid(contact_ids, len(contact_ids))
        return Reply(200, orjson.dumps({"results": damaged(results, edits) if edits else results}))

    def common_headers(self, context_id: str) -> dict[bytes, bytes]:
        """Return the headers of every answer: the correlation id and the state of the quota."""
        count, allowed, reset_s = self._quota_reading()
        return {
            b"inin-correlation-id": context_id.encode(),
            b"inin-ratelimit-count": b"%d" % count,
            b"inin-ratelimit-allowed": b"%d" % allowed,
            b"inin-ratelimit-reset": b"%d" % reset_s,
        }

    def _refusal(self, model_id: str, headers: Mapping[bytes, bytes], size: int) -> tuple[int, str] | None:
        """Return the error of a request before its body is read: status and message."""
        if model_id != self.config.model_id:
            return 404, f"The model '{model_id}' was not found."
        return form_error(headers, size, self.config)

    def _set_scene(self, changes: Mapping[str, Any]) -> None:
        self._scene = changes
        self._configure()

    def _configure(self) -> None:
        self.config = self._chosen.changed(self._scene)
        self._model = Model(self.config)

    def _quota_reading(self) -> tuple[int, int, int]:
        now = self._clock()
        return self._quota.count(now), self.config.quota, self._quota.reset_s(now, length_s=self.config.quota_window_s)
