"""A node's place in an embedded Kafka of several nodes, and the listeners that a node can have beside its first."""

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
    """A node of the quorum: its id, the port of its controller, and the id of its data folder, 22 characters."""

    node_id: int
    controller_port: int
    directory_id: str

    def __str__(self) -> str:
        """As `kafka-storage format --initial-controllers` takes it."""
        return f"{self.node_id}@{LOOPBACK}:{self.controller_port}:{self.directory_id}"


@dataclass(frozen=True, slots=True)
class Member:
    """One node among several: every node is broker and controller.

    Attributes:
        node_id: from 1; one of the voters'.
        cluster_id: the same for all nodes, 22 characters.
        voters: all nodes of the cluster.
    """

    node_id: int
    cluster_id: str
    voters: tuple[Voter, ...]

    @property
    def initial_controllers(self) -> str:
        """For `kafka-storage format`."""
        return ",".join(str(voter) for voter in self.voters)

    def properties(self) -> Mapping[str, str]:
        """Server properties over those of one node: every record in three copies, two of them needed to write."""
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
            # Longer than on one node: several Javas share the processors, and a false alarm moves every leader.
            "broker.session.timeout.ms": "4000",
        }


@dataclass(frozen=True, slots=True)
class Listener:
    """One more listener of a node, on the loopback interface, beside `PLAINTEXT`.

    Attributes:
        name: in upper case, e.g. `SECURE`; `listener.name.secure.…` in `KafkaConfig.properties` sets it up.
        port: where the node listens.
        protocol: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
        advertised_port: where clients are sent, e.g. a proxy's port; None: `port`.
        advertised_host: the host name clients are sent to, which a certificate has to bear.
    """

    name: str
    port: int
    protocol: str = "PLAINTEXT"
    advertised_port: int | None = None
    advertised_host: str = LOOPBACK

    @property
    def bound(self) -> str:
        """For `listeners`."""
        return f"{self.name}://{LOOPBACK}:{self.port}"

    @property
    def advertised(self) -> str:
        """For `advertised.listeners`."""
        return f"{self.name}://{self.advertised_host}:{self.advertised_port or self.port}"
