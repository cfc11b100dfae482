"""A calculator that is used in both processes after `os.fork`: its state belongs to the process that created it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import ssl
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from raw_http import RawServer, answer, raw_server, token
from support_targets import certificate

from stream_scorer import AuditLogger, GenesysAuthManager, PredictiveScoreCalculator, ScoreClient, ScoreResult
from stream_scorer.errors import ApiUnavailable

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHILD_LIMIT_S = 20.0
ROUNDS = 5

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")


class Child:
    """A forked process that runs one function and returns its JSON."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._result, sending = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            said: Any = None
            try:
                said = function()
            except BaseException as error:  # noqa: BLE001 - the parent reports it
                said = f"{type(error).__name__}: {error}"
            finally:
                os.write(sending, json.dumps(said).encode())
                os._exit(0)
        os.close(sending)

    def result(self) -> Any:
        """Return what the function returned, "hangs" if it did not, and an error as text."""
        ready, _, _ = select.select([self._result], [], [], CHILD_LIMIT_S)
        if not ready:
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        with os.fdopen(self._result, "rb") as stream:
            said = stream.read()
        return json.loads(said) if said else "hangs"


def score_of(contact_id: str) -> float:
    """Return a score that is unique to this contact."""
    return int(contact_id.partition("-")[2]) / 1000.0


def scores(request: Any, conn: socket.socket, pause_s: float = 0.05) -> None:
    """Answer each contact with its own score, late enough for requests of two processes to overlap."""
    threading.Event().wait(pause_s)  # the latency of the API is a part of the case
    items = [
        {"contactId": (name := one["contactId"]), "score": score_of(name), "confidenceInterval": bounds(name)}
        for one in request.json["contacts"]
    ]
    conn.sendall(answer(200, {"results": items}))


def bounds(name: str) -> dict[str, float]:
    return {"lower": score_of(name) - 0.2, "upper": score_of(name) + 0.2}


