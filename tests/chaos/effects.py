"""Effect of each fault, for the table of docs/internals/reliability.md."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOLDS: Final = "requests are retried, then the circuit breaker opens and probes are sent; no contact is rejected"
_COMMITTED: Final = "transactions fail and are resolved by the committed offsets; outcomes are kept"
_OTHERS: Final = "its partitions are assigned to the others; uncommitted contacts are sent again"
_RETRY_TOPICS: Final = "callbacks wait in their retry topics; scoring is not affected"

EFFECTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "API gone for 600 s": _HOLDS,
        "API: 429 storm": _HOLDS,
        "API: 5xx storm": _HOLDS,
        "API: connection reset after the request was taken": "sent again: the API counts it twice",
        "API: connection reset before the request is taken": "sent again",
        "API: every other request fails with 500": "sent again",
        "API: hangs": "requests end with their deadline and are sent again",
        "API: hangs after the request was taken": "requests end with their deadline: sent again, counted twice",
        "API: token endpoint down, tokens revoked": _HOLDS,
        "all brokers gone for 120 s": "uncommitted outcomes are kept, and the worker joins again",
        "broker: disk full": _COMMITTED,
        "broker: killed": _COMMITTED,
        "broker: stands still (SIGSTOP)": _COMMITTED,
        "broker: stopped and started": _COMMITTED,
        "brokers: rolling restart": _COMMITTED,
        "brokers: the group's coordinator moves": _COMMITTED,
        "callbacks worker: SIGKILL": "after a restart it goes on at its committed offsets",
        "line to the API: 1 s latency": "slower",
        "line to the API: half-open": "requests end with their deadline and are sent again",
        "line to the API: reset again and again": "sent again",
        "line to the brokers: 300 ms latency": "slower; a session may be lost",
        "line to the brokers: 40 kB/s": "slower; a session may be lost",
        "line to the brokers: half-open": _COMMITTED,
        "line to the brokers: half-open, transactions time out": _COMMITTED,
        "line to the brokers: reset again and again": _COMMITTED,
        "line to the receiver: half-open": _RETRY_TOPICS,
        "partitions are added to the features topic": "they are found and read from their beginning",
        "receiver: 5xx": _RETRY_TOPICS,
        "receiver: hangs": _RETRY_TOPICS,
        "schema registry down": "known schemas go on; a record of an unknown one waits, and its partition is paused",
        "worker: SIGKILL": _OTHERS,
        "worker: SIGSTOP longer than the session, SIGCONT": _OTHERS + "; the zombie's transaction is refused",
        "worker: SIGTERM during a rebalance": "it finishes what is in flight, and ends with 0",
        "worker: clock 26 hours early": "the broker rejects its timestamps: it waits and rejects no contact",
        "worker: clock 26 hours late": "it works",
    }
)
