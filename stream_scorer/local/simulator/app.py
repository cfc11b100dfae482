"""ASGI application of the simulator.

The platform's endpoints (tokens, scores, a contact list) are plain ASGI, because benchmarks run them beside the worker;
``GET /openapi.json`` describes them (`stream_scorer.local.simulator.openapi`). The control endpoints, all below
``/_simulator``, use Starlette:

=========================  =============================================================================================
``GET    /health``         204 once it runs
``GET    /stats``          the record: `stream_scorer.local.simulator.request_log.Stats`
``GET    /scored``         contact id -> number of times that it was scored, and so billed; ``?minimum=2`` selects
                           those with so many or more
``GET    /contact-list``   contact id -> added contact: `stream_scorer.local.simulator.contact_list.ListedContact`;
                           ``?list=…`` selects another list than the first
``GET    /dialler``        number of contacts, of those in a dial queue, and of calls, over all lists
``GET    /dial-queue``     ids of the contacts to be dialled, the next one first; ``?list=…``
``POST   /dial``           dials: ``{"list", "contacts", "wrap_up"}``, each optional; answers the calls
``GET    /dials``          all calls: `stream_scorer.local.simulator.contact_list.Dial`
``GET    /dialled``        calls by person and score: `stream_scorer.local.simulator.contact_list.DialCount`;
                           ``?person=…``, ``?score=…``: the columns; ``?minimum=2`` selects
``POST   /opt-out``        ``{"list", "ids"}``: these contacts are not callable
``GET    /faults``         the active script with ``seen`` and ``fired``
``POST   /faults``         adds a list of faults (see `stream_scorer.local.simulator.faults`); answers like ``GET``
``DELETE /faults``         removes all faults
``GET    /scenario``       state of the scenario: `stream_scorer.local.simulator.scenario_player.PlayState`
``PUT    /scenario``       plays a scenario from the next request on (`stream_scorer.local.simulator.scenario`)
``DELETE /scenario``       ends it and undoes its changes
``POST   /revoke-tokens``  revokes all tokens
``GET    /config``         the configuration, without the secret
``PATCH  /config``         changes fields (`stream_scorer.local.simulator.config.SimulatorConfig`); answers like
                           ``GET``
``POST   /reset``          restores the first configuration, without scenario, faults, tokens and records
=========================  =============================================================================================

A malformed script gets a 400 ``{"error": one line}`` and changes nothing.
"""

from __future__ import annotations

import asyncio
import random
import re
import uuid
from functools import partial
from typing import TYPE_CHECKING

import orjson

from stream_scorer.local.http_server.transport_faults import FaultyTransport
from stream_scorer.local.simulator.api import SimulatedApi
from stream_scorer.local.simulator.config import OUTBOUND_SCOPE
from stream_scorer.local.simulator.control_routes import control_app
from stream_scorer.local.simulator.fault_script import RequestSummary, asked_in
from stream_scorer.local.simulator.openapi import describe
from stream_scorer.local.simulator.outbound import (
    ADD_PATH,
    LIST_PATH,
    READ_PATH,
    added_contacts,
    described_list,
    read_contacts,
)
from stream_scorer.local.simulator.replies import Reply, platform_error
from stream_scorer.local.simulator.request_log import DROPPED
from stream_scorer.local.simulator.scripted_reply import scripted_reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from stream_scorer.local.http_server.models import Transfer
    from stream_scorer.local.simulator.config import SimulatorConfig
    from stream_scorer.local.simulator.faults import FaultAction, FaultPath

OPENAPI_PATH = "/openapi.json"
TOKEN_PATH = "/oauth/token"  # noqa: S105 - a path  # nosec B105
SCORE_PATH = re.compile(r"/api/v2/predictiveengagement/models/([^/]+)/score")
CONTROL_PREFIX = "/_simulator/"
# Read limit for bodies that are too large: a client that is disconnected while it sends receives no 413.
READ_LIMIT = 64 * 1024 * 1024


class ClientGone(Exception):
    """The client disconnected before its request was complete."""


