"""Local Apache Kafka of several nodes, for failures that one node cannot show, such as a broker that dies unnoticed.

Theory of operation: each node is an `EmbeddedKafka` in a folder of its own, `node-1`, `node-2`, …. Their permanent
common data are the cluster's id, the controllers' ports and the ids of their folders. These are chosen at the first
start and kept in `cluster.json` beside the folders. Nodes are started together: none answers before a majority runs.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self, TypeVar

from stream_scorer.errors import LocalError
from stream_scorer.local.files import folder_lock
from stream_scorer.local.kafka.broker import EmbeddedKafka, quiet_logger
from stream_scorer.local.kafka.config import KafkaConfig
from stream_scorer.local.kafka.java import java_command
from stream_scorer.local.kafka.layout import Layout, plan_layout, read_layout, remove_layout, write_layout
from stream_scorer.local.kafka.node import Listener, Member
from stream_scorer.local.kafka.process import DRAWS, LOOPBACK, PortTakenError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from stream_scorer.local.kafka.jars import Progress
    from stream_scorer.local.kafka.readiness import Running

T = TypeVar("T")

SIZES: Final = (3, 5)


@dataclass(frozen=True, slots=True)
class RunningNodes:
    """Running nodes of a cluster of `size` nodes."""

    nodes: tuple[Running, ...]
    size: int

    @property
    def bootstrap_servers(self) -> str:
        """The running nodes, for `kafka.bootstrap_servers`."""
        return ",".join(node.bootstrap_servers for node in self.nodes)

    @property
    def has_quorum(self) -> bool:
        """Whether a majority of nodes runs, so that clients are served."""
        return len(self.nodes) * 2 > self.size


def cluster_size(data_dir: Path) -> int | None:
    """Return the number of nodes of this folder's cluster; None: the folder has no cluster.

    Raises:
        LocalError: `cluster.json` is not readable, for example after a manual change.
    """
    layout = read_layout(data_dir)
    return None if layout is None else len(layout.voters)


class EmbeddedCluster(AbstractContextManager["EmbeddedCluster"]):
    """Kafka nodes of one data folder. As a context manager it stops at the end what it started.

    Args:
        config: settings of all nodes; `port` is the first node's, the others follow it (0 and None as in
            `KafkaConfig`).
        size: 3 or 5 nodes.
        listeners: additional listeners, by node id.
        progress: called with messages about the current step.
    """

    def __init__(
        self,
        config: KafkaConfig | None = None,
        size: int = 3,
        *,
        listeners: Mapping[int, tuple[Listener, ...]] | None = None,
        progress: Progress = quiet_logger,
    ) -> None:
        if size not in SIZES:
            raise LocalError(f"--nodes {size}: choose 1, 3 or 5 nodes")
        self.config = config or KafkaConfig()
        self.size = size
        self._listeners = listeners or {}
        self._progress = progress
        self._nodes: dict[int, EmbeddedKafka] = {}
        self._began = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._began:
            self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """Bootstrap servers for clients: all nodes, running or not.

        Raises:
            LocalError: the cluster was never started.
        """
        return ",".join(f"{LOOPBACK}:{self.node(node_id).config.port}" for node_id in self.node_ids)

    @property
    def log_files(self) -> str:
        """Path pattern of the nodes' logs."""
        return str(self.config.data_dir / "node-*" / "kafka.log")

    @property
    def node_ids(self) -> range:
        """Kafka's node ids, from 1."""
        return range(1, self.size + 1)

    def node(self, node_id: int) -> EmbeddedKafka:
        """Return one node, for its own `kill`, `stop`, `pause`, `resume` or `start`.

        Raises:
            LocalError: the cluster was never started.
        """
        if not self._nodes:
            layout = read_layout(self.config.data_dir)
            if layout is None:
                raise LocalError(f"no embedded Kafka cluster in {self.config.data_dir}: stream-scorer kafka start")
            self._take(layout)
        return self._nodes[node_id]

    def start(self, progress: Progress | None = None) -> RunningNodes:
        """Start the nodes that do not run; return when each of them accepts clients.

        Raises:
            LocalError: as `EmbeddedKafka.start`, or the folder has a Kafka of another number of nodes.
        """
        report = progress or self._progress
        with folder_lock(self.config.data_dir, "cluster"):
            # Only automatically chosen ports can be replaced, and only before the nodes' data contain them.
            draws = DRAWS if self.config.port == 0 and read_layout(self.config.data_dir) is None else 1
            while True:
                self._take(self._layout())
                draws -= 1
                try:
                    self._start(report)
                    return self._require()
                except PortTakenError:
                    if not draws:
                        raise
                    self._forget()

    def _start(self, report: Progress) -> None:
        begun = [node for node in self._nodes.values() if node.status() is None]
        self._began = self._began or len(begun) == self.size
        try:
            java_command(self.node(1).config, report)  # fetch the jars once, before all nodes need them
            report(f"starting Apache Kafka on {self.size} nodes")
            self._each(EmbeddedKafka.launch)
            self._each(EmbeddedKafka.start)
        except BaseException:  # a Ctrl-C too: do not leave started processes behind
            for node in begun:
                if node.status() is not None:
                    node.kill()
            raise

    def _forget(self) -> None:
        """Remove the chosen layout and the data that contain it; they hold no records yet."""
        for node in self._nodes.values():
            shutil.rmtree(node.config.records_dir, ignore_errors=True)
        self._nodes = {}
        remove_layout(self.config.data_dir)

    def status(self) -> RunningNodes | None:
        """Return the running nodes; None if there are none."""
        if read_layout(self.config.data_dir) is None:
            return None
        found = [running for node_id in self.node_ids if (running := self.node(node_id).status()) is not None]
        return RunningNodes(tuple(found), self.size) if found else None

    def stop(self) -> bool:
        """Stop all nodes gracefully, by force after `stop_timeout_s`. Return whether any was running."""
        if read_layout(self.config.data_dir) is None:
            return False
        with folder_lock(self.config.data_dir, "cluster"):
            return any(self._each(EmbeddedKafka.stop))

    def wait(self) -> None:
        """Wait until every node has ended, for whatever reason."""
        for node_id in self.node_ids:
            self.node(node_id).wait()

    def _each(self, act: Callable[[EmbeddedKafka], T]) -> list[T]:
        """Apply a function to all nodes concurrently: at start and stop, a node waits for the others."""
        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(act, [self.node(node_id) for node_id in self.node_ids]))

    def _require(self) -> RunningNodes:
        found = self.status()
        if found is None:
            raise LocalError(f"no node of the embedded Kafka runs on {self.config.data_dir}: stream-scorer kafka start")
        return found

    def _take(self, layout: Layout) -> None:
        if self._nodes:
            return
        if len(layout.voters) != self.size:
            raise LocalError(
                f"{self.config.data_dir} holds a Kafka of {len(layout.voters)} nodes, not of {self.size}: give another"
                " --data-dir"
            )
        for voter, port in zip(layout.voters, layout.ports, strict=True):
            config = replace(
                self.config,
                data_dir=self.config.data_dir / f"node-{voter.node_id}",
                port=port,
                controller_port=voter.controller_port,
                listeners=(*self.config.listeners, *self._listeners.get(voter.node_id, ())),
                member=Member(voter.node_id, layout.cluster_id, layout.voters),
            )
            self._nodes[voter.node_id] = EmbeddedKafka(config)

    def _listening(self) -> list[int]:
        every = (*self.config.listeners, *(one for some in self._listeners.values() for one in some))
        return [port for one in every for port in (one.port, one.advertised_port) if port is not None]

    def _layout(self) -> Layout:
        folder = self.config.data_dir
        known = read_layout(folder)
        if known is None:
            if self.config.records_dir.exists():
                raise LocalError(f"{folder} holds a Kafka of one node: give another --data-dir for {self.size} nodes")
            known = plan_layout(self.size, self.config.port, self._listening())
            write_layout(folder, known)
        if self.config.port not in (None, 0, known.ports[0]):
            raise LocalError(
                f"the Kafka with this data folder ({folder}) has its first node on port {known.ports[0]}, not on"
                f" {self.config.port}: leave --port out, or give another --data-dir"
            )
        return known