@pytest.fixture
def server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RawServer]:
    context = None
    if getattr(request, "param", "http") == "https":
        authority, made = certificate(tmp_path_factory.mktemp("tls"), "localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    with raw_server(context) as server:
        server.url = server.url.replace("127.0.0.1", "localhost")
        server.respond(scores)
        yield server


@pytest.fixture
def calculator(server: RawServer, tmp_path: Path) -> Iterator[PredictiveScoreCalculator]:
    auth = GenesysAuthManager("id", "secret", server.url)
    client = ScoreClient(auth, server.url, timeout_s=5.0, max_retries=0, requests_per_minute=10_000)
    auditor = AuditLogger(str(tmp_path / "audit.log"))
    with PredictiveScoreCalculator("m", "", "", ["calls"], {}, client=client, auditor=auditor) as calculator:
        yield calculator


def calculate(calculator: PredictiveScoreCalculator, *names: str) -> dict[str, float]:
    outcome = calculator.calculate([{"contactId": name, "features": {"calls": 1}} for name in names])
    assert not outcome.rejected, outcome.rejected
    return {one.contact_id: one.score for one in (*outcome.scored, *outcome.review)}


def rounds(calculator: PredictiveScoreCalculator, first: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for number in range(first, first + ROUNDS):
        found |= calculate(calculator, f"c-{number}")
    return found


def own(first: int) -> dict[str, float]:
    return {f"c-{number}": score_of(f"c-{number}") for number in range(first, first + ROUNDS)}


@pytest.mark.parametrize("server", ["http", "https"], indirect=True)
def test_each_process_gets_its_own_scores(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    calculate(calculator, "c-300")  # a connection and a token are there before the fork
    child = Child(partial(rounds, calculator, 400))
    assert rounds(calculator, 500) == own(500)
    assert child.result() == own(400)
    sent = server.to("/api/")
    connections = {one.json["contacts"][0]["contactId"]: one.connection for one in sent}
    assert {connections[name] for name in own(400)}.isdisjoint({connections[name] for name in own(500)})
    assert {connections[name] for name in own(500)} == {connections["c-300"]}  # the parent keeps its connection
    assert len(server.to("/oauth/token")) == 2


def test_locks_of_a_thread_that_is_fetching_a_token(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow_login(_: Any, conn: socket.socket) -> None:
        asked.set()
        go_on.wait(CHILD_LIMIT_S)
        conn.sendall(token("of-the-parent"))

    server.respond(slow_login, lambda _, conn: conn.sendall(token("of-the-child")), path="/oauth/token")
    thread = threading.Thread(target=calculate, args=(calculator, "c-300"))
    thread.start()
    assert asked.wait(5)
    child = Child(partial(calculate, calculator, "c-400"))
    assert child.result() == {"c-400": 0.4}
    go_on.set()
    thread.join(10)
    used = {one.json["contacts"][0]["contactId"]: one.headers["authorization"] for one in server.to("/api/")}
    assert used == {"c-400": "Bearer of-the-child", "c-300": "Bearer of-the-parent"}


def test_deadline_of_the_child_although_the_watchdog_belongs_to_the_parent(
    server: RawServer, calculator: PredictiveScoreCalculator
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def drip_to_the_child(request: Any, conn: socket.socket) -> None:
        if request.json["contacts"][0]["contactId"] == "c-300":
            asked.set()
            go_on.wait(CHILD_LIMIT_S)
            scores(request, conn)
            return
        conn.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        with contextlib.suppress(OSError):
            while not go_on.wait(0.02):  # a byte now and then is never a time-out of the socket
                conn.sendall(b" ")

    server.respond(drip_to_the_child)
    found: list[dict[str, float]] = []
    thread = threading.Thread(target=lambda: found.append(calculate(calculator, "c-300")))
    calculator.auth.get_token()
    calculator.client._timeout_s = 60.0
    thread.start()
    assert asked.wait(5)  # its exchange is under the parent's watchdog, whose thread the child does not have
    calculator.client._timeout_s = 0.5

    def score_in_time() -> str:
        try:
            calculate(calculator, "c-400")
        except ApiUnavailable as error:
            return str(error)
        return "answered"

    assert "within 0.5 s" in Child(score_in_time).result()
    go_on.set()
    thread.join(10)
    assert found == [{"c-300": 0.3}]


def test_a_close_in_the_child_ends_no_exchange_of_the_parent(
    server: RawServer, calculator: PredictiveScoreCalculator
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def when_the_child_has_ended(request: Any, conn: socket.socket) -> None:
        asked.set()
        go_on.wait(CHILD_LIMIT_S)
        scores(request, conn)

    server.respond(when_the_child_has_ended)
    found: list[dict[str, float]] = []
    thread = threading.Thread(target=lambda: found.append(calculate(calculator, "c-300")))
    thread.start()
    assert asked.wait(5)
    assert Child(calculator.close).result() is None
    go_on.set()
    thread.join(10)
    assert found == [{"c-300": 0.3}]
    assert len(server.to("/api/")) == 1


def test_exchange_in_flight_in_the_forking_thread(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    # A signal handler that forks returns into the middle of an exchange, in both processes.
    interrupted = threading.Event()
    main = threading.get_ident()

    def fork(*_: Any) -> None:
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(reading)
            in_child.append(writing)
            return
        os.close(writing)
        children.append((pid, reading))

    def interrupts_the_client(request: Any, conn: socket.socket) -> None:
        if not interrupted.is_set():
            interrupted.set()
            signal.pthread_kill(main, signal.SIGUSR1)
        scores(request, conn, pause_s=0.3)

    in_child: list[int] = []
    children: list[tuple[int, int]] = []
    calculator.auth.get_token()
    server.respond(interrupts_the_client)
    previous = signal.signal(signal.SIGUSR1, fork)
    try:
        try:
            got: Any = calculate(calculator, "c-300")
        except BaseException as error:
            if not in_child:
                raise
            got = f"{type(error).__name__}: {error}"
        if in_child:
            os.write(in_child[0], json.dumps(got).encode())
            os._exit(0)
    finally:
        if in_child:
            os._exit(1)
        signal.signal(signal.SIGUSR1, previous)
    assert got == {"c-300": 0.3}
    (pid, reading), *_ = children
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as stream:
        assert "belongs to the process" in json.loads(stream.read())


def result(name: str) -> ScoreResult:
    return ScoreResult(name, 0.5, 0.3, 0.7, 1.0, "2027-01-15T08:00:00.000+00:00")


def write_batches(auditor: AuditLogger, name: str, batches: int) -> None:
    for number in range(batches):
        auditor.log_score_batch([result(f"{name}-{number}")], "m", 1, batch_id=f"{name}-{number}")


def test_processes_share_an_audit_file(tmp_path: Path) -> None:
    auditor = AuditLogger(str(tmp_path / "audit.log"), max_bytes=2000, backup_count=1000)
    children = [Child(partial(write_batches, auditor, f"child-{n}", 60)) for n in range(3)]
    write_batches(auditor, "parent", 60)
    assert [child.result() for child in children] == [None] * 3
    found = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    names = [one["contact_id"] for one in map(json.loads, found) if "contact_id" in one]
    assert len(names) == len(set(names)) == 240
    assert all(file.stat().st_size <= 2000 for file in tmp_path.iterdir())


def test_audit_lock_of_a_thread_is_not_inherited(tmp_path: Path) -> None:
    auditor = AuditLogger(str(tmp_path / "audit.log"))
    with auditor._lock:  # a thread of the parent is writing at this time
        child = Child(partial(write_batches, auditor, "child", 1))
        assert child.result() is None
    assert "child-0" in (tmp_path / "audit.log").read_text()


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    auditor = AuditLogger(str(tmp_path / "audit.log"))
    write_batches(auditor, "c", 2)
    assert len((tmp_path / "audit.log").read_text().splitlines()) == 4
