"""A real Kafka with a second listener behind a proxy: workers use the proxy, the test and the verifier do not."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from kafka_proxy import KafkaProxy

from stream_scorer.local.kafka.broker import EmbeddedKafka
from stream_scorer.local.kafka.config import KafkaConfig
from stream_scorer.local.kafka.node import Listener
from stream_scorer.local.kafka.process import free_port

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

QUICK = {"group.min.session.timeout.ms": "1000"}


class ProxiedKafka(AbstractContextManager["ProxiedKafka"]):
    """One node with a proxy in front of it.

    Attributes:
        proxy: the proxy.
        kafka: the node, to be stopped, killed and started.
    """

    def __init__(self, folder: Path) -> None:
        inner = free_port()
        self.proxy = KafkaProxy(inner)
        listener = Listener("PROXIED", inner, advertised_port=self.proxy.port)
        self.kafka = EmbeddedKafka(KafkaConfig(data_dir=folder, port=0, properties=QUICK, listeners=(listener,)))
        self.direct = self.kafka.start().bootstrap_servers

    @property
    def proxied(self) -> str:
        """Where workers connect."""
        return f"127.0.0.1:{self.proxy.port}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.proxy.close()
        self.kafka.stop()
