"""Producer sessions: each ends as soon as it is given up, and what cannot even be made holds instead of ending all."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from confluent_kafka import KafkaError, KafkaException
from support_arena import wait_until

from stream_scorer.kafka import session
from stream_scorer.kafka.sink import Failed, OutRecord, TransactionalSink

if TYPE_CHECKING:
    from collections.abc import Iterator


def made_sink(config: dict[str, Any]) -> TransactionalSink:
    return TransactionalSink(
        config, monotonic=lambda: 0.0, commit_budget_s=0, late_s=1, own_timeout_s=1, on_refused=lambda: None
    )


class Client:
    """A producer that keeps its callbacks, as the real one does, and does what ``fails`` does not name."""

    living: ClassVar[weakref.WeakSet[Client]] = weakref.WeakSet()
    fails: ClassVar[str] = ""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.living.add(self)

    def purge(self) -> None:
        """Nothing waits."""

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any, **__: Any) -> None:
            if name == self.fails:
                raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

        return call


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("fails", ["init_transactions", "commit_transaction"])
def test_a_session_that_is_given_up_is_gone_before_the_collector_comes(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """One a second while a right is missing: left to the collector there were forty at once, each with its sockets."""
    monkeypatch.setattr(session, "Producer", Client)
    monkeypatch.setattr(Client, "fails", fails)
    sink = made_sink({})
    for _ in range(3):
        failed = sink.open() or sink.publish([OutRecord("scores", b"k", b"v", [])], [], None)
        assert isinstance(failed, Failed)
        assert failed.denied
    wait_until(lambda: not Client.living, lambda: f"the end of {len(Client.living)} clients", 5)


def test_a_file_that_is_gone_when_a_session_is_made_is_waited_for() -> None:
    """A certificate that is being changed, for example: the worker goes on when it is back."""
    properties = {"security.protocol": "ssl", "ssl.key.location": "/no/such/key.pem", "log_level": 0}
    failed = made_sink({"bootstrap.servers": "127.0.0.1:1", "transactional.id": "one", **properties}).open()
    assert failed is not None
    assert failed.message == (
        "kafka.properties: ssl.key.location: cannot read /no/such/key.pem: No such file or directory"
    )
