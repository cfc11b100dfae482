"""``config check --score``: one paid contact, and the form of its answer, on the real simulator."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from worker_harness import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stream_scorer.local.simulator import Simulator

CSV = "contact_id,previous_calls,avg_handle_time,last_contact_days,segment_id\n"
ROW = "first,4711,180.5,,premium-segment\nsecond,1,1.5,1,basic\n"


@pytest.fixture
def contacts(tmp_path: Path) -> Path:
    path = tmp_path / "contacts.csv"
    path.write_text(CSV + ROW)
    return path


def command(simulator: Simulator, file: Path | str, *options: str) -> dict[str, Any]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAM_SCORER_", "GENESYS_", "OTEL_"))}
    return {
        "args": [sys.executable, "-m", "stream_scorer", "config", "check", "--score", str(file), *options],
        "env": {**kept, **simulator.environment(), "PYTHONPATH": str(ROOT)},
    }


def run(simulator: Simulator, file: Path | str, *options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        **command(simulator, file, *options),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_one_contact_is_scored_and_every_assumption_holds(simulator: Simulator, contacts: Path) -> None:
    done = run(simulator, contacts, "--yes")
    assert simulator.scored() == {"first": 1}
    assert f"{contacts}:2 is sent to model simulator-model at {simulator.base_url}" in done.stderr
    assert "the platform bills 1 contact" in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 13
    assert all(line.startswith("✓ ") for line in lines)
    for value in ("4711", "180.5", "premium-segment", "first"):
        assert value not in done.stdout + done.stderr


def test_without_a_terminal_nothing_is_sent_unless_yes_is_given(simulator: Simulator, contacts: Path) -> None:
    done = run(simulator, contacts, code=2)
    assert done.stderr.splitlines()[-1] == (
        "stream-scorer: --score sends one contact that is billed: add --yes, or answer on a terminal"
    )
    assert simulator.scored() == {}


@pytest.mark.parametrize(("reply", "code", "sent"), [("y", 0, {"first": 1}), ("n", 1, {}), ("", 1, {})])
def test_a_terminal_is_asked(
    simulator: Simulator, contacts: Path, reply: str, code: int, sent: Mapping[str, int]
) -> None:
    main, secondary = pty.openpty()
    with subprocess.Popen(
        **command(simulator, contacts), stdin=secondary, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        os.close(secondary)
        os.write(main, f"{reply}\n".encode())
        assert process.stdout is not None
        text = process.stdout.read()
        assert process.wait(60) == code, text
    os.close(main)
    assert simulator.scored() == sent
    assert ("nothing was sent" in text) is (code == 1)


@pytest.mark.parametrize(
    ("fault", "parts"),
    [
        ({"results": [{"do": "remove", "of": "all", "field": "upper"}]}, ["confidenceInterval.upper' is a number"]),
        ({"results": [{"do": "unknown", "of": "all"}]}, ["one contact has one result: 2 results"]),
        ({"results": [{"do": "swap", "of": "all"}]}, ["lower <= score <= upper: another order"]),
        ({"status": 200, "body": "wrong_shape"}, ["the body is an object with a list 'results'"]),
        ({"status": 200, "body": "html"}, ["the body is JSON: another text"]),
        ({"status": 400}, ["the status is 2xx: HTTP 400"]),
        ({"status": 503}, ["the status is 2xx: HTTP 503"]),
    ],
)
def test_what_does_not_hold_is_shown(
    simulator: Simulator, contacts: Path, fault: dict[str, Any], parts: list[str]
) -> None:
    simulator.add_fault(**fault)
    done = run(simulator, contacts, "--yes", code=1)
    failed = [line for line in done.stdout.splitlines() if line.startswith("✗ ")]
    assert failed
    for part in parts:
        assert any(part in line for line in failed), done.stdout
    # A rejected request has no result to compare, so the adapter is not at fault.
    words = "no answer to compare" if "status" in parts[0] else "before the adapter is corrected"
    assert words in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("fault", "part", "may_be_billed"),
    [
        ({"drop": "after"}, "", True),
        ({"path": "token", "status": 503}, "no token: the login service answers HTTP 503", False),
        ({"path": "token", "status": 401}, "the login service refuses OAuth client", False),
    ],
)
def test_no_answer_is_one_line(
    simulator: Simulator, contacts: Path, fault: dict[str, Any], part: str, *, may_be_billed: bool
) -> None:
    simulator.add_fault(**fault, times=None)
    done = run(simulator, contacts, "--yes", code=1)
    assert done.stdout == ""
    _, line = done.stderr.splitlines()
    assert part in line
    assert line.endswith("; the contact may have been billed") is may_be_billed
    assert bool(simulator.scored()) is may_be_billed


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (CSV, "has no contact"),
        (CSV + "a,many,1,1,x\n", "contacts.csv:2: 'previous_calls' must be an integer"),
        ("contact_id,age\na,1\n", "column 'age' is no feature of the model"),
        ("contact_id,previous_calls\n" + "x" * 300 + ",1\n", "the worker would reject it without a request"),
        (None, "No such file"),
    ],
)
def test_a_contact_that_cannot_be_sent_is_one_line(
    simulator: Simulator, contacts: Path, content: str | None, part: str
) -> None:
    contacts.unlink()
    if content is not None:
        contacts.write_text(content)
    done = run(simulator, contacts, "--yes", code=1)
    [line] = done.stderr.splitlines()
    assert part in line
    assert simulator.stats().requests.get("score", 0) == 0


def test_contradicting_options_are_refused(simulator: Simulator, contacts: Path) -> None:
    assert "--score and --connect are two checks" in run(simulator, contacts, "--connect", code=2).stderr
    assert "the name does not end in" in run(simulator, "contacts.xyz", "--yes", code=2).stderr
    done = subprocess.run(
        [sys.executable, "-m", "stream_scorer", "config", "check", "--yes"],
        env=command(simulator, contacts)["env"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "--yes: add --score FILE" in done.stderr
