"""Uvicorn server of the simulator. Imported only after `require_extra` has found the extra [local]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.local.http_server.asgi import AsgiServer
from stream_scorer.local.simulator.app import SimulatorApp

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.local.simulator.config import SimulatorConfig


class SimulatorServer(AsgiServer):
    """Simulator on a bound socket."""

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
        """Advance the scenario ten times a second, so that steps begin on time and not with the next request."""
        self.api.catch_up()
        return await super().on_tick(counter)
