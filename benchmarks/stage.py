"""Environment of both contestants: an embedded Kafka with a filled topic and the simulator, each a process."""

from __future__ import annotations

import os
import random
import socket
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.scoring.types import ContactEvent
from stream_scorer.kafka.admin.topics import create_topics
from stream_scorer.kafka.client.config import plain_producer_config, silent_logger
from stream_scorer.kafka.producer.bulk_producer import BulkProducer
from stream_scorer.local.kafka.broker import EmbeddedKafka
from stream_scorer.local.kafka.config import KafkaConfig
from stream_scorer.local.simulator import Simulator, SimulatorConfig
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.settings import Settings

QUOTA: Final = 1_000_000
_SEGMENTS: Final = ("admin", "blue-collar", "management", "retired", "services", "technician")


@dataclass(slots=True)
class Stage:
    """Everything that stands before a run begins. To be used in a ``with`` block."""

    folder: Path
    kafka: EmbeddedKafka
    simulator: Simulator
    _stack: ExitStack

    @classmethod
    def build(cls, folder: Path) -> Self:
        """Start Kafka (fetched if this is the first time on this machine) and the simulator."""
        with ExitStack() as stack:
            kafka = stack.enter_context(EmbeddedKafka(KafkaConfig(data_dir=folder / "kafka", port=0), _print_progress))
            # Every contact is scored: what goes to review or is refused would cost the two contestants differently.
            simulated = SimulatorConfig(quota=QUOTA, narrow_share=0, inconsistent_share=0)
            simulator = stack.enter_context(Simulator(simulated))
            return cls(folder, kafka, simulator, stack.pop_all())
        raise AssertionError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def environment(self, group_id: str) -> dict[str, str]:
        """The environment of a contestant: the defaults, but for addresses, group and quota."""
        outer = {
            name: value for name, value in os.environ.items() if not name.startswith(("STREAM_SCORER_", "GENESYS_"))
        }
        root = str(Path(__file__).resolve().parent.parent)
        return {
            **outer,
            **self.simulator.environment(),
            "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "STREAM_SCORER_KAFKA__GROUP_ID": group_id,
            "STREAM_SCORER_KAFKA__INSTANCE_ID": "benchmark",
            "STREAM_SCORER_GENESYS__REQUESTS_PER_MINUTE": str(QUOTA),
            "STREAM_SCORER_ADMIN__PORT": str(_free_port()),
        }

    def settings(self, group_id: str) -> Settings:
        """The same as settings, for this process."""
        return load_settings(None, environ=self.environment(group_id))

    def fill(self, contacts: int) -> None:
        """Create the topics and put contacts on the features topic, complete and all different."""
        settings = self.settings("fill")
        create_topics(settings)
        codec = Codec.single_object(load_schema(SchemaFile.CONTACT_FEATURES))
        began = time.monotonic()
        with BulkProducer(
            plain_producer_config(settings, logger=silent_logger()), settings.topics.features, codec
        ) as loader:
            for line, event in enumerate(_events(contacts)):
                loader.send(event, line)
            loader.finish()
        if loader.delivered != contacts:
            raise RuntimeError(f"only {loader.delivered} of {contacts} contacts were produced: {loader.undelivered}")
        _print_progress(f"{contacts:,} contacts are waiting, produced in {time.monotonic() - began:.0f} s")


def _events(contacts: int) -> Iterator[ContactEvent]:
    chance = random.Random(20)  # noqa: S311 - the same contacts in every run
    now_ms = time.time_ns() // 1_000_000
    for number in range(contacts):
        features: dict[str, bool | int | float | str | None] = {
            "previous_calls": chance.randrange(8),
            "avg_handle_time": chance.randrange(20, 900) + 0.5,
            "last_contact_days": chance.randrange(1, 400),
            "segment_id": chance.choice(_SEGMENTS),
        }
        event_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        yield ContactEvent(event_id, f"contact-{number:07}", features, now_ms + number, "campaign-7", None)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _print_progress(message: str) -> None:
    print(message, flush=True)
