"""The simulator over real HTTP: latency, socket faults, its account, startup and shutdown."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import requests

from stream_scorer.errors import LocalError, SettingsError, extra_command
from stream_scorer.local.simulator import (
    Fault,
    Scenario,
    Simulator,
    SimulatorConfig,
    SimulatorControl,
    ThreadedSimulator,
    serve,
)
from stream_scorer.local.simulator.config import DEFAULT_SECRET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FEATURES = {"previous_calls": 2, "avg_handle_time": 240.5, "last_contact_days": 7, "segment_id": "retired"}
RUN_PARENT = """
from stream_scorer.local.simulator import Simulator
simulator = Simulator().start()
print(simulator.base_url, flush=True)
input()
"""
RUN_WITHOUT_EXTRA = """
import sys
sys.modules["starlette"] = sys.modules["uvicorn"] = None
from stream_scorer.cli.simulate import simulate
from stream_scorer.errors import LocalError
try:
    simulate(port=0)
except LocalError as error:
    print(error)
"""
RUN_CLI = "import typer; from stream_scorer.cli.simulate import simulate; typer.run(simulate)"


class Client:
    """A minimal client."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.session = requests.Session()
        self.session.trust_env = False
        self.log_in()

    def log_in(self, secret: str = DEFAULT_SECRET) -> requests.Response:
        answer = self.session.post(
            f"{self.base_url}/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=("simulator-client", secret),
            timeout=10,
        )
        if answer.ok:
            self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return answer

    def score(
        self, *ids: str, data: bytes | None = None, timeout: float = 10, stream: bool = False, **more: Any
    ) -> requests.Response:
        contacts = [{"contactId": contact_id, "features": FEATURES} for contact_id in ids]
        return self.session.post(
            f"{self.base_url}/api/v2/predictiveengagement/models/simulator-model/score",
            data=data or orjson.dumps({"contacts": contacts, **more}),
            headers={"Content-Type": "application/json"},
            timeout=timeout,
            stream=stream,
        )


@pytest.fixture
def client(simulator: Simulator) -> Client:
    return Client(simulator.base_url)


def wait_until(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def refuses_connections(base_url: str) -> bool:
    try:
        requests.get(base_url, timeout=1)
    except requests.ConnectionError:
        return True
    return False


def test_contacts_are_scored_and_counted(simulator: Simulator, client: Client) -> None:
    answer = client.score("a", "b", modelVersion="v1")
    assert answer.status_code == 200
    assert [item["contactId"] for item in answer.json()["results"]] == ["a", "b"]
    assert answer.json()["results"][0].keys() == {"contactId", "score", "confidenceInterval"}
    assert client.score("b").status_code == 200
    assert simulator.scored() == {"a": 1, "b": 2}
    assert simulator.scored(minimum=2) == {"b": 2}
    stats = simulator.stats()
    assert stats.requests == {"token": {"200": 1}, "score": {"200": 2}}
    assert (stats.contacts_scored, stats.contacts_distinct, stats.contacts_repeated) == (3, 2, 1)
    assert stats.in_flight == 0
    assert stats.first_request_at_ms is not None
    assert stats.last_request_at_ms is not None
    assert stats.first_request_at_ms <= stats.last_request_at_ms <= time.time() * 1000


def test_every_answer_names_its_request_and_the_state_of_the_quota(client: Client) -> None:
    url = f"{client.base_url}/api/v2/predictiveengagement/models"
    answers = [
        client.log_in(),
        client.log_in("wrong"),
        client.score("a"),
        client.score("REFUSE-1"),
        client.session.get(f"{url}/simulator-model/score", timeout=10),
        client.session.post(f"{url}/other/score", data=b"{}", timeout=10),
        client.session.get(f"{client.base_url}/api/v2/users", timeout=10),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 200, 400, 405, 404, 404]
    assert len({answer.headers["ININ-Correlation-Id"] for answer in answers}) == len(answers)
    counts = [int(answer.headers["inin-ratelimit-count"]) for answer in answers]
    assert counts == [0, 0, 1, 2, 2, 3, 3]
    for answer in answers:
        assert answer.headers["inin-ratelimit-allowed"] == "300"
        assert 0 < int(answer.headers["inin-ratelimit-reset"]) <= 60
        if answer.status_code >= 400 and "error" not in answer.json():
            assert answer.json()["contextId"] == answer.headers["ININ-Correlation-Id"]


def test_refused_requests_are_counted_by_status(simulator: Simulator, client: Client) -> None:
    client.score("REFUSE-1")
    client.score("a", modelVersion="v9")
    client.score(data=b"x" * 512_001)
    simulator.revoke_tokens()
    client.score("a")
    client.log_in("wrong")
    assert simulator.stats().requests == {
        "token": {"200": 1, "401": 1},
        "score": {"400": 1, "404": 1, "413": 1, "401": 1},
    }
    assert simulator.stats().requests_with("score", 413) == 1
    assert simulator.scored() == {}


def test_a_body_far_over_the_limit_is_answered_and_the_connection_lives_on(client: Client) -> None:
    assert client.score(data=b"x" * 8_000_000).status_code == 413
    assert client.score("a").status_code == 200


def test_slow_answers_overlap(simulator: Simulator, client: Client) -> None:
    simulator.configure(latency_ms=300)
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: client.score(f"c{number}"), range(8)))
    took_s = time.monotonic() - started
    assert {answer.status_code for answer in answers} == {200}
    assert 0.3 <= took_s < 1.2  # one after the other they would take 2.4
    assert min(answer.elapsed.total_seconds() for answer in answers) >= 0.3
    assert simulator.stats().in_flight_max == 8


