"""Producer sessions: each is closed at once when it is discarded; a failed creation opens the breaker."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from confluent_kafka import KafkaError, KafkaException
from scoring_harness import wait_until

from stream_scorer.kafka.producer import transactional_producer
from stream_scorer.kafka.producer.records import Committed, Failed, OutRecord
from stream_scorer.kafka.producer.sink import TransactionalSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def made_sink(config: dict[str, Any], monotonic: Callable[[], float] = lambda: 0.0) -> TransactionalSink:
    return TransactionalSink(
        config,
        monotonic=monotonic,
        commit_budget_s=0,
        late_s=1,
        own_timeout_s=10,
        in_time_s=7,
        on_refused=lambda: None,
    )


class Client:
    """A producer that keeps its callbacks, as the real one does; the calls in ``fails`` raise."""

    living: ClassVar[weakref.WeakSet[Client]] = weakref.WeakSet()
    fails: ClassVar[str] = ""
    code: ClassVar[int] = KafkaError.TOPIC_AUTHORIZATION_FAILED

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.living.add(self)

    def purge(self) -> None:
        """Nothing is queued."""

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any, **__: Any) -> None:
            if name == self.fails:
                raise KafkaException(KafkaError(self.code))

        return call


class Reporting(Client):
    """A producer that reports errors when it is polled."""

    reports: ClassVar[list[KafkaError]] = []

    def poll(self, _timeout: float) -> None:
        while self.reports:
            self.config["error_cb"](self.reports.pop())


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("fails", ["init_transactions", "commit_transaction"])
def test_a_discarded_session_is_closed_without_the_garbage_collector(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """One a second while a right is missing: left to the garbage collector, forty existed at once with sockets."""
    monkeypatch.setattr(transactional_producer, "Producer", Client)
    monkeypatch.setattr(Client, "fails", fails)
    sink = made_sink({})
    for _ in range(3):
        failed = sink.open() or sink.publish([OutRecord("scores", b"k", b"v", [])], [], None)
        assert isinstance(failed, Failed)
        assert failed.denied
    wait_until(lambda: not Client.living, lambda: f"the end of {len(Client.living)} clients", 5)


@pytest.mark.parametrize("name", ["ILLEGAL_GENERATION", "FENCED_MEMBER_EPOCH", "STALE_MEMBER_EPOCH"])
def test_a_newer_generation_is_detected_under_both_protocols(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(transactional_producer, "Producer", Client)
    monkeypatch.setattr(Client, "fails", "send_offsets_to_transaction")
    monkeypatch.setattr(Client, "code", getattr(KafkaError, name))
    sink = made_sink({})
    assert sink.open() is None
    failed = sink.publish([OutRecord("scores", b"k", b"v", [])], [], None)
    assert isinstance(failed, Failed)
    assert failed.stale
    assert not failed.fenced


@pytest.mark.parametrize(("took_s", "late"), [(6.0, False), (8.0, True)])
def test_a_failure_after_half_of_the_time_out_may_be_due_to_the_transaction_size(
    monkeypatch: pytest.MonkeyPatch, took_s: float, *, late: bool
) -> None:
    monkeypatch.setattr(transactional_producer, "Producer", Client)
    monkeypatch.setattr(Client, "fails", "commit_transaction")
    times = iter([0.0, took_s])
    sink = made_sink({}, lambda: next(times))
    assert sink.open() is None
    failed = sink.publish([OutRecord("scores", b"k", b"v", [])], [], None)
    assert isinstance(failed, Failed)
    assert failed.late is late


@pytest.mark.parametrize(("took_s", "slow"), [(3.0, False), (4.0, True)])
def test_a_transaction_is_slow_when_one_of_twice_the_size_would_be_late(
    monkeypatch: pytest.MonkeyPatch, took_s: float, *, slow: bool
) -> None:
    monkeypatch.setattr(transactional_producer, "Producer", Client)
    times = iter([0.0, took_s])
    sink = made_sink({}, lambda: next(times))
    assert sink.open() is None
    committed = sink.publish([OutRecord("scores", b"k", b"v", [])], [], None)
    assert isinstance(committed, Committed)
    assert committed.slow is slow


def test_a_session_without_brokers_starts_no_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hung in the first transaction after an outage and aborted it, which lost 97 scores."""
    monkeypatch.setattr(transactional_producer, "Producer", Reporting)
    Reporting.reports[:] = [KafkaError(KafkaError._ALL_BROKERS_DOWN)]  # before the session was there
    sink = made_sink({})
    assert sink.open() is None
    Reporting.reports.append(KafkaError(KafkaError._TRANSPORT))
    assert sink.is_open  # one of several brokers
    Reporting.reports.append(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert not sink.is_open
    assert sink.open() is None
    assert sink.is_open


def test_a_file_missing_at_session_creation_is_retried() -> None:
    """For example a certificate that is being replaced: the worker continues when it exists again."""
    properties = {"security.protocol": "ssl", "ssl.key.location": "/no/such/key.pem", "log_level": 0}
    failed = made_sink({"bootstrap.servers": "127.0.0.1:1", "transactional.id": "one", **properties}).open()
    assert failed is not None
    assert failed.message == (
        "kafka.properties: ssl.key.location: cannot read /no/such/key.pem: No such file or directory"
    )
