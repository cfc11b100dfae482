"""Membership of a node in an embedded Kafka of several nodes, and additional listeners of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_scorer.local.kafka.process import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping

_REPLICAS = 3
_IN_SYNC = 2


@dataclass(frozen=True, slots=True)
class Voter:
    """Node of the quorum: its id, its controller's port, and the id of its data folder, 22 characters."""

    node_id: int
    controller_port: int
    directory_id: str

    def __str__(self) -> str:
        """Return the form for `kafka-storage format --initial-controllers`."""
        return f"{self.node_id}@{LOOPBACK}:{self.controller_port}:{self.directory_id}"


@dataclass(frozen=True, slots=True)
class Member:
    """Node of a cluster; every node is broker and controller.

    Attributes:
        node_id: id of the node, from 1; one of the voters'.
        cluster_id: id of the cluster, 22 characters.
        voters: all nodes of the cluster.
    """

    node_id: int
    cluster_id: str
    voters: tuple[Voter, ...]

    @property
    def initial_controllers(self) -> str:
        """All voters, for `kafka-storage format`."""
        return ",".join(str(voter) for voter in self.voters)

    def properties(self) -> Mapping[str, str]:
        """Return the server properties of several nodes: three copies of every record, two needed for a write."""
        replicas, in_sync = str(min(_REPLICAS, len(self.voters))), str(_IN_SYNC)
        return {
            "node.id": str(self.node_id),
            "controller.quorum.bootstrap.servers": ",".join(
                f"{LOOPBACK}:{voter.controller_port}" for voter in self.voters
            ),
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            # Longer than on one node: several Javas share the processors, and a false alarm moves all leaders.
            "broker.session.timeout.ms": "4000",
        }


@dataclass(frozen=True, slots=True)
class Listener:
    """Additional listener of a node, on the loopback interface.

    Attributes:
        name: upper case, such as `SECURE`; `listener.name.secure.…` in `KafkaConfig.properties` configures it.
        port: port on which the node listens.
        protocol: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
        advertised_port: port for clients, such as a proxy's; None: `port`.
        advertised_host: host name for clients, as in the certificate.
    """

    name: str
    port: int
    protocol: str = "PLAINTEXT"
    advertised_port: int | None = None
    advertised_host: str = LOOPBACK

    @property
    def bound(self) -> str:
        """Entry for `listeners`."""
        return f"{self.name}://{LOOPBACK}:{self.port}"

    @property
    def advertised(self) -> str:
        """Entry for `advertised.listeners`."""
        return f"{self.name}://{self.advertised_host}:{self.advertised_port or self.port}"
