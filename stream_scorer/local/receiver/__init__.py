"""A campaign manager for the demo and the tests: verifies signatures, counts what it gets, fails as scripted.

``with Receiver() as receiver:`` starts one in a process of its own and gives its ``url``; `ReceiverControl` steers one
that runs already. Over HTTP: see `stream_scorer.local.receiver.app`.
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
