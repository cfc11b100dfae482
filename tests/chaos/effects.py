"""What happens under each fault, in a few words: for the table of docs/reliability.md."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOLDS: Final = "requests are repeated, then it holds and probes; nothing is rejected"
_COMMITTED: Final = "transactions fail and are settled by the committed offsets; finished answers are kept"
_OTHERS: Final = "the others take its partitions; what it had not committed is asked again"
_TIERS: Final = "callbacks wait in their tiers; scoring does not notice"

EFFECTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "API gone for 600 s": _HOLDS,
        "API: 429 storm": _HOLDS,
        "API: 5xx storm": _HOLDS,
        "API: connection reset after the request was taken": "asked again: the API counts it twice",
        "API: connection reset before the request is taken": "asked again",
        "API: every other request fails with 500": "asked again",
        "API: hangs": "requests end with their deadline and are asked again",
        "API: hangs after the request was taken": "requests end with their deadline: asked again, counted twice",
        "API: token endpoint down, tokens revoked": _HOLDS,
        "all brokers gone for 120 s": "it holds with what it has, and joins anew",
        "broker: disk full": _COMMITTED,
        "broker: killed": _COMMITTED,
        "broker: stands still (SIGSTOP)": _COMMITTED,
        "broker: stopped and started": _COMMITTED,
        "brokers: rolling restart": _COMMITTED,
        "brokers: the group's coordinator moves": _COMMITTED,
        "callbacks worker: SIGKILL": "started again, it goes on at what it had committed",
        "line to the API: 1 s latency": "slower",
        "line to the API: half-open": "requests end with their deadline and are asked again",
        "line to the API: reset again and again": "asked again",
        "line to the brokers: 300 ms latency": "slower; a session may be lost",
        "line to the brokers: 40 kB/s": "slower; a session may be lost",
        "line to the brokers: half-open": _COMMITTED,
        "line to the brokers: half-open, transactions time out": _COMMITTED,
        "line to the brokers: reset again and again": _COMMITTED,
        "line to the receiver: half-open": _TIERS,
        "partitions are added to the features topic": "they are found and read from their beginning",
        "receiver: 5xx": _TIERS,
        "receiver: hangs": _TIERS,
        "schema registry down": "known schemas go on; a record of an unknown one waits and holds its partition back",
        "worker: SIGKILL": _OTHERS,
        "worker: SIGSTOP longer than the session, SIGCONT": _OTHERS + "; the zombie's transaction is refused",
        "worker: SIGTERM during a rebalance": "it finishes what is in flight, and ends with 0",
        "worker: clock 26 hours early": "the broker refuses its records' time: it holds, says so, and rejects nobody",
        "worker: clock 26 hours late": "it works",
    }
)
