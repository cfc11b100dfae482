"""docs/tutorial.md, followed literally: every command in a shell, in an empty folder beside the examples.

Only the ports are other ones. The commands print a table, as on a terminal. With RECORD=1 the page is written again.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from documented_commands import walked_parts
from page_walk import check, play
from scoring_harness import wait_until
from worker_harness import ROOT

from stream_scorer.local.kafka.config import DEFAULT_PORT
from stream_scorer.local.kafka.process import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE: Final = ROOT / "docs" / "tutorial.md"
KAFKA, API, ADMIN = str(DEFAULT_PORT), "8090", "9464"
# Commands of the desk print a table on a terminal; the test has none.
TABLES: Final = ("read", "rejected list", "rejected replay", "audit show")
# What a program in the foreground has printed when the reader goes on.
STARTED: Final = {"simulate": "Faults and statistics", "run": "caught up"}
FORMS: Final = {
    r"process [0-9]+": "process <pid>",
    r"cluster [\w-]+,": "cluster <cluster>,",
    r"instance_id=\S+": "instance_id=<instance>",
    r"after_s=[0-9.]+": "after_s=<seconds>",
    r"\([0-9]+ s\)": "(<seconds>)",
    r"next\s+probe\s+in\s+[0-9]+\s+s": "next probe in <seconds>",
    r"quota\s+[0-9]+/300": "quota <requests>",
    r"[0-9.,]+/s": "<rate>",
    r"stream-scorer [0-9]+\.[0-9]+\.[0-9]+": "stream-scorer <version>",
    r"latency_ms\D{1,3}[0-9.]+": "latency_ms <latency>",
    r'"(correlation_id|hash|previous_hash)": "[^"]+"': r'"\1": "<id>"',
    r"operator \S+@[^\s,]+": "operator <operator>",
    r"[0-9]+ audit events": "<events> audit events",
}


class Reader:
    """A reader with several terminals in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {KAFKA: str(free_port())}
        self.ports[API] = str(free_port(avoid=[int(self.ports[KAFKA])]))
        self.ports[ADMIN] = str(free_port(avoid=[int(self.ports[KAFKA]), int(self.ports[API])]))
        self.terminals: dict[str, subprocess.Popen[bytes]] = {}
        self.screens: dict[str, Path] = {}
        self.started = 0
        (folder / "examples").symlink_to(ROOT / "examples")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("STREAM_SCORER_", "GENESYS_"))}
        api = f"http://127.0.0.1:{self.ports[API]}"
        self.environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "COLUMNS": "200",
            "STREAM_SCORER_LOG__FORMAT": "text",
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{self.ports[KAFKA]}",
            "STREAM_SCORER_GENESYS__BASE_URL": api,
            "STREAM_SCORER_GENESYS__LOGIN_URL": api,
            "STREAM_SCORER_ADMIN__PORT": self.ports[ADMIN],
        }

    def run(self, command: str) -> str:
        """What a command prints, with the ports of the page."""
        words = shlex.split(command)
        if words[0] == "stream-scorer" and words[1] in STARTED:
            return self.as_on_page(self.open(command, words[1]))
        done = self.shell(self.as_here(command))
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return self.as_on_page(done.stdout)

    def as_here(self, command: str) -> str:
        if "stream-scorer kafka start" in command:
            return f"{command} --port {self.ports[KAFKA]}"
        if command == "stream-scorer simulate":
            return f"{command} --port {self.ports[API]}"
        if command.removeprefix("stream-scorer ").startswith(TABLES) and " -o " not in command:
            command = f"{command} -o table"
        return command.replace(f":{ADMIN}", f":{self.ports[ADMIN]}")

    def as_on_page(self, text: str) -> str:
        for there, here in self.ports.items():
            text = text.replace(f":{here}", f":{there}")
        return text.replace(str(self.folder), "…")

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # A terminal shows both. Only the progress of `kafka start` is gone from it at the end.
            stderr=subprocess.DEVNULL if "kafka start" in command else subprocess.STDOUT,
            text=True,
            check=False,
        )

    def open(self, command: str, program: str) -> str:
        """Start a program in a terminal of its own; what it has printed when it has started."""
        self.started += 1
        screen = self.folder / f"{program}-{self.started}.log"
        with screen.open("wb") as output:
            self.terminals[program] = subprocess.Popen(
                shlex.split(self.as_here(command)),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.screens[program] = screen

        def printed() -> str | None:
            lines = screen.read_text().splitlines(keepends=True)
            for number, line in enumerate(lines, 1):
                if STARTED[program] in line and line.endswith("\n"):
                    return "".join(lines[:number])
            assert self.terminals[program].poll() is None, "".join(lines)
            return None

        text: str = wait_until(printed, f"{program} to start")
        return text

    def act(self, action: str) -> None:
        """What the page asks of the reader between two blocks."""
        verb, _, what = action.partition(" ")
        if verb == "Ctrl-C":
            program = self.terminals.pop(what)
            program.send_signal(signal.SIGINT)
            assert program.wait(60) in (0, 130)
        elif what == "circuit open":
            wait_until(lambda: self.shows("circuit opened"), "the circuit breaker to open")
        elif what == "circuit closed, then caught up":
            wait_until(lambda: self.shows("circuit opened", "circuit closed", "caught up"), what)
            wait_until(self.is_caught_up, "the worker to have caught up")
        else:
            assert what == "caught up", action
            wait_until(self.is_caught_up, "the worker to have caught up")

    def shows(self, *events: str) -> bool:
        """Whether the worker's screen has these events, each after the one before."""
        text = self.screens["run"].read_text()
        for event in events:
            text = text.partition(event)[2]
        return bool(text)

    def is_caught_up(self) -> bool:
        done = self.shell("stream-scorer status --json --config scorer.toml")
        assert done.returncode == 0, done.stdout
        [scoring] = [group for group in json.loads(done.stdout)["groups"] if group["loop"] == "scoring"]
        return bool(scoring["lag"] == 0)

    def leave(self) -> None:
        for program in self.terminals.values():
            program.kill()
            program.wait()
        self.shell("test ! -d .kafka || stream-scorer kafka stop --data-dir .kafka")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.leave()


@pytest.mark.slow
def test_the_tutorial_prints_what_stands_on_the_page(reader: Reader) -> None:
    [section] = walked_parts("docs/tutorial.md")
    check(PAGE, section, play(section, reader.run, reader.act), FORMS)
    assert [path.name for path in reader.folder.iterdir() if path.suffix != ".log"] == ["examples"]
