"""``stream-scorer status`` on the real broker: lag, time left, retry topics, workers; as text, lines and JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from callbacks_harness import score
from confluent_kafka import Producer
from scoring_harness import ScoringHarness, contacts, wait_until
from worker_harness import ROOT

from stream_scorer.desk.group_status import GroupStatus
from stream_scorer.errors import NotJudged
from stream_scorer.local.kafka.process import free_port
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from callbacks_harness import CallbacksHarness
    from kafka_fixture import Broker
    from worker_harness import WorkerHarness

    from stream_scorer.local.kafka.broker import EmbeddedKafka
    from stream_scorer.local.receiver import Receiver

pytestmark = pytest.mark.kafka


def started(settings: Mapping[str, str], *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """A call of the command in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAM_SCORER_", "GENESYS_", "OTEL_"))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-m", "stream_scorer", "status", *arguments],
        env={**kept, **settings, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        text=True,
        **{**pipes, **options},
    )


def done(settings: Mapping[str, str], *arguments: str, code: int = 0) -> str:
    """The output of a call; with another exit code its error line."""
    process = started(settings, *arguments)
    output, error = process.communicate(timeout=90)
    assert process.returncode == code, output + error
    if code:
        assert output == ""
        assert len(error.splitlines()) == 1, error
    return error if code else output


