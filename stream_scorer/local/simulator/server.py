"""The simulator behind uvicorn. Imported only where the extra [local] is known to be there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from stream_scorer.local.simulator.app import SimulatorApp

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType

    from stream_scorer.local.simulator.config import SimulatorConfig

# Longer than any client of ours rests between two requests: a connection closed under a request is a fault to script.
KEEP_ALIVE_S = 120
STOP_S = 1


class _GivesTransport(asyncio.Protocol):
    """Puts the connection's transport into the ASGI scope's ``state``, so that the application can drop it."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


# uvicorn chooses httptools where it is installed and h11 elsewhere; the base is not known before.
_Protocol: type[asyncio.Protocol] = type("DroppableProtocol", (_GivesTransport, AutoHTTPProtocol), {})


class SimulatorServer(uvicorn.Server):
    """One server, on a socket that is bound already: ``run(sockets=[socket])`` returns after SIGINT or SIGTERM."""

    def __init__(self, config: SimulatorConfig, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                SimulatorApp(config),
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
        """Calls `on_ready` as soon as requests are answered."""
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """A signal ends it in peace, a second one at once. uvicorn would raise the signal again afterwards."""
        self.force_exit = self.should_exit
        self.should_exit = True
