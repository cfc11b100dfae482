"""Output of commands: no encoding, full disk or closed stream changes an exit code or repeats work."""

from __future__ import annotations

import errno
import importlib
import io
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

import pytest
import structlog

from stream_scorer.cli import main
from stream_scorer.cli.standard_streams import SafeStream
from stream_scorer.core.reconciliation.callback_report import CallbackCounts, CallbackReport
from stream_scorer.core.reconciliation.score_report import Provenance
from stream_scorer.errors import BrokerUnavailable
from stream_scorer.kafka.admin.topics import TopicsReport

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = "käufer ≥ 0.75 … ✓ \udc80"


class Failing(io.StringIO):
    """A stream on a full disk, or a pipe without a reader."""

    def __init__(self, number: int = errno.ENOSPC) -> None:
        super().__init__()
        self.number = number
        self.is_full = True

    def write(self, text: str) -> int:
        if self.is_full:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)

    def flush(self) -> None:
        if self.is_full:
            raise OSError(self.number, os.strerror(self.number))


def in_encoding(name: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), name, errors="strict")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Replace the standard streams of the command."""
    given: dict[str, Any] = {"stdout": io.StringIO(), "stderr": io.StringIO()}

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "stdout", given["stdout"])
        monkeypatch.setattr(sys, "stderr", given["stderr"])
        return main(arguments)

    given["run"] = run
    yield given
    structlog.reset_defaults()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how often `topics create` was executed; it prints a line for each topic."""
    done: list[int] = []

    def create_topics(*_: Any, **__: Any) -> TopicsReport:
        done.append(1)
        return TopicsReport(tuple(f"topic-{number}-{WORDS}" for number in range(50)), ())

    monkeypatch.setattr(importlib.import_module("stream_scorer.cli.topics"), "create_topics", create_topics)
    return done


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF])
def test_output_that_cannot_be_written(streams: dict[str, Any], work: list[int], number: int) -> None:
    streams["stdout"] = Failing(number)
    assert streams["run"]("topics", "create") == 0
    assert work == [1]
    said = "" if number == errno.EPIPE else f"stream-scorer: standard output cannot be written ({os.strerror(number)})"
    assert streams["stderr"].getvalue().startswith(said)
    assert len(streams["stderr"].getvalue().splitlines()) == (number != errno.EPIPE)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437", "utf-8", "utf-16"])
def test_output_in_any_encoding(streams: dict[str, Any], work: list[int], encoding: str) -> None:
    streams["stdout"] = in_encoding(encoding)
    assert streams["run"]("topics", "create") == 0
    assert work == [1]
    assert b"\\udc80" in streams["stdout"].buffer.getvalue().replace(b"\0", b"")


@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_streams_that_were_closed_at_the_start(streams: dict[str, Any], work: list[int], which: str) -> None:
    streams[which] = None
    assert streams["run"]("topics", "create") == 0
    assert work == [1]


