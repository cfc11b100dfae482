"""Uvicorn servers of the local simulators. Imported only after `require_extra` has found the extra [local]."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Longer than the pause of any client between two requests: closing under a request must be a scripted fault only.
KEEP_ALIVE_S = 120
STOP_S = 1


class _GivesTransport(asyncio.Protocol):
    """Protocol mixin that adds the connection's transport to the ASGI scope's ``state``, so that faults can drop it."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio sets it only for sockets with an explicit TCP protocol number, unlike those of `socket.create_server`.
        # Otherwise an answer in two packets waits for the client's delayed acknowledgement, 40 ms for every small
        # request.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


# uvicorn chooses httptools if it is installed, else h11, so the base class is known only at run time.
_Protocol: type[asyncio.Protocol] = type("DroppableProtocol", (_GivesTransport, AutoHTTPProtocol), {})


class AsgiServer(uvicorn.Server):
    """Server on a bound socket: ``run(sockets=[socket])`` returns after SIGINT or SIGTERM.

    Args:
        app: the application.
        on_ready: called once the server answers requests.
        print_access: receives one line for each request; None: no lines.
    """

    def __init__(
        self, app: ASGIApp, on_ready: Callable[[], None], print_access: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app if print_access is None else AccessLines(app, print_access),
                http=_Protocol,
                loop="asyncio",
                ws="none",
                lifespan="off",
                interface="asgi3",
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=STOP_S,
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call `on_ready` once requests are answered."""
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """End on a signal gracefully, on a second one immediately. uvicorn would raise the signal again afterwards."""
        self.force_exit = self.should_exit
        self.should_exit = True


class AccessLines:
    """ASGI middleware that prints a line for each request: time, client, method, path, status, milliseconds.

    Query and headers are omitted: they may hold a secret. A request with a dropped connection has ``-`` as its status.
    """

    def __init__(self, app: ASGIApp, print_line: Callable[[str], None]) -> None:
        self._app = app
        self._print_line = print_line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), "-"

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            client = scope["client"][0] if scope.get("client") else "-"
            path = scope["raw_path"].decode("latin-1")  # percent-encoded: no character can break the line
            at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            took_ms = (time.monotonic() - started) * 1000.0
            self._print_line(f"{at} {client} {scope['method']} {path} {status} {took_ms:.0f} ms")


def serve_order(make_server: Callable[[Any, Callable[[], None]], AsgiServer]) -> None:
    """Serve in a process started by `ServerProcess` (`local.http_server.process`), until the parent closes the pipe.

    The order is one line of JSON on standard input, ``{"fd": the bound socket, "config": …}``; the answer is the line
    ``ready``. However the parent ends, its end of the pipe is closed, so no server outlives its test.

    Args:
        make_server: receives the order's ``config`` and the function to call once requests are answered.
    """
    order = json.loads(sys.stdin.buffer.readline())
    listener = socket.socket(fileno=order["fd"])
    server = make_server(order["config"], _report_ready)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.freeze()  # loaded modules stay: collections skip them
    gc.set_threshold(100_000)  # a request creates thousands of objects without cycles
    server.run(sockets=[listener])


def _report_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    # os.read and not sys.stdin: the interpreter cannot end a thread that holds the lock of sys.stdin.
    while os.read(0, 4096):
        pass
    os._exit(0)  # without cleanup: there is no state to save
