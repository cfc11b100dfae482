"""A schema registry that returns 404 for existing ids: a proxy in front of a real one, and a real worker.

Formerly every such record was rejected as ``undecodable``. Causes are a replica without data and a registry that was
restored from an old backup.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from test_registry import FEATURES_SCHEMA, NEWER, OLDER, Harness, set_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from callbacks_harness import CallbacksHarness
    from registry_fixture import Registry
    from worker_harness import WorkerHarness, WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NOT_FOUND = json.dumps({"error_code": 40403, "message": "Schema not found"}).encode()
SETTLE_S = 6.0


class LyingRegistry:
    """A proxy for a registry.

    Attributes:
        url: its address.
        lies: whether the response for this id is 404.
        asked: the ids of the requests.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self.lies: Callable[[int], bool] = lambda _: False
        self.asked: list[int] = []
        registry, root = self, f"{parts.scheme}://{parts.netloc}"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = re.search(r"/schemas/ids/(\d+)", self.path)
                if found is not None:
                    registry.asked.append(int(found[1]))
                    if registry.lies(int(found[1])):
                        self.answer(404, NOT_FOUND)
                        return
                self.pass_on()

            def do_POST(self) -> None:
                self.pass_on()

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
                kept = {
                    name: value for name, value in self.headers.items() if name.lower() in ("content-type", "accept")
                }
                request = urllib.request.Request(root + self.path, body, kept, method=self.command)  # noqa: S310 - ours
                try:
                    with urllib.request.urlopen(request, timeout=20) as got:  # noqa: S310 - ours
                        self.answer(got.status, got.read())
                except urllib.error.HTTPError as error:
                    self.answer(error.code, error.read())

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}{parts.path}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def liar(registry: Registry) -> Iterator[LyingRegistry]:
    made = LyingRegistry(registry.url)
    yield made
    made.close()


@pytest.fixture
def harness(
    make_stage: Callable[..., WorkerHarness], make_campaign: Callable[..., CallbacksHarness], liar: LyingRegistry
) -> Harness:
    made = Harness(make_stage(partitions=2), make_campaign({}), liar.url)
    set_up(made)
    return made


def holds(harness: Harness, worker: WorkerProcess) -> None:
    """/readyz names the registry as the reason and keeps it; no contact is rejected meanwhile."""
    stage = harness.stage
    stage.wait(lambda: "registry: " in worker.why_not_ready(), "the reason in /readyz", needs=worker)
    threading.Event().wait(SETTLE_S)  # longer than all retry rounds together
    assert "registry: " in worker.why_not_ready(), worker.log()
    assert harness.rejected() == []


def test_all_ids_are_unknown(harness: Harness, liar: LyingRegistry) -> None:
    """There is no evidence that the registry has data, also for a new group."""
    stage = harness.stage
    older, newer = harness.registered(OLDER), harness.registered(NEWER)
    stage.produce(harness.written(older, OLDER, f"older-{n}", n % 2) for n in range(10))
    stage.produce(harness.written(newer, NEWER, f"newer-{n}", n % 2, extra="x") for n in range(10))
    liar.lies = lambda _: True
    worker = stage.start_ready()
    holds(harness, worker)
    assert stage.simulator.scored() == {}
    liar.lies = lambda _: False
    stage.wait_done(needs=worker)
    assert len(harness.scored()) == 20
    assert harness.rejected() == []
    assert worker.stop() == 0
    assert harness.command("reconcile").returncode == 0


def test_a_known_id_is_unknown_and_all_others_are_there(harness: Harness, liar: LyingRegistry) -> None:
    """An id that the group has resolved before is never unknown, also after a restart; other partitions continue."""
    stage = harness.stage
    older, newer = harness.registered(OLDER), harness.registered(NEWER)
    stage.produce(
        [harness.written(older, OLDER, "before-0", 0), harness.written(newer, NEWER, "before-1", 1, extra="x")]
    )
    worker = stage.start_ready()
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    liar.lies = lambda schema_id: schema_id == older
    stage.produce(harness.written(older, OLDER, f"older-{n}", 0) for n in range(10))
    stage.produce(harness.written(newer, NEWER, f"newer-{n}", 1, extra="x") for n in range(10))
    worker = stage.start_ready()
    stage.wait(lambda: stage.commits()[1].offset == stage.ends()[1] or None, "partition 1 to go on", needs=worker)
    holds(harness, worker)
    assert older in liar.asked
    assert not any(name.startswith("older") for name in harness.scored())
    assert stage.commits()[0].offset <= 3
    assert all(offset == 0 for offset in stage.retry_commits().values()), "nothing was deferred"
    liar.lies = lambda _: False
    stage.wait_done(needs=worker)
    assert len(harness.scored()) == 22
    assert harness.rejected() == []
    assert worker.stop() == 0
    assert harness.command("reconcile").returncode == 0


def test_every_other_answer_is_404(harness: Harness, liar: LyingRegistry) -> None:
    """A replica that lags behind a load balancer."""
    stage = harness.stage
    schemas = [FEATURES_SCHEMA, OLDER, *({**OLDER, "doc": f"version {n}"} for n in range(6))]
    ids = [harness.registered(schema) for schema in schemas]
    turns = itertools.count()
    liar.lies = lambda _: next(turns) % 2 == 0
    stage.produce(
        harness.written(ids[n % len(ids)], schemas[n % len(ids)], f"C-{n:03}", n % 2) for n in range(40 * len(ids))
    )
    worker = stage.start_ready()
    stage.wait_done(needs=worker)
    liar.lies = lambda _: False
    assert len(harness.scored()) == 40 * len(ids)
    assert harness.rejected() == []
    assert worker.stop() == 0
    assert harness.command("reconcile").returncode == 0
