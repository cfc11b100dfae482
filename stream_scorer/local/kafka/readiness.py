"""Where an embedded Kafka runs, and whether it serves clients yet."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream_scorer.local.kafka.process import LOOPBACK


@dataclass(frozen=True, slots=True)
class Running:
    """A running Kafka, or one node of it: its process, and where clients connect."""

    pid: int
    port: int

    @property
    def bootstrap_servers(self) -> str:
        """For `kafka.bootstrap_servers`."""
        return f"{LOOPBACK}:{self.port}"


def probe_client(running: Running) -> AdminClient:
    """A client that tries to connect again and again, without a word."""
    return AdminClient(
        {
            "bootstrap.servers": running.bootstrap_servers,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
            "log_level": 0,  # that nobody answers yet is no news
        }
    )


def is_ready(client: AdminClient, node_id: int) -> bool:
    """Whether clients are served, and the node itself is among those that serve them."""
    try:
        return node_id in client.list_topics(timeout=0.5).brokers
    except KafkaException:
        return False