def test_scripted_statuses_are_sent_in_order_and_not_billed(simulator: Simulator, client: Client) -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    simulator.add_fault(status=503, retry_after=3)
    simulator.add_fault(status=502, body="html", retry_after=date)
    simulator.add_fault(status=429, headers={"inin-ratelimit-allowed": "7"})
    simulator.add_fault(status=200, body='{"results":[')
    simulator.add_fault(path="token", status=401)
    answers = [client.score("a") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [503, 502, 429, 200, 200]
    assert answers[0].headers["Retry-After"] == "3"
    assert answers[0].json()["code"] == "service.unavailable"
    assert answers[1].headers["Retry-After"] == date
    assert answers[1].headers["Content-Type"].startswith("text/html")
    assert answers[2].headers["inin-ratelimit-allowed"] == "7"
    assert answers[3].text == '{"results":['
    assert client.log_in().json()["error"] == "invalid_client"
    assert client.log_in().status_code == 200
    assert simulator.scored() == {"a": 1}
    assert [fault["fired"] for fault in simulator.faults()] == [1] * 5


def test_faults_can_be_given_as_values(simulator: Simulator, client: Client) -> None:
    simulator.add_faults([Fault.model_validate({"match": {"path": "score"}, "action": {"status": 504}, "times": 2})])
    assert [client.score("a").status_code for _ in range(3)] == [504, 504, 200]


def test_a_malformed_script_is_refused_and_changes_nothing(simulator: Simulator) -> None:
    with pytest.raises(SettingsError, match=r"0\.action\.status"):
        simulator.add_fault(status=42)
    with pytest.raises(SettingsError, match="quotas"):
        simulator.configure(quotas=1)
    url = f"{simulator.base_url}/_simulator"
    assert requests.post(f"{url}/faults", data=b"{", timeout=10).status_code == 400
    assert requests.patch(f"{url}/config", data=b"[]", timeout=10).status_code == 400
    assert requests.get(f"{url}/scored?minimum=many", timeout=10).status_code == 400
    assert simulator.faults() == []
    assert "client_secret" not in requests.get(f"{url}/config", timeout=10).json()
    assert requests.get(f"{url}/health", timeout=10).status_code == 204


# --- damaged answers


def test_only_answers_with_results_are_edited(simulator: Simulator, client: Client) -> None:
    simulator.add_fault(results=[{"do": "omit"}])
    assert client.score("REFUSE-1").status_code == 400
    assert simulator.scored() == {}


def test_a_refusal_can_name_contacts_and_revoke_tokens(simulator: Simulator, client: Client) -> None:
    simulator.add_fault(status=422, names={"prefix": "b"})
    simulator.add_fault(status=400, names=["elsewhere"])
    simulator.add_fault(status=401, code="bad.credentials", revoke_tokens=True)
    refusals = [client.score("a", "b1", "b2") for _ in range(2)]
    assert [[detail["entityId"] for detail in refusal.json()["details"]] for refusal in refusals] == [
        ["b1", "b2"],
        ["elsewhere"],
    ]
    assert [client.score("a").status_code for _ in range(2)] == [401, 401]
    client.log_in()
    assert client.score("a").status_code == 200


def test_a_small_body_can_decompress_without_bounds(simulator: Simulator, client: Client) -> None:
    simulator.add_fault(transfer="gzip_bomb")
    answer = client.score("a", stream=True)
    assert answer.headers["Content-Encoding"] == "gzip"
    packed = answer.raw.read(decode_content=False)
    assert len(packed) < 1_000_000
    unpacker = zlib.decompressobj(wbits=31)
    size, last = 0, b""
    data = packed
    while data and not unpacker.eof:
        piece = unpacker.decompress(data, 1_000_000)
        size, last, data = size + len(piece), (last + piece)[-1:], unpacker.unconsumed_tail
    assert unpacker.eof, "it is a sound gzip member to its end"
    assert size > 100_000_000
    assert last == b"}"


def test_a_body_can_be_compressed_as_it_should_be(simulator: Simulator, client: Client) -> None:
    simulator.add_fault(transfer="gzip")
    answer = client.score("a")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.json()["results"][0]["contactId"] == "a"


def test_it_stops_in_the_middle_of_an_endless_body(make_simulator: Callable[..., Simulator]) -> None:
    simulator = make_simulator()
    client = Client(simulator.base_url)
    simulator.add_fault(transfer="drip")
    with client.score("a", stream=True):
        simulator.stop()
    assert not simulator.running


# --- scenarios


def test_a_scenario_is_played_from_the_first_request_on(make_simulator: Callable[..., Simulator]) -> None:
    simulator = make_simulator()
    assert simulator.playing() is None
    steps = [
        {
            "name": "no tokens",
            "at_s": 0,
            "for_s": 0.5,
            "faults": [{"match": {"path": "token"}, "action": {"status": 503}}],
        },
        {"name": "ever after", "at_s": 0.5, "config": {"quota": 1}},
    ]
    simulator.play(Scenario.model_validate({"name": "short", "step": steps}))
    state = simulator.playing()
    assert state is not None
    assert (state.elapsed_s, state.playing, state.to_come, state.over) == (None, (), ("no tokens", "ever after"), False)
    client = Client(simulator.base_url)
    assert client.log_in().status_code == 503
    wait_until(lambda: client.log_in().ok)
    assert [client.score("a").status_code for _ in range(2)] == [200, 429]
    state = simulator.playing()
    assert state is not None
    assert (state.playing, state.to_come, state.over) == (("ever after",), (), True)
    simulator.stop_playing()
    assert client.score("a").status_code == 200
    url = f"{simulator.base_url}/_simulator/scenario"
    assert (
        requests.put(url, json={"step": [{"at_s": -1}]}, timeout=10).json()["error"].startswith("scenario in the body")
    )


@pytest.fixture(params=[Simulator, ThreadedSimulator])
def started(request: pytest.FixtureRequest) -> Iterator[Simulator | ThreadedSimulator]:
    with request.param(SimulatorConfig(client_secret="other")) as simulator:
        yield simulator


def test_it_starts_with_its_configuration_and_stops(started: Simulator | ThreadedSimulator) -> None:
    assert started.running
    client = Client(started.base_url)
    assert client.log_in("simulator-secret").status_code == 401
    assert client.log_in("other").status_code == 200
    assert started.environment()["STREAM_SCORER_GENESYS__CLIENT_SECRET"] == "other"
    assert started.environment()["STREAM_SCORER_GENESYS__LOGIN_URL"] == started.base_url
    started.stop()
    started.stop()
    assert not started.running
    assert refuses_connections(started.base_url)
    with pytest.raises(LocalError, match="does not answer"):
        started.stats()


def test_it_restarts_on_the_same_port(make_simulator: Callable[..., Simulator]) -> None:
    simulator = make_simulator()
    base_url, client = simulator.base_url, Client(simulator.base_url)
    client.score("a")
    simulator.stop()
    simulator.start()
    assert simulator.base_url == base_url
    assert simulator.scored() == {}
    assert client.log_in().status_code == 200


def test_it_is_stopped_while_requests_are_in_flight(make_simulator: Callable[..., Simulator]) -> None:
    simulator = make_simulator(latency_ms=60_000)
    client = Client(simulator.base_url)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.score, "a", timeout=30)
        wait_until(lambda: simulator.stats().in_flight == 1)
        simulator.stop()
        assert isinstance(waiting.exception(timeout=10), requests.ConnectionError)


