"""Control endpoints of the receiver, by which scripts configure it; see the list in `app`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from stream_scorer.local.http_server.control_app import json_answer, make_control_app
from stream_scorer.local.receiver.faults import Fault

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from stream_scorer.local.http_server.fault_script import FaultScript
    from stream_scorer.local.receiver.delivery_log import DeliveryLog


def control_app(log: DeliveryLog, faults: FaultScript[Fault], prefix: str) -> Starlette:
    """Return the Starlette application for the endpoints below ``prefix``."""

    async def callbacks(_: Request) -> Response:
        return json_answer(log.listed())

    async def contacts(_: Request) -> Response:
        return json_answer(log.contacts)

    def reset() -> None:
        faults.clear()
        log.reset()

    routes = [Route("/callbacks", callbacks), Route("/contacts", contacts)]
    return make_control_app(prefix, faults, Fault, stats=log.stats, reset=reset, routes=routes)