class SimulatorApp:
    """Application that reads requests, applies faults and latency, and sends the answers of `SimulatedApi`."""

    def __init__(self, config: SimulatorConfig) -> None:
        self.api = SimulatedApi(config)
        self._control = control_app(self.api, CONTROL_PREFIX.rstrip("/"))
        self._jitter = random.Random(0)  # noqa: S311 - not a secret, and every run has the same latencies  # nosec B311

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI request."""
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        if path.startswith(CONTROL_PREFIX):
            await self._control(scope, receive, send)
            return
        exchange = _Exchange(self.api, scope, receive, send)
        try:
            if found := SCORE_PATH.fullmatch(path):
                await self._score(exchange, found[1])
            elif path == TOKEN_PATH:
                await self._token(exchange)
            elif found := ADD_PATH.fullmatch(path):
                await self._add_contacts(exchange, found[1])
            elif found := LIST_PATH.fullmatch(path):
                await self._contact_list(exchange, found[1])
            elif found := READ_PATH.fullmatch(path):
                await self._read_contacts(exchange, found[1])
            elif path == OPENAPI_PATH:
                await self._describe(exchange)
            else:
                await exchange.answer("other", exchange.error(404, f"There is nothing at {path}."))
        except ClientGone:
            self.api.request_log.finished("other", DROPPED)

    async def _token(self, exchange: _Exchange) -> None:
        self.api.arrived()
        body = await exchange.body()
        if exchange.method != "POST":
            await exchange.answer("token", exchange.wrong_method("POST"))
            return
        action = self.api.faults.take("token")
        if action is not None and await self._spoil(exchange, "token", action, RequestSummary):
            return
        reply = self.api.token(exchange.headers, body)
        await self._finish(exchange, "token", reply, action)

    async def _score(self, exchange: _Exchange, model_id: str) -> None:
        self.api.arrived()
        self.api.request_log.begun()
        try:
            body = await exchange.body()
            self.api.request_log.asked(body)
            due = asyncio.get_running_loop().time() + self._latency_s()
            if exchange.method != "POST":
                await exchange.answer("score", exchange.wrong_method("POST"))
                return
            if refusal := self.api.admit(exchange.headers, exchange.context_id):
                await exchange.answer("score", refusal)
                return
            asked = partial(asked_in, body)
            action = self.api.faults.take("score", asked)
            if action is not None and await self._spoil(exchange, "score", action, asked):
                return
            edits = () if action is None else action.results
            reply = self.api.score(model_id, exchange.headers, body, exchange.context_id, edits)
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            await self._finish(exchange, "score", reply, action)
        finally:
            self.api.request_log.ended()

    async def _add_contacts(self, exchange: _Exchange, list_id: str) -> None:
        def reply(body: bytes) -> Reply:
            api, query, headers = self.api, exchange.query, exchange.headers
            listed = api.dialler.list_of(list_id)
            return added_contacts(listed, query, headers, body, config=api.config, context_id=exchange.context_id)

        await self._outbound(exchange, "outbound", "POST", reply)

    async def _read_contacts(self, exchange: _Exchange, list_id: str) -> None:
        def reply(body: bytes) -> Reply:
            listed = self.api.dialler.list_of(list_id)
            return read_contacts(listed, exchange.headers, body, config=self.api.config, context_id=exchange.context_id)

        await self._outbound(exchange, "outbound_read", "POST", reply)

    async def _contact_list(self, exchange: _Exchange, list_id: str) -> None:
        def reply(_body: bytes) -> Reply:
            listed = self.api.dialler.list_of(list_id)
            return described_list(listed, self.api.config, context_id=exchange.context_id)

        await self._outbound(exchange, "outbound_list", "GET", reply)

    async def _outbound(
        self, exchange: _Exchange, path: FaultPath, method: str, answer: Callable[[bytes], Reply]
    ) -> None:
        self.api.arrived()
        body = await exchange.body()
        if exchange.method != method:
            await exchange.answer(path, exchange.wrong_method(method))
            return
        if refusal := self.api.admit(exchange.headers, exchange.context_id, OUTBOUND_SCOPE):
            await exchange.answer(path, refusal)
            return
        action = self.api.faults.take(path)
        if action is not None and await self._spoil(exchange, path, action, RequestSummary):
            return
        await self._finish(exchange, path, answer(body), action)

    async def _describe(self, exchange: _Exchange) -> None:
        if exchange.method in {"GET", "HEAD"}:
            reply = Reply(200, orjson.dumps(describe(self.api.config)))
        else:
            reply = exchange.wrong_method("GET, HEAD")
        await exchange.answer("other", reply)

    def _latency_s(self) -> float:
        config = self.api.config
        jitter_ms = self._jitter.uniform(0, config.latency_jitter_ms) if config.latency_jitter_ms else 0.0
        return (config.latency_ms + jitter_ms) / 1000

    async def _spoil(
        self, exchange: _Exchange, path: FaultPath, action: FaultAction, asked: Callable[[], RequestSummary]
    ) -> bool:
        """Apply a fault before the request is processed; return whether it has ended the request."""
        await asyncio.sleep(action.delay_ms / 1000)
        if action.drop == "before":
            await exchange.drop(path)
            return True
        if action.status is not None:
            if action.revoke_tokens:
                self.api.tokens.revoke_all()
            reply = scripted_reply(path, action, asked, context_id=exchange.context_id)
            await exchange.answer(path, reply, action.transfer)
            return True
        return False

    async def _finish(self, exchange: _Exchange, path: FaultPath, reply: Reply, action: FaultAction | None) -> None:
        if action is not None and action.drop == "after":
            await exchange.drop(path)
        else:
            await exchange.answer(path, reply, None if action is None else action.transfer)


class _Exchange:
    """One request and its answer."""

    def __init__(self, api: SimulatedApi, scope: Scope, receive: Receive, send: Send) -> None:
        self._api, self._receive = api, receive
        self._wire = FaultyTransport(scope, receive, send)
        self.method: str = scope["method"]
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.context_id = str(uuid.uuid4())

    def error(self, status: int, message: str) -> Reply:
        """Return an error in the platform's format."""
        return platform_error(status, message, context_id=self.context_id)

    def wrong_method(self, allowed: str) -> Reply:
        """Return the error for any other method."""
        text = f"Use {allowed}."
        return platform_error(405, text, context_id=self.context_id, headers=(("Allow", allowed),))

    async def body(self) -> bytes:
        """Return the whole body, or its first 64 MiB."""
        chunks: list[bytes] = []
        size, more = 0, True
        while more and size <= READ_LIMIT:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            more = message.get("more_body", False)
        return b"".join(chunks)

    async def answer(self, path: str, reply: Reply, transfer: Transfer | None = None) -> None:
        """Record the reply and send it."""
        self._api.request_log.finished(path, reply.status)
        headers = {
            b"content-type": reply.content_type.encode(),
            **self._api.common_headers(self.context_id),
            **{
                name.lower().encode(): value.encode() for name, value in reply.headers
            },  # a script may override any header
        }
        await self._wire.send(reply.status, headers, reply.body, transfer)

    async def drop(self, path: str) -> None:
        """Close the connection without an answer."""
        self._api.request_log.finished(path, DROPPED)
        await self._wire.drop()