def put(broker: Broker, topic: str, *groups: str | None) -> None:
    """Records of these groups in a retry topic."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for group in groups:
        headers = [] if group is None else [("stream-scorer-group", group.encode())]
        producer.produce(topic, b"value", b"key", partition=0, headers=headers)
    assert producer.flush(30) == 0


def test_what_waits_is_shown_for_each_partition_and_retry_topic(stage: WorkerHarness, broker: Broker) -> None:
    stage.produce(contacts(400, stage.partitions))
    stage.commit_by_hand(dict.fromkeys(range(stage.partitions), 90))
    put(broker, stage.retries[0], stage.group_id, "another group", None)
    printed = json.loads(done(stage.settings(), "--json", "--interval", "0.5"))
    [group] = printed["groups"]
    assert (group["loop"], group["group_id"], group["topic"]) == ("scoring", stage.group_id, stage.topics["features"])
    assert (group["lag"], group["rate_per_s"], group["time_left_s"]) == (40, 0.0, None)
    assert [(one["committed"], one["end"], one["lag"]) for one in group["partitions"]] == [(90, 100, 10)] * 4
    assert group["waiting"] == dict(zip(stage.retries, (2, 0, 0), strict=True))
    text = done(stage.settings(), "--interval", "0.5")
    assert re.search(r"all +40 +0/s +does not fall", text), text
    assert f"{stage.retries[0]} 2" in text
    # Records that no worker reads are what an operator looks for.
    assert group["members"] == []
    assert f"scoring: members 0, group {stage.group_id} on {stage.topics['features']}, " in text
    assert "no member reads it: start `stream-scorer run`" in text


@pytest.mark.slow
def test_a_worker_at_work_is_shown_with_rate_and_time_left_and_its_admin_port(stage: WorkerHarness) -> None:
    stage.simulator.configure(latency_ms=200)
    stage.produce(contacts(40_000, stage.partitions))
    worker = stage.start_ready(scoring__max_in_flight="2", scoring__max_contacts="200")
    url = f"http://127.0.0.1:{worker.admin_port}"
    stage.wait(stage.commits, "a commit", needs=worker)
    printed = json.loads(done(stage.settings(), "--json", "--admin", url, "--admin", "http://127.0.0.1:1"))
    [group] = printed["groups"]
    assert group["rate_per_s"] > 0
    assert 0 < group["time_left_s"] < 600
    present, absent = printed["workers"]
    assert (present["is_ready"], present["open_breakers"], present["callbacks"]) == (True, [], None)
    assert present["quota_allowed"] > present["quota_used"] > 0
    assert (absent["is_ready"], absent["detail"]) == (None, "no answer: connection refused")
    text = done(stage.settings(), "--admin", url)
    assert re.search(rf"{url}  ready  quota \d+/100,000  circuit closed", text), text
    worker.kill()


def test_the_campaign_worker_is_shown_with_its_groups(
    make_campaign: Callable[..., CallbacksHarness], receiver: Receiver
) -> None:
    campaign = make_campaign(receiver.environment())
    campaign.put(score(f"c{number}") for number in range(10))
    worker = campaign.start("--from", "earliest")
    campaign.wait_receipts(10, needs=worker)
    settings = campaign.settings()
    url = f"http://127.0.0.1:{worker.admin_port}"

    def groups() -> dict[str, Any] | None:
        printed = json.loads(done(settings, "--json", "--admin", url))
        found = {group["loop"]: group for group in printed["groups"]}
        is_done = len(found) == 2 and all(one["lag"] == 0 for one in found.values())
        is_done = is_done and printed["workers"][0].get("callbacks", {}).get("in_flight") == 0
        return {**found, "worker": printed["workers"][0]} if is_done else None

    found = campaign.wait(groups, "no lag", needs=worker)
    assert found.keys() == {"planner", "deliverer", "worker"}
    assert found["planner"]["time_left_s"] == 0
    for loop in ("planner", "deliverer"):
        [member] = found[loop]["members"]
        assert re.fullmatch(r"127\.0\.0\.1 [0-9a-f]{8}", member["name"]), member
        assert member["partitions"] == [one["partition"] for one in found[loop]["partitions"]]
    text = done(settings)
    assert re.search(r"planner: members 1, group ", text), text
    assert re.search(rf"^ +0 .* {re.escape(member['name'])} *$", text, re.MULTILINE), text
    assert "no member reads it" not in text
    assert sum(found["deliverer"]["waiting"].values()) == 0
    assert found["worker"]["callbacks"] == {"in_flight": 0, "waiting": 0, "held": 0, "campaigns_blocked": 0}
    assert worker.stop() == 0


def test_watch_in_a_pipe_is_one_line_a_reading_and_ctrl_c_ends_it(stage: WorkerHarness) -> None:
    stage.produce(contacts(40, stage.partitions))
    stage.commit_by_hand(dict.fromkeys(range(stage.partitions), 10))
    process = started(stage.settings(), "--watch", "--interval", "0.5")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, "")
    assert re.fullmatch(r"\S+Z  scoring lag 0  members 0  waiting 0\n", lines[0]), lines
    assert re.fullmatch(r"\S+Z  scoring lag 0  members 0  0/s  waiting 0\n", lines[2]), lines
    assert all(line.endswith("waiting 0") for line in rest.splitlines())


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_closed_pipe_ends_it_quietly(stage: WorkerHarness, options: tuple[str, ...]) -> None:
    stage.commit_by_hand({0: 0})
    process = started(stage.settings(), "--watch", "--interval", "60", *options)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_watch_in_a_terminal_redraws(stage: WorkerHarness) -> None:
    stage.commit_by_hand(dict.fromkeys(range(stage.partitions), 0))
    main, secondary = pty.openpty()
    process = started(
        {**stage.settings(), "TERM": "xterm"}, "--watch", "--interval", "0.5", stdout=secondary, stderr=secondary
    )
    os.close(secondary)
    text, interrupted = "", False
    while True:
        try:
            chunk = os.read(main, 65_536).decode()
        except OSError:
            break
        if not chunk:
            break
        text += chunk
        if text.count("partition") >= 3 and not interrupted:
            interrupted = True
            process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    os.close(main)
    assert "\x1b[" in text
    assert "Traceback" not in text
    assert text.endswith("\x1b[?25h"), "the cursor is shown again"


class Foreign(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<html>\x1b[2J\nnot yours</html>" if self.path != "/bad/metrics" else b"{"
        self.send_response(200 if self.path.startswith("/bad") else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def foreign() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_an_admin_url_of_another_program_is_named(stage: WorkerHarness, foreign: str) -> None:
    stage.commit_by_hand({0: 0})
    text = done(stage.settings(), "--admin", foreign, "--admin", f"{foreign}/bad/", "--admin", "http://no.invalid:1")
    assert f"{foreign}  no admin port: HTTP 404 to /readyz" in text
    assert "its /metrics are unreadable" in text
    assert "http://no.invalid:1  no answer: unknown host" in text
    assert "\x1b[2J" not in text


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--admin", "localhost:9464"), "--admin: must be the URL of an admin port"),
        (("--admin", "http://user:pw@localhost:9464"), "--admin: must be the URL of an admin port"),
        (("--interval", "0"), "greater than or equal to 0.5"),
        (("--interval", "soon"), "--interval"),
        (("topic",), "unexpected extra argument"),
        (("--config", "missing.toml"), "missing.toml"),
    ],
)
def test_wrong_input_is_one_line(stage: WorkerHarness, arguments: tuple[str, ...], part: str) -> None:
    assert part.lower() in done(stage.settings(), *arguments, code=2).lower()


def test_what_cannot_be_judged_is_exit_3(stage: WorkerHarness) -> None:
    mistyped = {**stage.settings(), "STREAM_SCORER_KAFKA__GROUP_ID": "mistyped"}
    assert "group mistyped has no commits on" in done(mistyped, "--watch", code=3)
    nowhere = {**stage.settings(), "STREAM_SCORER_TOPICS__FEATURES": "no-such-topic"}
    assert "topic no-such-topic is missing" in done(nowhere, "--json", code=3)
    # What makes an exit code of 3 of it is the same; the command would wait for 10 s.
    away = {**stage.settings(), "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    with pytest.raises(NotJudged, match="no answer from Kafka"):
        GroupStatus(load_settings(environ=away), timeout_s=1.0).read()


@pytest.mark.slow
def test_a_broker_that_comes_back_is_read_again(private_kafka: Callable[..., EmbeddedKafka]) -> None:
    kafka = private_kafka()
    arena = ScoringHarness(kafka.start().bootstrap_servers, partitions=1)
    arena.produce(contacts(5, 1))
    arena.commit_by_hand({0: 2})
    reader = GroupStatus(load_settings(environ=arena.settings()), timeout_s=2.0)
    assert reader.read().lag == 3
    kafka.kill()
    with pytest.raises(NotJudged, match="no answer from Kafka"):
        reader.read()
    kafka.start()

    def lag() -> list[int] | None:
        try:
            return [reader.read().lag]
        except NotJudged:
            return None

    assert wait_until(lag, "a reading") == [3]