@pytest.mark.parametrize("stream", [None, Failing(), in_encoding("ascii")])
@pytest.mark.parametrize("command", ["run", "callbacks"])
def test_errors_of_a_worker_keep_their_exit_code(
    streams: dict[str, Any], command: str, stream: TextIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def await_topics(*_: object) -> None:
        raise BrokerUnavailable(f"no answer from {WORDS}")

    monkeypatch.setattr(importlib.import_module(f"stream_scorer.cli.{command}"), "wait_for_topics", await_topics)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for name in ("CLIENT_ID", "CLIENT_SECRET", "MODEL_ID"):
        monkeypatch.setenv(f"GENESYS_{name}", "x")
    monkeypatch.setenv("STREAM_SCORER_CALLBACKS__TARGET", "log")
    streams["stderr"] = stream
    assert streams["run"](command) == 1


@pytest.mark.parametrize(("encoding", "sign"), [("latin-1", b"\\u2265"), ("ascii", "≥".encode())])
def test_the_verdict_of_a_reconciliation(
    streams: dict[str, Any], encoding: str, sign: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = CallbackReport("scores", "käufer", 0.75, CallbackCounts(called=3, delivered=3), {}, (), 0, 0, 0)
    command = importlib.import_module("stream_scorer.cli.reconcile")
    origin = Provenance("2030-01-31T06:00:00Z", "cluster", "1.0", "käufer", "käufer-callbacks")
    monkeypatch.setattr(command, "provenance", lambda *_: origin)
    monkeypatch.setattr(command, "_reconcile_both", lambda *_: command._Result(None, report))
    streams["stdout"] = in_encoding(encoding)
    assert streams["run"]("reconcile") == 0
    assert b"3 scores " + sign + b" 0.75 = 3 delivered" in streams["stdout"].buffer.getvalue()


def test_the_reader_of_a_pipe_is_gone_before_or_after_a_write() -> None:
    for is_written in (False, True):
        reading, writing = os.pipe()
        with os.fdopen(writing, "w") as pipe:
            stream = SafeStream(pipe, 1)
            assert not stream.is_reader_gone
            os.close(reading)
            if is_written:
                stream.write("lost\n")
                stream.flush()
            assert stream.is_reader_gone
            stream.finish()


@pytest.mark.parametrize(("number", "is_gone"), [(errno.EPIPE, True), (errno.ENOSPC, False)])
def test_a_full_disk_is_no_reader_that_is_gone(number: int, *, is_gone: bool) -> None:
    stream = SafeStream(Failing(number), 1)
    stream.write("lost")
    assert stream.is_reader_gone is is_gone


def test_a_disk_that_has_room_again() -> None:
    disk = Failing()
    stream = SafeStream(disk, 1)
    assert stream.write("lost") == 4
    disk.is_full = False
    stream.writelines(["ke", "pt"])
    assert disk.getvalue() == "kept"


def test_a_stream_that_is_closed_meanwhile() -> None:
    stream, notes = SafeStream(io.StringIO(), 1, SafeStream(said := io.StringIO(), 2)), said
    stream.close()
    assert stream.write("lost") == 4
    stream.flush()
    stream.finish()
    assert "standard output cannot be written (it is closed)" in notes.getvalue()


def test_the_streams_are_put_back(streams: dict[str, Any], work: list[int]) -> None:
    assert streams["run"]("topics", "create") == 0
    assert (sys.stdout, sys.stderr) == (streams["stdout"], streams["stderr"])
    assert work


REDIRECTIONS = {
    ">/dev/full": "full",
    ">/dev/full 2>/dev/full": "full",
    ">&-": "closed",
    "2>&-": "closed",
    ">&- 2>&- <&-": "closed",
    "| head -1": "pipe",
}


@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_a_process_of_its_own(redirection: str) -> None:
    """With real descriptors: Python would exit with 120 after a failed flush, and reuse a closed descriptor."""
    program = "import sys; from stream_scorer.cli import main; sys.exit(main())"
    environ = dict.fromkeys(("GENESYS_CLIENT_ID", "GENESYS_CLIENT_SECRET", "GENESYS_MODEL_ID"), "x")
    line = f"set -o pipefail; {sys.executable} -c '{program}' config check {redirection}"
    done = subprocess.run(
        ["bash", "-c", line], env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_closed_number_is_not_given_to_a_file() -> None:
    program = (
        "from stream_scorer.cli.standard_streams import safe_streams\n"
        "with safe_streams():\n"
        "    file = open('/dev/null')\n"
        "    raise SystemExit(0 if file.fileno() > 2 else 1)\n"
    )
    done = subprocess.run(["bash", "-c", f'{sys.executable} -c "{program}" <&- >&- 2>&-'], timeout=60, check=False)
    assert done.returncode == 0


def test_what_is_no_text_wrapper_gets_escapes() -> None:
    class Ascii(io.StringIO):
        def write(self, text: str) -> int:
            text.encode("ascii")
            return super().write(text)

    plain = Ascii()
    SafeStream(cast("TextIO", plain), 1).write("ä")
    assert plain.getvalue() == "\\xe4"
