"""The simulator behind uvicorn. Imported only where the extra [local] is known to be there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.local.http_server.asgi import AsgiServer
from stream_scorer.local.simulator.app import SimulatorApp

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.local.simulator.config import SimulatorConfig


class SimulatorServer(AsgiServer):
    """One simulator, on a socket that is bound already."""

    def __init__(
        self,
        config: SimulatorConfig,
        on_ready: Callable[[], None],
        print_access: Callable[[str], None] | None = None,
    ) -> None:
        app = SimulatorApp(config)
        self.api = app.api
        super().__init__(app, on_ready, print_access)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: the steps of a scenario are told when they begin, not when the next request comes."""
        self.api.catch_up()
        return await super().on_tick(counter)
