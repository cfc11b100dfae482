"""Settings of the demo's API and workers: slow enough to be watched, quick enough for one minute."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# Enough for both workers: the demo shows the quota, but must not wait for it.
REQUESTS_PER_MINUTE: Final = 3_000
LATENCY_MS: Final = 160.0
LATENCY_JITTER_MS: Final = 60.0
# Fewer than arrive, so that a queue can be seen.
DIALS_PER_S: Final = 120.0
MAX_CONTACTS: Final = 50
# Kafka gives the partitions of a killed worker away after the session; its open transaction is aborted after its own
# time-out, which the records behind it wait for.
SESSION_TIMEOUT_MS: Final = 6_000
TRANSACTION_TIMEOUT_MS: Final = 6_000
_WORKER_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "scoring.max_contacts": str(MAX_CONTACTS),
        "scoring.max_in_flight": "2",
        # Contacts that the API refuses must have their outcome within the demo, not after 71 minutes.
        "scoring.retry_delays_s": "[1, 2]",
        "genesys.requests_per_minute": str(REQUESTS_PER_MINUTE),
        "genesys.max_retries": "1",
        "genesys.backoff_base_s": "1",
        "genesys.probe_interval_s": "2",
    }
)
_PROPERTIES: Final = (
    f'{{"session.timeout.ms": {SESSION_TIMEOUT_MS}, "heartbeat.interval.ms": {SESSION_TIMEOUT_MS // 3},'
    f' "transaction.timeout.ms": {TRANSACTION_TIMEOUT_MS}, "delivery.timeout.ms": {TRANSACTION_TIMEOUT_MS},'
    f' "socket.timeout.ms": {TRANSACTION_TIMEOUT_MS}}}'
)
# How often the broker looks for transactions over their time-out; by default every 10 s.
BROKER_PROPERTIES: Final[Mapping[str, str]] = MappingProxyType(
    {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}
)


def introduction(contacts: int) -> str:
    """Return the sentence shown before a demo without a scenario."""
    return (
        f"{contacts:,} contacts, 2 scoring workers, 1 campaign worker; requests of {MAX_CONTACTS} contacts, so"
        " that it can be watched (the default is 1,000), and retries after 1 s and 2 s (the default is minutes)"
    )


def environment_of(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of settings by key."""
    return {f"STREAM_SCORER_{name.replace('.', '__').upper()}": value for name, value in settings.items()}


def worker_environment() -> dict[str, str]:
    """Return the environment variables of the demo's workers."""
    return {**environment_of(_WORKER_SETTINGS), "STREAM_SCORER_KAFKA__PROPERTIES": _PROPERTIES}