def test_it_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN_PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        base_url = parent.stdout.readline().strip()
        assert SimulatorControl(base_url).stats().contacts_scored == 0
        parent.kill()
    wait_until(lambda: refuses_connections(base_url))


def test_a_taken_port_is_one_clear_line(simulator: Simulator) -> None:
    port = int(simulator.base_url.rpartition(":")[2])
    with pytest.raises(LocalError, match=f"port {port} on 127.0.0.1 is taken"):
        Simulator(port=port).start()
    with pytest.raises(LocalError, match="--port"):
        serve(SimulatorConfig(), "127.0.0.1", port, lambda _: None)


def test_a_missing_extra_is_one_clear_line() -> None:
    done = subprocess.run([sys.executable, "-c", RUN_WITHOUT_EXTRA], capture_output=True, text=True, check=True)
    assert done.stdout == f"the simulator needs starlette and uvicorn: {extra_command('local')}\n"


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_the_worker_settings_and_exits_cleanly(ending: signal.Signals) -> None:
    command = [sys.executable, "-c", RUN_CLI, "--port", "0", "--quota", "1", "--model-version", "v7"]
    environment = {**os.environ, "SIMULATOR_CLIENT_SECRET": "chosen"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        lines: dict[str, str] = {}
        while "STREAM_SCORER_GENESYS__MODEL_ID" not in lines:
            name, _, value = process.stdout.readline().strip().removeprefix("export ").partition("=")
            lines[name] = value
        client = Client(lines["STREAM_SCORER_GENESYS__BASE_URL"])
        assert client.log_in("chosen").status_code == 200
        assert [client.score("a", modelVersion="v7").status_code for _ in range(2)] == [200, 429]
        process.send_signal(ending)
        rest, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "chosen" not in "".join(lines.values()) + rest
    assert errors == ""


def test_the_command_plays_a_scenario_and_prints_its_steps(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "description = 'what it shows'\n"
        "[[step]]\nname = 'down'\nat_s = 0\nfor_s = 0.2\n"
        "faults = [{match = {path = 'token'}, action = {status = 500}}]\n"
    )
    command = [sys.executable, "-c", RUN_CLI, "--port", "0", "--scenario", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = ""
        while "It begins with the first request" not in text:
            text += process.stdout.readline()
        assert "Scenario mine: what it shows" in text
        base_url = re.search(r"BASE_URL=(\S+)", text)
        assert base_url is not None
        assert Client(base_url[1]).log_in().status_code == 500
        # The end is printed although no request arrives.
        lines = [process.stdout.readline() for _ in range(4)]
        steps = [line for line in lines if "POST /oauth/token 500" not in line]  # two requests, a line each
        assert steps == ["0 s: down, for 0.2 s\n", "0.2 s: down: over\n"]
        process.terminate()
        process.communicate(timeout=10)
    assert process.returncode == 0


def test_the_command_lists_the_scenarios_and_rejects_an_unknown_one(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stream_scorer", "simulate", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    listed = run("--scenarios")
    assert listed.returncode == 0
    assert [line.partition(":")[0] for line in listed.stdout.splitlines()] == ["bad-day", "broken-contract", "poison"]
    file = tmp_path / "wrong.toml"
    file.write_text("[[step]]\nname = 'storm'\nat_s = 0\nfaults = [{action = {status = 4290}}]\n")
    refused = run("--scenario", str(file))
    assert refused.returncode == 2
    assert f"scenario {file}: step 1 'storm', faults.0.action.status: " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert run("--scenario", "worst-day").returncode == 1
