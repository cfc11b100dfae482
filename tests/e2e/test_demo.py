"""``stream-scorer demo`` as a user runs it: real Kafka, simulator and worker, and a complete cleanup."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by their environment in /proc"),
]

LIMIT_S = 150
LONG_S = 280


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """The parent of the demo's folder. Its path is also in the environment of every process it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield folder
    for pid in processes(folder):  # after a failed test
        os.kill(pid, signal.SIGKILL)


def processes(temporary: Path) -> dict[int, str]:
    """Return the command lines of all processes with this environment; a zombie process has none."""
    mark = f"TMPDIR={temporary}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if mark in environment and command:
            found[int(entry.name)] = command
    return found


def assert_nothing_left(temporary: Path) -> None:
    assert processes(temporary) == {}
    assert list(temporary.iterdir()) == []


@contextmanager
def started(temporary: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("STREAM_SCORER_", "GENESYS_"))},
        "TMPDIR": str(temporary),
        "PYTHONUNBUFFERED": "1",
        # Settings of a user for a real worker: the demo must not use them.
        "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "GENESYS_CLIENT_SECRET": "the-real-one",
    }
    demo = subprocess.Popen(
        [sys.executable, "-m", "stream_scorer", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        yield demo
    finally:
        demo.terminate()  # after a failed test; otherwise the demo cleans up
        demo.communicate(timeout=60)


def words(text: str) -> str:
    """Return the text without line ends: the demo wraps its lines at 80 columns."""
    return " ".join(text.split())


def assert_plain_and_narrow(*texts: str) -> None:
    """Assert that there are no control codes, and no line over 80 columns except commands with long paths."""
    for text in texts:
        assert "\x1b" not in text
        assert "\r" not in text
        assert [line for line in text.splitlines() if len(line) > 80 and not line.startswith("  ")] == []


def assert_paid(out: str, answered: int) -> int:
    """Check the sum of the bill and return how many contacts were billed again."""
    price = re.search(r"price: ([\d,]+) contacts paid = ([\d,]+) with a score \+ ([\d,]+) billed again", words(out))
    assert price, out
    paid, scored, again = (int(number.replace(",", "")) for number in price.groups())
    assert paid == scored + again
    assert scored == answered
    return again


def assert_accounted(out: str, contacts: int) -> int:
    """Check equation and verdict, with the repaired contact, and return the contacts with a score."""
    equation = re.search(r"([\d,]+) inputs = ([\d,]+) scores \+ ([\d,]+) review \+ ([\d,]+) rejected", out)
    assert equation, out
    inputs, scores, review, rejected = (int(number.replace(",", "")) for number in equation.groups())
    assert inputs == scores + review + rejected == contacts + 1
    assert min(scores, review, rejected) > 0
    assert "verdict of reconcile: the invariant holds" in words(out)
    assert "every score ≥ 0.75 on contact-scores has one receipt or waits" in words(out)
    reasons = re.search(r"rejected ([\d,]+): ((?:[a-z_]+ \d+(?:, )?)+)", words(out))
    assert reasons, out
    assert sum(map(int, re.findall(r"\d+", reasons[2]))) == rejected
    return scores + review


def assert_followed(out: str, err: str) -> None:
    """Three contacts have their history, and the rejected one is repaired with a command of the desk."""
    repair = re.search(r"\$ stream-scorer rejected replay (DEMO-\d+) --set previous_calls=3 --yes", words(err))
    assert repair, err
    ended = (
        r"(scored 0\.\d+, |in review: )"  # which of them depends on the contact, and so on the order of the outcomes
    )
    assert re.search(rf"{repair[1]} {ended}", words(err)), err
    assert re.search(r"^DEMO-\d+  scored 0\.\d+, to be called", out, re.MULTILINE)
    assert re.search(r"^DEMO-\d+  in review: [a-z_]+, so a person decides", out, re.MULTILINE)
    assert f"{repair[1]} rejected: wrong_type ('previous_calls' must be an integer, not a string); repaired" in words(
        out
    )


def test_every_contact_has_an_outcome_and_can_be_read_afterwards(temporary: Path) -> None:
    with started(temporary, "--contacts", "2000", "--keep", "--target", "webhook") as demo:
        out, err = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 0, out + err
    assert_plain_and_narrow(out, err)
    assert "with fewer than 5,000 contacts no worker is killed, and no outage is played" in words(out)
    assert_paid(out, assert_accounted(out, 2_000))
    assert re.search(
        r"([\d,]+) scores ≥ 0.75 = \1 delivered \+ 0 refused \+ 0 given up \+ 0 expired \+ 0 waiting", words(out)
    ), out
    assert re.search(r"campaign manager received [\d,]+ contacts .* exactly those with a high score", words(out)), out
    assert_followed(out, err)
    assert "read 2,000 of 2,000" in err
    assert re.search(r"quota [\d,]+ of 3,000", err), err
    look_and_stop(temporary, out)
    assert_nothing_left(temporary)


@pytest.mark.slow
def test_the_dialler_calls_each_contact_once(temporary: Path) -> None:
    with started(temporary, "--contacts", "1000") as demo:
        out, err = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 0, out + err
    assert re.search(r"the dialler called [\d,]+ contacts, each once, exactly those with a high score", words(out)), out
    assert_accounted(out, 1_000)
    assert_followed(out, err)
    assert re.search(r"called [\d,]+  queue [\d,]+", err)
    assert_nothing_left(temporary)


@pytest.mark.slow
def test_the_full_demo_has_a_kill_an_outage_and_a_repair(temporary: Path) -> None:
    with started(temporary) as demo:
        out, err = demo.communicate(timeout=LONG_S)
    assert demo.returncode == 0, out + err
    assert_plain_and_narrow(out, err)
    answered = assert_accounted(out, 20_000)
    assert assert_paid(out, answered) < 16_000, "the limit of the contract for one kill"
    assert_followed(out, err)
    events = (
        "scorer-1 is killed (SIGKILL)",
        "scorer-2 has taken over: it owns all 4 partitions",
        "the API fails: it answers every request with 503; the circuit breaker is closed",
        "circuit breaker of scorer-2: open",
        "the API works again",
        "circuit breaker of scorer-2: half-open",
        "circuit breaker of scorer-2: closed",
    )
    places = [words(err).find(event) for event in events]
    assert places == sorted(places), err
    assert -1 not in places, err
    *_, title, one, two, three = out.splitlines()
    assert title == "to go on:"
    assert all(line.startswith("  stream-scorer ") for line in (one, two, three))
    assert_nothing_left(temporary)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["bad-day", "poison"])
def test_a_shipped_scenario_with_a_kill(temporary: Path, scenario: str) -> None:
    with started(temporary, "--contacts", "8000", "--scenario", scenario) as demo:
        out, err = demo.communicate(timeout=LONG_S)
    assert demo.returncode == 0, out + err
    assert_plain_and_narrow(out, err)
    assert_paid(out, assert_accounted(out, 8_000))
    assert_followed(out, err)
    assert "scorer-1 is killed (SIGKILL)" in err
    assert "the API fails: " not in err, "the scenario has its own failures"
    assert_nothing_left(temporary)


def look_and_stop(temporary: Path, out: str) -> None:
    """Run the commands that the demo prints for the Kafka it kept."""
    servers = re.search(r"export STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS=(\S+)", out)
    stop = re.search(r"stream-scorer (kafka stop --data-dir \S+) && (rm -r \S+)", out)
    assert servers, out
    assert stop, out
    [kafka] = processes(temporary).values()
    assert "kafka.Kafka" in kafka
    command = f"{sys.executable} -m stream_scorer"
    environment = {**os.environ, "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": servers[1]}
    script = f"{command} reconcile && {command} {stop[1]} && {stop[2]}"
    looked = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert "2,001 inputs = " in looked.stdout


SCENARIO = """
description = "a short outage, and two contacts that are refused"
[[step]]
name = "outage"
at_s = 0
for_s = 4
faults = [{action = {status = 503, body = "html"}}]
[[step]]
name = "refused"
at_s = 0
faults = [
  {match = {contact_id = "DEMO-0000010"}, action = {status = 400, names = {ids = ["DEMO-0000010"]}}},
  {match = {contact_id = "DEMO-0000020"}, action = {status = 400}},
]
[[step]]
name = "never"
at_s = 3000
revoke_tokens = true
[expect]
refused = {ids = ["DEMO-0000010", "DEMO-0000020"]}
"""


@pytest.mark.slow
def test_a_scenario_is_played_printed_and_reconciled(temporary: Path, tmp_path: Path) -> None:
    file = tmp_path / "short.toml"
    file.write_text(SCENARIO)
    with started(temporary, "--contacts", "2000", "--scenario", str(file)) as demo:
        out, err = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 0, out + err
    assert "scenario short: a short outage" in out
    assert "genesys.probe_interval_s = 1" in words(out), "what is other than usual is said"
    assert "[scenario: outage, refused]" in err
    assert "the invariant holds" in words(out)
    answers = r"scenario short: answers .* 200: \d+, .*503: \d+; .*before these steps began: never"
    assert re.search(answers, words(out)), out
    assert_nothing_left(temporary)


def test_an_invalid_scenario_starts_nothing(temporary: Path) -> None:
    with started(temporary, "--scenario", "worst-day") as demo:
        out, err = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 1, out + err
    assert "bad-day, broken-contract, poison" in err
    assert "Kafka" not in err
    assert_nothing_left(temporary)


@pytest.mark.parametrize(
    ("moment", "number", "contacts"),
    [
        ("starting Apache Kafka", signal.SIGTERM, "20000"),
        ("  read ", signal.SIGINT, "20000"),
        pytest.param("scorer-1 is killed", signal.SIGTERM, "20000", marks=pytest.mark.slow),
        pytest.param("$ stream-scorer rejected replay", signal.SIGINT, "300", marks=pytest.mark.slow),
    ],
)
def test_a_signal_during_the_demo_leaves_no_process_or_folder(
    temporary: Path, moment: str, number: signal.Signals, contacts: str
) -> None:
    with started(temporary, "--contacts", contacts) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if moment in line:
                break
        assert processes(temporary)
        demo.send_signal(number)
        demo.send_signal(number)  # a second signal changes nothing
        out, err = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 128 + number, out + err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert_nothing_left(temporary)


def test_a_failed_worker_is_reported_in_one_line_with_its_log(temporary: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import sys\nif sys.argv[-1:] == ['run'] or 'run' in sys.orig_argv: sys.exit('out of order')\n"
    )
    begun = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{broken}{os.pathsep}{Path(__file__).parents[2]}")
        with started(temporary, "--contacts", "10") as demo:
            out, err = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 1, out + err
    assert "out of order" in err
    assert err.rstrip().splitlines()[-1].startswith("stream-scorer: stream-scorer run has ended with exit code 1")
    assert time.monotonic() - begun < 60
    assert_nothing_left(temporary)
