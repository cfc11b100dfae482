"""The question before a job: what an answer does, and options that no job can work with."""

from __future__ import annotations

import sys
from unittest.mock import Mock

import pytest
import typer

from stream_scorer.cli import main
from stream_scorer.cli.desk_jobs import JobChoices
from stream_scorer.errors import CheckFailed, UsageError

CHOICES = JobChoices(job=None, operator=None, rate=None, yes=False, output=None, out=None)


def test_no_is_a_failure_and_no_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of `config check --score`: 130 is that of Ctrl-C."""
    for name in ("stdin", "stderr"):
        monkeypatch.setattr(sys, name, Mock(isatty=lambda: True))
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: False)
    with pytest.raises(CheckFailed, match="nothing was changed"):
        CHOICES.confirm(lambda: "3 would be closed. Discard them?")
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: True)
    CHOICES.confirm(lambda: "3 would be closed. Discard them?")


def test_without_a_terminal_nothing_is_asked() -> None:
    with pytest.raises(UsageError, match="repeat the command with --yes"):
        CHOICES.confirm(lambda: pytest.fail("asked"))


@pytest.mark.parametrize("rate", ["inf", "nan", "0", "1e9"])
def test_a_rate_that_is_none_is_refused(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A JOB record was written before an infinite one ended in a traceback."""
    assert main(["rejected", "replay", "C-1", "--yes", "--rate", rate]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--rate" in line
