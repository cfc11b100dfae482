"""Configuration of the embedded Kafka: its settings, and the files that it reads."""

from __future__ import annotations

import base64
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stream_scorer.errors import LocalError
from stream_scorer.local.kafka.process import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.local.kafka.node import Listener, Member

DEFAULT_PORT = 9092

# One node for one user: few partitions and threads, no replicas, small buffers. The default log cleaner alone would
# take 128 MB of the heap.
_ONE_NODE: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "num.partitions": "4",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "log.cleaner.dedupe.buffer.size": "20971520",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # After a SIGKILL the controller rejects the new process as a duplicate until the old session has expired: with
    # Kafka's default of 9 s, a restart takes 12 s.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "250",
    # A killed worker's transaction is aborted soon after its time-out, which unblocks read_committed readers.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}

# Kafka logs all of its settings at every start, over two thousand lines.
LOGGING = """\
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
logger.settings.name = org.apache.kafka.common.config
logger.settings.level = WARN
logger.server.name = org.apache.kafka.server.config
logger.server.level = WARN
"""


def default_data_dir() -> Path:
    """Return `$XDG_DATA_HOME/stream-scorer/kafka`, by default `~/.local/share/stream-scorer/kafka`.

    Raises:
        LocalError: this user has no home directory.
    """
    return _xdg("XDG_DATA_HOME", ".local/share", "give --data-dir, or set XDG_DATA_HOME") / "stream-scorer" / "kafka"


def default_cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/stream-scorer`, by default `~/.cache/stream-scorer`.

    Raises:
        LocalError: this user has no home directory.
    """
    return _xdg("XDG_CACHE_HOME", ".cache", "set XDG_CACHE_HOME") / "stream-scorer"


def _xdg(variable: str, fallback: str, remedy: str) -> Path:
    given = os.environ.get(variable, "")
    if given.startswith("/"):
        return Path(given)
    try:
        return Path.home() / fallback
    except RuntimeError:  # neither HOME nor an entry for this user id, as with OpenShift's arbitrary ids
        raise LocalError(f"this user has no home directory: {remedy} to an absolute path") from None


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Settings of one embedded Kafka, or of one node of several.

    Attributes:
        data_dir: folder of data, log and state; one Kafka a folder.
        cache_dir: folder of the jars, shared by all embedded Kafkas of this user; None: `default_cache_dir`, or
            ``cache`` in the data folder for a user without a home directory.
        port: client port on 127.0.0.1. None: the running one's, else 9092. 0: any free port, preferably the last one of
            this folder.
        controller_port: port of the internal controller on 127.0.0.1; None: any free port.
        heap_mb: size of the Java heap.
        start_timeout_s, stop_timeout_s: longest time until clients are accepted; until a stopped process is killed.
        properties: server properties of Kafka that override the defaults here.
        listeners: additional listeners beside `PLAINTEXT` on `port`.
        member: membership in a cluster of several nodes; None: a single node.
    """

    data_dir: Path = field(default_factory=default_data_dir)
    cache_dir: Path | None = None
    port: int | None = None
    controller_port: int | None = None
    heap_mb: int = 384
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 20.0
    properties: Mapping[str, str] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    member: Member | None = None

    def __post_init__(self) -> None:
        # Absolute: the path identifies a running process, from any working directory.
        object.__setattr__(self, "data_dir", _absolute(self.data_dir))
        if "\n" in str(self.data_dir):
            raise LocalError("--data-dir holds a line break: choose another folder")
        if any(0xDC80 <= ord(one) <= 0xDCFF for one in str(self.data_dir)):  # noqa: PLR2004 - Python's surrogates for such bytes
            raise LocalError("--data-dir is not UTF-8, and Java cannot open it: choose another folder")

    @property
    def jars_dir(self) -> Path:
        """Folder of the jars."""
        if self.cache_dir is not None:
            return _absolute(self.cache_dir)
        try:
            return default_cache_dir()
        except LocalError:
            return self.data_dir / "cache"

    @property
    def process_mark(self) -> str:
        """Argument that identifies a process of this folder. Java does not use it as a path.

        A path among Kafka's own arguments would depend on the locale: under `C`, Java cannot decode an umlaut.
        """
        return f"-Dstream.scorer.kafka={self.data_dir}"

    @property
    def node_id(self) -> int:
        """Kafka's `node.id`."""
        return self.member.node_id if self.member is not None else int(_ONE_NODE["node.id"])

    @property
    def properties_file(self) -> Path:
        """Path of Kafka's configuration."""
        return self.data_dir / "server.properties"

    @property
    def logging_file(self) -> Path:
        """Path of the log4j configuration."""
        return self.data_dir / "log4j2.properties"

    @property
    def log_file(self) -> Path:
        """Path of Kafka's output since its last start."""
        return self.data_dir / "kafka.log"

    @property
    def state_file(self) -> Path:
        """Path of process and port of the last start; the process may have ended."""
        return self.data_dir / "state.json"

    @property
    def records_dir(self) -> Path:
        """Folder of Kafka's own data."""
        return self.data_dir / "data"


def server_properties(config: KafkaConfig, *, port: int, controller_port: int, records_dir: Path) -> str:
    """Return `server.properties` for one node, on the loopback interface only.

    The data path is relative to the data folder, Kafka's working directory: `log.dirs` is a comma-separated list
    without escapes.
    """
    first = f"PLAINTEXT://{LOOPBACK}:{port}"
    ours = {
        **_ONE_NODE,
        "listeners": ",".join(
            [first, *(each.bound for each in config.listeners), f"CONTROLLER://{LOOPBACK}:{controller_port}"]
        ),
        "advertised.listeners": ",".join([first, *(each.advertised for each in config.listeners)]),
        "controller.quorum.bootstrap.servers": f"{LOOPBACK}:{controller_port}",
        "log.dirs": records_dir.name,
        **_protocols(config.listeners),
        **({} if config.member is None else config.member.properties()),
    }
    lines = (f"{key}={_escaped(value)}" for key, value in {**ours, **config.properties}.items())
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    """Escape a value for a Java properties file: ISO-8859-1, with escapes for all other characters."""
    text = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    units = text.encode("utf-16-be", "surrogatepass")
    pairs = (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    return "".join(chr(unit) if 0x20 <= unit < 0x7F else f"\\u{unit:04x}" for unit in pairs)  # noqa: PLR2004 - ASCII


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except RuntimeError:  # ~ for a user without a home directory
        raise LocalError(f"{path}: this user has no home directory: write the folder without ~") from None


def _protocols(listeners: tuple[Listener, ...]) -> dict[str, str]:
    if not listeners:
        return {}
    named = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **{each.name: each.protocol for each in listeners}}
    return {"listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in named.items())}


def new_cluster_id() -> str:
    """Return a random id in Kafka's format, 16 bytes in URL-safe base64, without a leading dash.

    Kafka's tools would parse a leading dash as an option.
    """
    text = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    return "k" + text[1:]
