"""Environment of several runs: three brokers, an API and a receiver, with faulty links to each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from toxiproxy import open_links

from stream_scorer.local.kafka.cluster import EmbeddedCluster
from stream_scorer.local.kafka.config import KafkaConfig
from stream_scorer.local.kafka.node import Listener
from stream_scorer.local.kafka.process import free_port
from stream_scorer.local.receiver import Receiver
from stream_scorer.local.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcp_proxy import Link

# A node on a busy machine; a minute was too short there.
_START_S: Final = 240.0
_CLOCK: Final = Path(__file__).with_name("shifted_clock.c")
# The file that fills the small disk; see `process_faults.fill_disk`.
FILLER: Final = "filler"


class ChaosEnvironment:
    """The Kafka cluster, API and receiver with the links to them, created by `machines`.

    Attributes:
        cluster: three nodes; the data of the third one are on a file system of limited size if possible.
        brokers, api, receiver_line: the links, those of the brokers by node id.
        lines: the kind of the links, as text.
        small_disk: the folder of the third node's data, where it is of limited size.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.lines, make_link = stack.enter_context(open_links())
        inner = {node_id: free_port() for node_id in (1, 2, 3)}
        self.brokers: dict[int, Link] = {node_id: make_link(port) for node_id, port in inner.items()}
        listeners = {
            node_id: (Listener("LINE", port, advertised_port=self.brokers[node_id].port),)
            for node_id, port in inner.items()
        }
        self.small_disk = _mounted(folder / "kafka" / "node-3", stack)
        config = KafkaConfig(
            data_dir=folder / "kafka",
            port=0,
            properties={"group.min.session.timeout.ms": "1000"},
            start_timeout_s=_START_S,
        )
        self.cluster = stack.enter_context(EmbeddedCluster(config, 3, listeners=listeners))
        self.simulator = stack.enter_context(Simulator())
        self.receiver = stack.enter_context(Receiver())
        self.api = make_link(int(self.simulator.base_url.rsplit(":", 1)[1]))
        self.receiver_line = make_link(int(self.receiver.base_url.rsplit(":", 1)[1]))
        self.wrong_clock = build_clock(folder)

    def heal(self) -> None:
        """Repair all links, empty the disk, and start all nodes."""
        for line in (*self.brokers.values(), self.api, self.receiver_line):
            line.heal()
        if self.small_disk is not None:
            (self.small_disk / FILLER).unlink(missing_ok=True)  # left by a failed run
        for node_id in self.cluster.node_ids:
            if (node := self.cluster.node(node_id)).status() is not None:
                node.resume()
        self.cluster.start()


@contextmanager
def machines(folder: Path) -> Iterator[ChaosEnvironment]:
    """Start the environment and stop it at the end."""
    with ExitStack() as stack:
        yield ChaosEnvironment(folder, stack)


def _mounted(folder: Path, stack: ExitStack) -> Path | None:
    """A file system of limited size at this folder, where this user may mount one."""
    folder.mkdir(parents=True)
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        return None
    command = [mount, "-t", "tmpfs", "-o", "size=1g", "stream-scorer-chaos", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        return None
    stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)
    return folder


def build_clock(folder: Path) -> Path | None:
    """Build the library that shifts the clock of a process; None without a compiler or outside of Linux."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    library = folder / "shifted_clock.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_CLOCK), "-ldl"]
    return library if subprocess.run(command, check=False, capture_output=True).returncode == 0 else None
