"""Campaign manager for the demo and the tests: verifies signatures, records callbacks, fails as scripted.

``with Receiver() as receiver:`` starts one in a process of its own, with a ``url``; `ReceiverControl` configures a
running one. Over HTTP: see `stream_scorer.local.receiver.app`.
"""

from stream_scorer.local.receiver.config import ReceiverConfig
from stream_scorer.local.receiver.control import ReceiverControl
from stream_scorer.local.receiver.delivery_log import Delivery, Stats
from stream_scorer.local.receiver.faults import Fault, FaultAction, FaultMatch
from stream_scorer.local.receiver.launcher import Receiver, serve

__all__ = [
    "Delivery",
    "Fault",
    "FaultAction",
    "FaultMatch",
    "Receiver",
    "ReceiverConfig",
    "ReceiverControl",
    "Stats",
    "serve",
]
