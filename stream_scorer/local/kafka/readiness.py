"""Address of a running embedded Kafka, and check whether it serves clients."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream_scorer.local.kafka.process import LOOPBACK


@dataclass(frozen=True, slots=True)
class Running:
    """Running Kafka, or one of its nodes: process id and client port."""

    pid: int
    port: int

    @property
    def bootstrap_servers(self) -> str:
        """Value for `kafka.bootstrap_servers`."""
        return f"{LOOPBACK}:{self.port}"


def probe_client(running: Running) -> AdminClient:
    """Return a client that reconnects continuously, without log lines."""
    return AdminClient(
        {
            "bootstrap.servers": running.bootstrap_servers,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
            "log_level": 0,  # a failed connection is expected here
        }
    )


def is_ready(client: AdminClient, node_id: int) -> bool:
    """Return whether clients are served, by this node among others."""
    try:
        return node_id in client.list_topics(timeout=0.5).brokers
    except KafkaException:
        return False
