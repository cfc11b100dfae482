"""ASGI application of the receiver.

``POST /callbacks`` accepts callbacks. It answers 200 for an accepted callback, new or repeated; 401 for a signature
that is missing, wrong, or off by more than five minutes; 400 for a signed body that is not a callback; 409 for a known
id with a different body. The control endpoints are below ``/_receiver``:

=====================  =================================================================================================
``GET    /health``     204 once it runs
``GET    /stats``      the record: `stream_scorer.local.receiver.delivery_log.Stats`
``GET    /callbacks``  callback id -> its deliveries: `stream_scorer.local.receiver.delivery_log.Delivery`
``GET    /contacts``   contact id -> number of different accepted callbacks with it
``GET    /faults``     the active script with ``seen`` and ``fired``
``POST   /faults``     adds a list of faults (see `stream_scorer.local.receiver.faults`); answers like ``GET``
``DELETE /faults``     removes all faults
``POST   /reset``      removes faults and records
=====================  =================================================================================================

A malformed script gets a 400 ``{"error": one line}`` and changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import orjson
from standardwebhooks import Webhook, WebhookVerificationError

from stream_scorer.local.http_server.fault_script import FaultScript
from stream_scorer.local.http_server.transport_faults import FaultyTransport
from stream_scorer.local.receiver.control_routes import control_app
from stream_scorer.local.receiver.delivery_log import (
    DROPPED,
    HUNG,
    DeliveryLog,
    MalformedCallback,
    ReceivedCallback,
    read_callback,
)

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from stream_scorer.local.receiver.config import ReceiverConfig
    from stream_scorer.local.receiver.faults import Fault, FaultAction

CALLBACKS_PATH = "/callbacks"
CONTROL_PREFIX = "/_receiver"
READ_LIMIT = 1024 * 1024
JSON_TYPE = {b"content-type": b"application/json"}


class _Refused(Exception):
    """The request is not a valid callback; with status and reason."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _ClientGone(Exception):
    """The client disconnected before its request was complete."""


class ReceiverApp:
    """Application that verifies callbacks, then fails as scripted or records them, then answers."""

    def __init__(self, config: ReceiverConfig) -> None:
        self.log = DeliveryLog()
        self.faults: FaultScript[Fault] = FaultScript()
        self._latency_s = config.latency_ms / 1000
        self._webhook = Webhook(config.secret)
        self._control = control_app(self.log, self.faults, CONTROL_PREFIX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI request."""
        if scope["type"] != "http":
            return
        if scope["path"].startswith(f"{CONTROL_PREFIX}/"):
            await self._control(scope, receive, send)
            return
        wire = FaultyTransport(scope, receive, send)
        self.log.begun()
        try:
            arrival = self._arrival(scope, await _body(scope, receive))
            await self._take(arrival, wire, receive)
        except _Refused as refused:
            await self._answer(wire, refused.status, {"error": str(refused)})
        except _ClientGone:
            self.log.finished(DROPPED)
        finally:
            self.log.ended()

    def _arrival(self, scope: Scope, body: bytes) -> ReceivedCallback:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            content = self._webhook.verify(body, headers)
        except (WebhookVerificationError, ValueError):  # raised for malformed signatures and bodies
            self.log.unverified += 1
            raise _Refused(401, "the signature cannot be verified: check the secret, and the clocks of both") from None
        try:
            arrival = read_callback(headers["webhook-id"], content, body)
        except MalformedCallback as malformed:
            raise _Refused(400, str(malformed)) from None
        if not self.log.attempted(arrival, _now_ms()):
            raise _Refused(409, "this callback id was received before with a different body")
        return arrival

    async def _take(self, arrival: ReceivedCallback, wire: FaultyTransport, receive: Receive) -> None:
        fault = self.faults.next_due(lambda fault, _: fault.match.concerns(arrival))
        if fault is None:
            await asyncio.sleep(self._latency_s)
            self.log.accepted(arrival, _now_ms())
            await self._answer(wire, 200, {"received": arrival.callback_id})
        else:
            await asyncio.sleep(self._latency_s + fault.action.delay_ms / 1000)
            await self._spoil(arrival, fault.action, wire, receive)

    async def _spoil(
        self, arrival: ReceivedCallback, action: FaultAction, wire: FaultyTransport, receive: Receive
    ) -> None:
        if action.hang:
            self.log.finished(HUNG)
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        if action.status is not None:
            self.log.finished(action.status)
            given = {name.lower().encode(): value.encode() for name, value in action.headers.items()}
            later = {} if action.retry_after is None else {b"retry-after": action.retry_after.encode()}
            headers = {b"content-type": b"text/plain", **later, **given}
            await wire.send(action.status, headers, action.body.encode(), action.transfer)
            return
        if action.drop != "before":
            self.log.accepted(arrival, _now_ms())
        if action.drop is not None:
            self.log.finished(DROPPED)
            await wire.drop()
            return
        self.log.finished(200)
        await wire.send(200, JSON_TYPE, orjson.dumps({"received": arrival.callback_id}), action.transfer)

    async def _answer(self, wire: FaultyTransport, status: int, content: Any) -> None:
        self.log.finished(status)
        await wire.send(status, JSON_TYPE, orjson.dumps(content), None)


async def _body(scope: Scope, receive: Receive) -> bytes:
    """Return the body of a callback request."""
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > READ_LIMIT:
            raise _Refused(413, f"more than {READ_LIMIT} bytes")
        more = message.get("more_body", False)
    if scope["path"] != CALLBACKS_PATH:
        raise _Refused(404, f"callbacks go to {CALLBACKS_PATH}")
    if scope["method"] != "POST":
        raise _Refused(405, "use POST")
    return b"".join(chunks)


def _now_ms() -> int:
    return int(time.time() * 1000)
