"""Control endpoints of the simulator, by which scripts configure it; see the list in `app`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from stream_scorer.errors import SettingsError
from stream_scorer.local.http_server.control_app import json_answer, json_content, make_control_app, no_content
from stream_scorer.local.simulator.dial_orders import DialOrder, OptOutOrder, parse_order
from stream_scorer.local.simulator.faults import Fault
from stream_scorer.local.simulator.scenario import parse_scenario

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from stream_scorer.local.simulator.api import SimulatedApi
    from stream_scorer.local.simulator.contact_list import ContactList


def control_app(api: SimulatedApi, prefix: str) -> Starlette:
    """Return the Starlette application for the endpoints below ``prefix``."""
    routes = _Routes(api)
    return make_control_app(
        prefix,
        api.faults,
        Fault,
        stats=api.stats,
        reset=api.reset,
        routes=[
            Route("/scored", routes.scored),
            Route("/contact-list", routes.contact_list),
            Route("/dialler", routes.dialler),
            Route("/dial-queue", routes.dial_queue),
            Route("/dial", routes.dial, methods=["POST"]),
            Route("/dials", routes.dials),
            Route("/dialled", routes.dialled),
            Route("/opt-out", routes.opt_out, methods=["POST"]),
            Route("/config", routes.config),
            Route("/config", routes.change_config, methods=["PATCH"]),
            Route("/scenario", routes.scenario),
            Route("/scenario", routes.play, methods=["PUT"]),
            Route("/scenario", routes.stop_playing, methods=["DELETE"]),
            Route("/revoke-tokens", routes.revoke_tokens, methods=["POST"]),
        ],
    )


class _Routes:
    """Handlers. Each runs in the event loop without interruption, so its data are consistent."""

    def __init__(self, api: SimulatedApi) -> None:
        self._api = api

    async def scored(self, request: Request) -> Response:
        minimum, scored = _minimum(request), self._api.request_log.scored
        return json_answer(
            scored if minimum <= 1 else {key: times for key, times in scored.items() if times >= minimum}
        )

    async def contact_list(self, request: Request) -> Response:
        return json_answer(self._list(request.query_params.get("list")).contacts)

    async def dialler(self, _: Request) -> Response:
        self._api.advance_dialler()
        return json_answer(self._api.dialler.totals()._asdict())

    async def dial_queue(self, request: Request) -> Response:
        return json_answer(self._list(request.query_params.get("list")).waiting())

    async def dial(self, request: Request) -> Response:
        order = parse_order(DialOrder, await json_content(request))
        self._api.advance_dialler()
        list_id = order.list or self._api.config.contact_list_id
        return json_answer(self._api.dial(list_id, contacts=order.contacts, wrap_up=order.wrap_up))

    async def dials(self, _: Request) -> Response:
        self._api.advance_dialler()
        return json_answer(self._api.dialler.dials)

    async def dialled(self, request: Request) -> Response:
        self._api.advance_dialler()
        query = request.query_params
        counts = self._api.dialler.counts(query.get("person"), query.get("score", "scored_at"), _minimum(request))
        return json_answer([count._asdict() for count in counts])

    async def opt_out(self, request: Request) -> Response:
        order = parse_order(OptOutOrder, await json_content(request))
        self._list(order.list).opt_out(order.ids)
        return no_content()

    async def config(self, _: Request) -> Response:
        return json_answer(self._api.config.model_dump(mode="json", exclude={"client_secret"}))

    async def change_config(self, request: Request) -> Response:
        changes = await json_content(request)
        if not isinstance(changes, dict):
            raise SettingsError("simulator configuration: the changes must be a JSON object")
        self._api.change(changes)
        return await self.config(request)

    async def scenario(self, _: Request) -> Response:
        return json_answer(self._api.playing())

    async def play(self, request: Request) -> Response:
        self._api.play(parse_scenario(await json_content(request), "in the body"))
        return json_answer(self._api.playing())

    async def stop_playing(self, _: Request) -> Response:
        self._api.stop_playing()
        return no_content()

    async def revoke_tokens(self, _: Request) -> Response:
        return json_answer({"revoked": self._api.tokens.revoke_all()})

    def _list(self, list_id: str | None) -> ContactList:
        """Return a contact list, by default the first, after the calls that are due."""
        self._api.advance_dialler()
        list_id = list_id or self._api.config.contact_list_id
        if list_id not in self._api.config.lists():
            raise SettingsError(f"there is no contact list '{list_id}'")
        return self._api.dialler.list_of(list_id)


def _minimum(request: Request) -> int:
    text = request.query_params.get("minimum", "1")
    if not text.isdecimal():
        raise SettingsError("minimum: must be a whole number")
    return int(text)
