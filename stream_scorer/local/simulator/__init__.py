"""Simulator of the Genesys Cloud scoring API, with scripted faults and a record of billed contacts.

``with Simulator(SimulatorConfig(latency_ms=20)) as simulator:`` starts one in a process of its own, with a
``base_url``; `SimulatorControl` configures a running one. Over HTTP: see `stream_scorer.local.simulator.app`.
"""

from stream_scorer.local.simulator.config import SimulatorConfig
from stream_scorer.local.simulator.control import SimulatorControl
from stream_scorer.local.simulator.faults import Fault, FaultAction, FaultMatch
from stream_scorer.local.simulator.launcher import Simulator, ThreadedSimulator, serve
from stream_scorer.local.simulator.request_log import Stats
from stream_scorer.local.simulator.scenario import Scenario, load_scenario
from stream_scorer.local.simulator.scenario_player import PlayState

__all__ = [
    "Fault",
    "FaultAction",
    "FaultMatch",
    "PlayState",
    "Scenario",
    "Simulator",
    "SimulatorConfig",
    "SimulatorControl",
    "Stats",
    "ThreadedSimulator",
    "load_scenario",
    "serve",
]
